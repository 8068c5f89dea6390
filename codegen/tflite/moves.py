"""Rules for TensorFlow Lite operators that move bytes, and for those at the edges of a graph."""

from collections.abc import Sequence

import numpy as np

from codegen.tflite.building import GraphBuilder, Rule, left_out
from codegen.tflite.reader import FileOperator, FileTensor
from refsim import Port
from refsim.errors import ModelError, UnsupportedError
from refsim.ops.concat import Concat
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape

_MOST_COPIES = 32
"""How often an element may be repeated: what a corrupt size asks for is not even tried."""


def _reshape(low: GraphBuilder, op: FileOperator) -> None:
    low.write(Reshape(low.output_type().shape), low.read())


def _transpose(low: GraphBuilder, op: FileOperator) -> None:
    whole = low.given(0).shape
    order = low.axes(low.integers(1), len(whole))
    if sorted(order) != list(range(len(whole))):
        raise ModelError(f"{order} is no permutation of {len(whole)} axes")
    skip = left_out(whole)
    low.write(Transpose(tuple(axis - skip for axis in order if axis >= skip)), low.read())


def _resize_nearest(low: GraphBuilder, op: FileOperator) -> None:
    """To whole multiples: copies side by side along a new axis, which joins the one before it."""
    before, after = low.given(0).shape, low.output.shape
    images = len(before) == len(after) == 4 and all((*before, *after))
    if not images or op.option(0, "B") or before[::3] != after[::3]:
        raise UnsupportedError(f"from {before} to {after}: images without aligned corners are supported")
    tensor = low.read()
    for axis, name in ((1, "wide"), (0, "high")):
        shape, size = low.tensors[tensor].shape, after[axis + 1]
        factor = size // shape[axis]
        places = np.floor((np.arange(size, dtype=np.float32) + _middle(op)) * np.float32(shape[axis] / size))
        if size % shape[axis] or factor > _MOST_COPIES or (places != np.arange(size) // factor).any():
            raise UnsupportedError(f"from {before} to {after}: multiples of up to {_MOST_COPIES} are supported")
        once = low.shaped(tensor, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        copies = Concat(axis + 1, (None,) * factor)
        many = low.emit(copies, [once] * factor, low.tensors[tensor], f"{low.output.name}/{name}")
        tensor = low.shaped(many, (*shape[:axis], size, *shape[axis + 1 :]))
    low.write(Reshape(low.output_type().shape), tensor)


def _middle(op: FileOperator) -> np.float32:
    """Where an element of the output stands: at its start, or in its middle."""
    return np.float32(0.5 if op.option(1, "B") else 0)


def _blocks(low: GraphBuilder, op: FileOperator) -> None:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH: the block's axes change places with the one between them."""
    before, after, size = low.given(0).shape, low.output.shape, op.option(0, "i")
    if len(before) != 4 or len(after) != 4:
        raise UnsupportedError(f"images are supported, found shapes {before} and {after}")
    small, channels = (before, after[3]) if op.kind == "DEPTH_TO_SPACE" else (after, before[3])
    _, height, width, _ = small
    depth_first, space_first = (height, width, size, size, channels), (height, size, width, size, channels)
    split = low.shaped(low.read(), depth_first if op.kind == "DEPTH_TO_SPACE" else space_first)
    moved = low.emit(Transpose((0, 2, 1, 3, 4)), [split], low.tensors[split], f"{low.output.name}/moved")
    low.write(Reshape(low.output_type().shape), moved)


def _whole(low: GraphBuilder, tensor: str, shape: Shape, touched: bool) -> tuple[str, int]:
    """The tensor for work along its axes, and how many of them are left out: none where the first one is touched."""
    return (low.shaped(tensor, shape), 0) if touched else (tensor, left_out(shape))


def _pad(low: GraphBuilder, op: FileOperator) -> None:
    whole = low.given(0).shape
    widths = low.integers(1)
    if len(widths) != 2 * len(whole):
        raise ModelError(f"{len(widths)} widths do not fit {len(whole)} axes")
    tensor, skip = _whole(low, low.read(), whole, any(widths[:2]))
    value = low.tensors[tensor].zero_point
    if op.kind == "PADV2":
        filler = low.given(2)
        if filler.data is None or filler.data.size != 1 or filler.element_type != "int8":
            raise UnsupportedError(f"its filler {filler.name!r} must be a constant of one int8")
        value = int(filler.data.reshape(-1)[0])
    low.write(Pad(tuple(widths[2 * skip :: 2]), tuple(widths[2 * skip + 1 :: 2]), value), tensor)


def _join(low: GraphBuilder, tensors: Sequence[FileTensor], shapes: Sequence[Shape], axis: int) -> None:
    """Concatenate tensors under the given whole shapes."""
    names = [low.activation(tensor) for tensor in tensors]
    skip = 0 if axis == 0 else min(map(left_out, shapes))
    names = [low.shaped(name, shape[skip:]) for name, shape in zip(names, shapes, strict=True)]
    # Both engines copy bytes and refuse inputs of another quantisation than the output's.
    low.write(Concat(axis - skip, (None,) * len(names)), *names)


def _concat(low: GraphBuilder, op: FileOperator) -> None:
    if op.option(1, "b"):
        raise UnsupportedError("a fused activation on a CONCATENATION is not supported")
    inputs = [low.given(position) for position in range(len(op.inputs))]
    if not inputs:
        raise ModelError("it has no input")
    axis = low.axis([op.option(0, "i")], len(inputs[0].shape))
    _join(low, inputs, [tensor.shape for tensor in inputs], axis)


def _pack(low: GraphBuilder, op: FileOperator) -> None:
    inputs = [low.given(position) for position in range(len(op.inputs))]
    if not inputs:
        raise ModelError("it has no input")
    axis = low.axis([op.option(1, "i")], len(inputs[0].shape) + 1)
    _join(low, inputs, [(*t.shape[:axis], 1, *t.shape[axis:]) for t in inputs], axis)


def _cut(
    low: GraphBuilder,
    starts: Sequence[int],
    sizes: Sequence[int],
    steps: Sequence[int],
    source: int = 0,
    position: int = 0,
) -> None:
    """Write the output at `position` as a part of the input at `source`."""
    skip = left_out(low.given(source).shape)
    low.write(
        Slice(tuple(starts[skip:]), tuple(sizes[skip:]), tuple(steps[skip:])), low.read(source), position=position
    )


def _slice(low: GraphBuilder, op: FileOperator) -> None:
    shape = low.given(0).shape
    starts, sizes = low.integers(1), low.integers(2)
    if not len(starts) == len(sizes) == len(shape):
        raise ModelError(f"{len(starts)} starts and {len(sizes)} sizes do not fit {len(shape)} axes")
    sizes = [n - start if size == -1 else size for start, size, n in zip(starts, sizes, shape, strict=True)]
    _cut(low, starts, sizes, [1] * len(shape))


def _strided_slice(low: GraphBuilder, op: FileOperator) -> None:
    shape = low.given(0).shape
    begins, ends, steps = (low.integers(position) for position in (1, 2, 3))
    begin_mask, end_mask, ellipsis, new_axis, shrink = (op.option(number, "i") for number in range(5))
    if ellipsis or new_axis or op.option(5, "B"):
        raise UnsupportedError("an ellipsis, a new axis or ends relative to the begins are not supported")
    if not len(begins) == len(ends) == len(steps) <= len(shape) or any(step < 1 for step in steps):
        raise UnsupportedError(f"begins {begins}, ends {ends}, steps {steps} are not supported for shape {shape}")
    starts, sizes = [0] * len(shape), list(shape)
    for axis, (begin, end, step, n) in enumerate(zip(begins, ends, steps, shape, strict=False)):
        start, stop, _ = slice(begin, end, step).indices(n)
        if shrink >> axis & 1:
            start = begin + n if begin < 0 else begin
            stop = start + 1
        else:
            start = 0 if begin_mask >> axis & 1 else start
            stop = n if end_mask >> axis & 1 else stop
        starts[axis], sizes[axis] = start, -(-(stop - start) // step)
    _cut(low, starts, sizes, [*steps, *[1] * (len(shape) - len(steps))])


def _parts(low: GraphBuilder, source: int, axis: int, sizes: Sequence[int]) -> None:
    """Write every output as a part of the input at `source` along an axis."""
    shape = low.given(source).shape
    if len(sizes) != len(low.op.outputs):
        raise ModelError(f"{len(sizes)} parts do not fit {len(low.op.outputs)} outputs")
    start = 0
    for position, size in enumerate(sizes):
        starts, whole = [0] * len(shape), list(shape)
        starts[axis], whole[axis] = start, size
        _cut(low, starts, whole, [1] * len(shape), source, position)
        start += size


def _split(low: GraphBuilder, op: FileOperator) -> None:
    shape = low.given(1).shape
    axis = low.axis(low.integers(0), len(shape))
    count = len(op.outputs)
    if shape[axis] % count:
        raise ModelError(f"{shape[axis]} elements do not split into {count} equal parts")
    _parts(low, 1, axis, [shape[axis] // count] * count)


def _split_v(low: GraphBuilder, op: FileOperator) -> None:
    shape = low.given(0).shape
    axis = low.axis(low.integers(2), len(shape))
    sizes = low.integers(1)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
    _parts(low, 0, axis, sizes)


def _unpack(low: GraphBuilder, op: FileOperator) -> None:
    shape = low.given(0).shape
    axis = low.axis([op.option(1, "i")], len(shape))
    _parts(low, 0, axis, [1] * shape[axis])


def _quantize(low: GraphBuilder, op: FileOperator) -> None:
    source, target = low.given(0), low.output
    if source.element_type == "int8" and target.element_type == "uint8":
        low.real[target] = _shifted(low, low.read(), source, target)
    elif source in low.file.inputs and source.element_type in ("float32", "uint8"):
        if source in low.ports:
            raise UnsupportedError(f"input {source.name!r} is quantised twice")
        kind = low.output_type()
        low.tensors[target.name] = kind
        low.ports[source] = Port(target.name, source.name)
        low.aliases[target] = target.name
        if source.element_type == "uint8":
            _shifted(low, target.name, target, source)
    else:
        tensor = low.read()
        x, y = low.tensors[tensor], low.output_type()
        low.write(Requantize(x.zero_point, low.requantization(x.scale / y.scale, y)), tensor)


def _shifted(low: GraphBuilder, tensor: str, signed: FileTensor, unsigned: FileTensor) -> str:
    """An int8 tensor for the uint8 one at the edge, which must be the same but for the offset of 128."""
    same = signed.scale.size == unsigned.scale.size == 1 and signed.scale[0] == unsigned.scale[0]
    if not same or signed.zero_point[0] + 128 != unsigned.zero_point[0]:
        raise UnsupportedError(f"the uint8 tensor {unsigned.name!r} is quantised otherwise than the int8 one beside it")
    return tensor


def _dequantize(low: GraphBuilder, op: FileOperator) -> None:
    if low.output not in low.file.outputs:
        raise UnsupportedError(
            f"what reads {low.output.name!r} would have to run in float: convert with full integer quantisation"
        )
    low.real[low.output] = low.read()


MOVES: dict[str, Rule] = {
    "CONCATENATION": _concat,
    "DEPTH_TO_SPACE": _blocks,
    "DEQUANTIZE": _dequantize,
    "EXPAND_DIMS": _reshape,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _quantize,
    "RESHAPE": _reshape,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "SLICE": _slice,
    "SPACE_TO_DEPTH": _blocks,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
"""By the schema's name."""
