"""Normalisers of operators that move data."""

import math

import numpy as np

from codegen.onnx.context import Attributes, Context, Normalizer
from refsim.tensor import Shape

_CENTRED = (b"half_pixel", b"pytorch_half_pixel", b"half_pixel_symmetric")
"""Ways to place the elements of an image by their middles."""
_MOST_COPIES = 32
"""How often an element may be repeated: what a corrupt size asks for is not even tried."""


def _block(to_depth: bool) -> Normalizer:
    """DepthToSpace and SpaceToDepth: a reshape, a transpose and a reshape."""

    def build(context: Context) -> None:
        n, channels, height, width = context.shape
        size = int(context.attributes["blocksize"])
        split: Shape
        if to_depth:
            split, order = (n, channels, height // size, size, width // size, size), (0, 3, 5, 1, 2, 4)
        elif context.attributes.get("mode", b"DCR") == b"DCR":
            split, order = (n, size, size, channels // size**2, height, width), (0, 3, 4, 1, 5, 2)
        else:
            split, order = (n, channels // size**2, size, size, height, width), (0, 1, 4, 2, 5, 3)
        blocks = context.emit("Reshape", output=context.new_tensor("blocks", split))
        moved = context.new_tensor("moved", tuple(split[axis] for axis in order))
        context.emit("Reshape", [context.emit("Transpose", [blocks], moved, permutation=order)])

    return build


def _resize(context: Context) -> None:
    """Resize and Upsample to whole multiples, each element repeated."""
    attributes, older = context.attributes, context.node.op_type == "Upsample" or context.opset < 11
    mode = attributes.get("mode", b"nearest")
    where = b"asymmetric" if older else attributes.get("coordinate_transformation_mode", b"half_pixel")
    rounding = b"floor" if older else attributes.get("nearest_mode", b"round_prefer_floor")
    repeats = (where == b"asymmetric" and rounding == b"floor") or (
        where in _CENTRED and rounding in (b"round_prefer_floor", b"round_prefer_ceil")
    )
    before, after = context.shape, context.output_shape
    whole = len(before) in (3, 4) and all(
        n % m == 0 and n // m <= _MOST_COPIES for m, n in zip(before, after, strict=True)
    )
    if mode != b"nearest" or not repeats or not whole or before[:2] != after[:2]:
        raise context.unsupported(
            f"mode {mode.decode()!r} with {where.decode()!r} and {rounding.decode()!r} from {before} to {after}: "
            f"'nearest' to multiples of up to {_MOST_COPIES} of an image's size is supported, with 'asymmetric' and "
            "'floor' or 'half_pixel' and 'round_prefer_floor'"
        )
    context.emit("Repeat", factors=tuple(n // m for m, n in zip(before[2:], after[2:], strict=True)))


def _reshape(context: Context) -> None:
    context.emit("Reshape")


def _expand(context: Context) -> None:
    if math.prod(context.shape) != math.prod(context.output_shape):
        raise context.unsupported("expanding an activation is not supported")
    context.emit("Reshape")


def _transpose(context: Context) -> None:
    rank = len(context.shape)
    context.emit("Transpose", permutation=tuple(context.attributes.get("perm", range(rank - 1, -1, -1))))


def _slice(context: Context) -> None:
    starts = context.constant(1, "starts")
    ends = context.constant(2, "ends")
    if starts is None or ends is None:
        raise context.unsupported("starts and ends are missing")
    axes, steps = context.constant(3, "axes"), context.constant(4)
    rank = len(context.shape)
    first, step = [0] * rank, [1] * rank
    for index, axis in enumerate(range(starts.size) if axes is None else axes.reshape(-1)):
        step[context.axis(int(axis))] = 1 if steps is None else int(steps.reshape(-1)[index])
        size = context.shape[context.axis(int(axis))]
        start = int(starts.reshape(-1)[index])
        first[context.axis(int(axis))] = min(max(start + size if start < 0 else start, 0), size)
    if min(step) < 1:
        raise context.unsupported("steps must be at least 1")
    context.emit("Slice", starts=tuple(first), sizes=context.output_shape, steps=tuple(step))


def _split(context: Context) -> None:
    axis = context.axis(context.attributes.get("axis", 0))
    start = 0
    for output in context.node.output:
        shape = context.network.shapes[output]
        starts = tuple(start if a == axis else 0 for a in range(len(shape)))
        context.emit("Slice", output=output, starts=starts, sizes=shape, steps=(1,) * len(shape))
        start += shape[axis]


def _gather(context: Context) -> None:
    axis = context.axis(context.attributes.get("axis", 0))
    indices = context.constant(1)
    if indices is None or context.inputs[0] in context.network.constants:
        raise context.unsupported("gathering from a constant (an embedding) is not supported")
    size = context.shape[axis]
    flat = [int(i) + size if i < 0 else int(i) for i in indices.reshape(-1)]
    step = flat[1] - flat[0] if len(flat) > 1 else 1
    if not flat or step < 1 or flat != list(range(flat[0], flat[0] + step * len(flat), step)):
        raise context.unsupported(f"constant indices that rise in equal steps are supported, found {flat[:8]}")
    rank = len(context.shape)
    starts = tuple(flat[0] if a == axis else 0 for a in range(rank))
    sizes = tuple(len(flat) if a == axis else context.shape[a] for a in range(rank))
    steps = tuple(step if a == axis else 1 for a in range(rank))
    if sizes == context.output_shape:
        context.emit("Slice", starts=starts, sizes=sizes, steps=steps)
        return
    part = context.emit("Slice", output=context.new_tensor("part", sizes), starts=starts, sizes=sizes, steps=steps)
    context.emit("Reshape", [part])


def _concat(context: Context) -> None:
    context.emit("Concat", context.inputs, axis=context.axis(context.attributes["axis"]))


def _pad(context: Context) -> None:
    mode = context.attributes.get("mode", b"constant")
    pads = context.constant(1, "pads")
    if mode != b"constant" or pads is None:
        raise context.unsupported(f"mode {mode.decode()!r} is not supported; 'constant' is")
    value, axes = context.constant(2, "value"), context.constant(3)
    rank = len(context.shape)
    before, after = [0] * rank, [0] * rank
    chosen = list(range(rank)) if axes is None else [context.axis(int(axis)) for axis in axes.reshape(-1)]
    for index, axis in enumerate(chosen):
        before[axis], after[axis] = int(pads[index]), int(pads[len(chosen) + index])
    if min(*before, *after, 0) < 0:
        raise context.unsupported("negative padding is not supported: use Slice")
    filler = 0.0 if value is None else float(value.reshape(()))
    fill: Attributes = {"value": filler}
    if np.issubdtype(context.dtype, np.integer):
        fill = {"byte": int(filler) - (128 if context.dtype == np.uint8 else 0)}
    context.emit("Pad", before=tuple(before), after=tuple(after), **fill)


MOVES: dict[str, Normalizer] = {
    "Concat": _concat,
    "DepthToSpace": _block(to_depth=False),
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _block(to_depth=True),
    "Split": _split,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Upsample": _resize,
}
"""By ONNX operator type."""
