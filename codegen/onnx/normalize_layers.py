"""Normalisers of layers: products with weights, pools, reductions, normalisations and softmax."""

import math

import numpy as np

from codegen.onnx.context import Context, Normalizer


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


def _pool(kind: str) -> Normalizer:
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


def _reduce(total: bool) -> Normalizer:
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
    """A pool over the reduced axes, which are brought together behind all others."""
    given, shape = context.constant(1, "axes"), context.shape
    axes = sorted({context.axis(int(axis)) for axis in (() if given is None else given.reshape(-1))})
    if not axes or axes[0] == 0:
        raise context.unsupported("a maximum over the batch axis is not supported: name the other axes")
    x, kernel, rank = context.inputs[0], [shape[axis] for axis in axes], len(shape)
    if axes != list(range(2, rank)) or len(axes) > 2:
        kept = [axis for axis in range(rank) if axis not in axes]
        moved = tuple(shape[axis] for axis in (*kept, *axes))
        if (*kept, *axes) != tuple(range(rank)):
            x = context.emit("Transpose", [x], context.new_tensor("moved", moved), permutation=(*kept, *axes))
        kernel = [math.prod(kernel)]
        rows = (shape[0], math.prod(moved[1 : len(kept)]), *kernel)
        x = context.emit("Reshape", [x], context.new_tensor("rows", rows))
    pooled = context.new_tensor("pooled", (*context.network.shapes[x][:2], *[1] * len(kernel)))
    context.emit("MaxPool", [x], pooled, kernel=kernel, strides=[1] * len(kernel), pads=[0] * 2 * len(kernel))
    context.emit("Reshape", [pooled])


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
    if context.attributes.get("training_mode", 0):
        raise context.unsupported("it is in training mode, with the batch's own statistics: export for inference")
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


LAYERS: dict[str, Normalizer] = {
    "AveragePool": _pool("AveragePool"),
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _pool("MaxPool"),
    "ReduceMax": _reduce_max,
    "ReduceMean": _reduce(total=False),
    "ReduceSum": _reduce(total=True),
    "Softmax": _softmax,
}
"""By ONNX operator type."""
