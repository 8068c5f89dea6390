"""ONNX nodes -> the importer's few kinds of operators, with every attribute resolved.

| kind | inputs | attributes |
|---|---|---|
| Conv | x, weight, bias? | strides, pads (all begins, then all ends), dilations, group; bias_at |
| Linear | x, weight, bias? | transposed: the weight is (O, I) rather than (I, O); bias_at |
| MatMul, Add, Sub, Mul, Div | a, b | factor (MatMul) |
| BatchNorm | x, gamma, beta, mean, variance | epsilon |
| LayerNorm | x, gamma?, beta? | epsilon |
| Softmax | x | axis |
| Unary | x | function; of (operator type) and operand (a scalar constant), where one node |
| Clip | x | low, high |
| Scale | x | factor |
| Mean | x | axes |
| MaxPool, AveragePool | x | kernel, strides, pads |
| Reshape | x | |
| Transpose | x | permutation |
| Slice | x | starts, sizes, steps |
| Concat | any number | axis |
| Pad | x | before, after, value; byte instead where the file pads integers |
| Requantize | x | |

Axes count the batch axis and are not negative. bias_at says which node of the file reads the bias as it is, and as
which of its inputs; None if no node does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from codegen.onnx import functions
from codegen.onnx.network import Function, Network, Op
from refsim.errors import UnsupportedError
from refsim.tensor import Shape

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What a normaliser sees of its node: inputs are names after all renaming; dtype is the first one's in the file."""

    network: Network
    node: onnx.NodeProto
    inputs: list[str]
    attributes: Attributes
    opset: int
    dtype: np.dtype[Any]

    @property
    def shape(self) -> Shape:
        """Of the first input."""
        return self.network.shapes[self.inputs[0]]

    @property
    def output(self) -> str:
        """The first output."""
        return str(self.node.output[0])

    @property
    def output_shape(self) -> Shape:
        """Of the first output."""
        return self.network.shapes[self.output]

    def emit(self, kind: str, inputs: list[str] | None = None, output: str | None = None, **attributes: Any) -> str:
        """Append an operator; returns its output."""
        taken = {op.name for op in self.network.ops}
        name, count = self.node.name, 1
        while name in taken:
            name, count = f"{self.node.name}_{count}", count + 1
        op = Op(name, kind, inputs or self.inputs[:1], output or self.output, attributes)
        self.network.ops.append(op)
        return op.output

    def new_tensor(self, suffix: str, shape: Shape) -> str:
        """A name for a tensor that the file lacks."""
        name = f"{self.output}/{suffix}"
        self.network.shapes[name] = shape
        return name

    def constant(self, position: int, attribute: str = "") -> np.ndarray[Any, Any] | None:
        """The constant at an input position, else the attribute of that name (older operator sets), else None."""
        if position < len(self.inputs) and self.inputs[position]:
            found = self.network.constants.get(self.inputs[position])
            if found is None:
                raise self.unsupported(f"input {self.inputs[position]!r} must be a constant")
            return np.asarray(found.real)
        if attribute in self.attributes:
            return np.asarray(self.attributes[attribute])
        return None

    def axis(self, axis: int) -> int:
        """An axis of the first input, counted from the front."""
        rank = len(self.shape)
        if not -rank <= axis < rank:
            raise self.unsupported(f"axis {axis} is none of the {rank} axes of its input")
        return axis % rank

    def unsupported(self, message: str) -> UnsupportedError:
        """An error that names the node."""
        return UnsupportedError(f"node {self.node.name!r} ({self.node.op_type}): {message}")


def _scalar(context: Context, position: int) -> float | None:
    """The scalar constant at an input position, if it does not enlarge the other input."""
    other = context.inputs[1 - position]
    if other in context.network.constants or context.network.shapes[other] != context.output_shape:
        return None
    return context.network.scalar(context.inputs[position])


def _unary(context: Context, function: Function, operand: float | None = None, position: int = 0) -> None:
    context.emit("Unary", [context.inputs[position]], function=function, of=context.node.op_type, operand=operand)


def _add(context: Context) -> None:
    for position in (0, 1):
        value = _scalar(context, position)
        before = context.network.producer(context.inputs[1 - position])
        if value is not None and (before is None or before.kind not in ("Linear", "Conv")):  # behind those it is a bias
            _unary(context, functions.shift(value), value, 1 - position)
            return
    context.emit("Add", context.inputs)


def _sub(context: Context) -> None:
    left, right = _scalar(context, 0), _scalar(context, 1)
    if right is not None:
        return _unary(context, lambda x: x - right, -right)
    if left is not None:
        return _unary(context, lambda x: left - x, None, 1)
    subtracted = context.network.constants.get(context.inputs[1])
    if subtracted is None:
        context.emit("Sub", context.inputs)
    else:
        negative = context.network.add_constant(f"{context.inputs[1]}/negative", subtracted.multiply(-1.0))
        context.emit("Add", [context.inputs[0], negative])
    return None


def _mul(context: Context) -> None:
    if context.inputs[0] == context.inputs[1]:
        return _unary(context, np.square, 2.0)
    for position in (0, 1):
        value = _scalar(context, position)
        if value is not None:
            context.emit("Scale", [context.inputs[1 - position]], factor=value)
            return None
    context.emit("Mul", context.inputs)
    return None


def _div(context: Context) -> None:
    left, right = _scalar(context, 0), _scalar(context, 1)
    if right:
        context.emit("Scale", factor=1 / right)
        return None
    if left is not None:
        return _unary(context, lambda x: left / x, left, 1)
    divisor = context.network.constants.get(context.inputs[1])
    if divisor is None:
        context.emit("Div", context.inputs)
        return None
    if not np.asarray(divisor.real).all():
        raise context.unsupported(f"the divisor {context.inputs[1]!r} holds a zero")
    inverse = type(divisor)(1 / divisor.real)
    context.emit("Mul", [context.inputs[0], context.network.add_constant(f"{context.inputs[1]}/inverse", inverse)])
    return None


def _pow(context: Context) -> None:
    exponent = _scalar(context, 1)
    if exponent is None:
        raise context.unsupported("the exponent must be a constant scalar")
    _unary(context, lambda x: np.power(x, exponent), exponent)


def _limit(position: int) -> Callable[[Context], None]:
    """Max and Min with a scalar constant."""

    def build(context: Context) -> None:
        for side in (0, 1):
            value = _scalar(context, side) if len(context.inputs) == 2 else None
            if value is not None:
                low, high = (value, math.inf) if position == 0 else (-math.inf, value)
                context.emit("Clip", [context.inputs[1 - side]], low=low, high=high)
                return
        raise context.unsupported("one of two inputs must be a constant scalar")

    return build


def _clip(context: Context) -> None:
    low, high = context.constant(1, "min"), context.constant(2, "max")
    context.emit(
        "Clip",
        low=-math.inf if low is None else float(low.reshape(())),
        high=math.inf if high is None else float(high.reshape(())),
    )


def _prelu(context: Context) -> None:
    slope = context.network.scalar(context.inputs[1])
    if slope is None:
        raise context.unsupported("one slope for all channels is supported")
    _unary(context, functions.UNARY["LeakyRelu"]({"alpha": slope}))


def _activation(context: Context) -> None:
    if len([name for name in context.inputs if name]) > 1:
        raise context.unsupported("a fused bias is not supported: export it as Add")
    _unary(context, functions.UNARY[context.node.op_type](context.attributes))


def _window(context: Context, kernel: list[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, pads, dilations, and the part of the pads that ceil_mode adds at the ends for its larger output."""
    rank = len(kernel)
    strides = list(context.attributes.get("strides", [1] * rank))
    dilations = list(context.attributes.get("dilations", [1] * rank))
    pads = list(context.attributes.get("pads", [0] * 2 * rank))
    added = [0] * 2 * rank
    mode = context.attributes.get("auto_pad", b"NOTSET")
    for axis in range(rank):
        size, count = context.shape[2 + axis], context.output_shape[2 + axis]
        needed = (count - 1) * strides[axis] + dilations[axis] * (kernel[axis] - 1) + 1 - size
        if mode in (b"SAME_UPPER", b"SAME_LOWER"):
            total = max(needed, 0)
            pads[axis] = total // 2 if mode == b"SAME_UPPER" else total - total // 2
            pads[rank + axis] = total - pads[axis]
        elif mode == b"VALID":
            pads[axis] = pads[rank + axis] = 0
        added[rank + axis] = max(needed - pads[axis] - pads[rank + axis], 0)
        pads[rank + axis] += added[rank + axis]
    return strides, pads, dilations, added


def _conv(context: Context) -> None:
    for position in (1, 2):
        context.constant(position)
    weight = context.network.shapes[context.inputs[1]]
    if len(weight) not in (3, 4):
        raise context.unsupported(f"convolutions over one or two axes are supported, found weight shape {weight}")
    strides, pads, dilations, _ = _window(context, list(weight[2:]))
    context.emit(
        "Conv",
        context.inputs,
        strides=strides,
        pads=pads,
        dilations=dilations,
        group=context.attributes.get("group", 1),
        bias_at=(context.node.name, 2),
    )


def _pool(kind: str) -> Callable[[Context], None]:
    def build(context: Context) -> None:
        kernel = list(context.attributes["kernel_shape"])
        if len(kernel) not in (1, 2):
            raise context.unsupported("pooling over one or two axes is supported")
        strides, pads, dilations, added = _window(context, kernel)
        if dilations != [1] * len(kernel):
            raise context.unsupported("dilated pooling is not supported")
        x = context.inputs[0]
        if kind == "AveragePool" and context.attributes.get("count_include_pad", 0) and pads != added:
            # Padded positions count, unless ceil_mode added them: pad with zeros in the open, then pool.
            rank = len(kernel)
            counted = [pad - more for pad, more in zip(pads, added, strict=True)]
            before, after = (0, 0, *counted[:rank]), (0, 0, *counted[rank:])
            shape = tuple(b + n + a for b, n, a in zip(before, context.shape, after, strict=True))
            x = context.emit("Pad", [x], context.new_tensor("padded", shape), before=before, after=after, value=0.0)
            pads = added
        context.emit(kind, [x], kernel=kernel, strides=strides, pads=pads)

    return build


def _global_max_pool(context: Context) -> None:
    kernel = list(context.shape[2:])
    if len(kernel) not in (1, 2):
        raise context.unsupported("pooling over one or two axes is supported")
    context.emit("MaxPool", kernel=kernel, strides=[1] * len(kernel), pads=[0] * 2 * len(kernel))


def _global_average_pool(context: Context) -> None:
    context.emit("Mean", axes=tuple(range(2, len(context.shape))))


def _reduce(total: bool) -> Callable[[Context], None]:
    """ReduceMean, and ReduceSum: a mean times the number of elements."""

    def build(context: Context) -> None:
        given = context.constant(1, "axes")
        if given is None or not given.size:
            if context.attributes.get("noop_with_empty_axes", 0):
                context.emit("Reshape")
                return
            raise context.unsupported("a mean over the batch axis is not supported: name the axes")
        shape, x = context.shape, context.inputs[0]
        axes = sorted({context.axis(int(axis)) for axis in given.reshape(-1)})
        count = math.prod(shape[axis] for axis in axes)
        neighbours = axes == list(range(axes[0], axes[-1] + 1))
        if not neighbours:  # brought together behind all others
            kept = [axis for axis in range(len(shape)) if axis not in axes]
            moved = context.new_tensor("moved", tuple(shape[axis] for axis in (*kept, *axes)))
            x = context.emit("Transpose", [x], moved, permutation=(*kept, *axes))
            axes = list(range(len(kept), len(shape)))
        if not total and neighbours:
            context.emit("Mean", axes=tuple(axes))
            return
        rest = tuple(n for axis, n in enumerate(context.network.shapes[x]) if axis not in axes)
        x = context.emit("Mean", [x], context.new_tensor("mean", rest), axes=tuple(axes))
        if total:
            x = context.emit("Scale", [x], context.new_tensor("sum", rest), factor=float(count))
        context.emit("Reshape", [x])

    return build


def _reduce_max(context: Context) -> None:
    axes, rank = context.constant(1, "axes"), len(context.shape)
    chosen = sorted(context.axis(int(axis)) for axis in (() if axes is None else axes.reshape(-1)))
    if rank not in (3, 4) or chosen != list(range(2, rank)):
        raise context.unsupported("a maximum over all axes of an image but batch and channels is supported")
    kernel = list(context.shape[2:])
    pooled = context.new_tensor("pooled", (*context.shape[:2], *[1] * len(kernel)))
    context.emit("MaxPool", output=pooled, kernel=kernel, strides=[1] * len(kernel), pads=[0] * 2 * len(kernel))
    context.emit("Reshape", [pooled])


def _block(to_depth: bool) -> Callable[[Context], None]:
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


def _gemm(context: Context) -> None:
    attributes, constants = context.attributes, context.network.constants
    if attributes.get("transA", 0):
        raise context.unsupported("a transposed first input would mix the batch: transA must be 0")
    inputs = [name for name in context.inputs if name]
    for name in inputs[1:]:
        if name not in constants:
            raise context.unsupported(
                f"{name!r} must be a constant; products and sums of activations are MatMul and Add"
            )
    for position, factor in ((1, attributes.get("alpha", 1.0)), (2, attributes.get("beta", 1.0))):
        if factor != 1.0 and position < len(inputs):
            scaled = constants[inputs[position]].multiply(factor)
            inputs[position] = context.network.add_constant(f"{inputs[position]}/scaled", scaled)
    transposed = bool(attributes.get("transB", 0))
    width = context.output_shape[1]
    if len(inputs) > 2 and constants[inputs[2]].real.size != width:
        row = constants[inputs[2]].map(lambda t: np.broadcast_to(t, (1, width)).reshape(-1))
        inputs[2] = context.network.add_constant(f"{inputs[2]}/row", row)
    plain = list(inputs) == [name for name in context.inputs if name]
    context.emit("Linear", inputs, transposed=transposed, bias_at=(context.node.name, 2) if plain else None)


def _matmul(context: Context) -> None:
    a, b = context.inputs
    weight = context.network.constants.get(b)
    if weight is not None and a not in context.network.constants and len(weight.real.shape) >= 2:
        shape = weight.real.shape
        if math.prod(shape[:-2]) == 1 and len(context.shape) >= len(shape):
            if len(shape) > 2:
                b = context.network.add_constant(f"{b}/matrix", weight.map(lambda t: t.reshape(shape[-2:])))
            context.emit("Linear", [a, b], transposed=False, bias_at=None)
            return
    context.emit("MatMul", context.inputs, factor=1.0)


def _batch_norm(context: Context) -> None:
    for position in range(1, 5):
        context.constant(position)
    if not context.attributes.get("spatial", 1):
        raise context.unsupported("one normalisation for each element (spatial=0) is not supported")
    context.emit("BatchNorm", context.inputs, epsilon=context.attributes.get("epsilon", 1e-5))


def _layer_norm(context: Context) -> None:
    if context.axis(context.attributes.get("axis", -1)) != len(context.shape) - 1:
        raise context.unsupported("only the last axis can be normalised")
    for position in range(1, len(context.inputs)):
        context.constant(position)
    context.emit("LayerNorm", context.inputs, epsilon=context.attributes.get("epsilon", 1e-5))


def _softmax(context: Context) -> None:
    axis = context.axis(context.attributes.get("axis", 1 if context.opset < 13 else -1))
    if context.opset < 13 and math.prod(context.shape[axis + 1 :]) != 1:
        raise context.unsupported("before operator set 13 the axis must be the last")
    context.emit("Softmax", axis=axis)


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


NORMALIZERS: dict[str, Callable[[Context], None]] = {
    **dict.fromkeys(functions.UNARY, _activation),
    "Add": _add,
    "AveragePool": _pool("AveragePool"),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DepthToSpace": _block(to_depth=False),
    "Div": _div,
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Max": _limit(0),
    "MaxPool": _pool("MaxPool"),
    "Min": _limit(1),
    "Mul": _mul,
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _pow,
    "ReduceMax": _reduce_max,
    "ReduceMean": _reduce(total=False),
    "ReduceSum": _reduce(total=True),
    "Relu": lambda context: (context.emit("Clip", low=0.0, high=math.inf), None)[1],
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _block(to_depth=True),
    "Split": _split,
    "Squeeze": _reshape,
    "Sub": _sub,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
"""By ONNX operator type; quantisation, constants and no-ops are `codegen.onnx.build`'s."""
