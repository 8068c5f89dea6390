"""Rules for operators of the network that compute; images become channels last between two transposes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.building import (
    GraphBuilder,
    Rule,
    Value,
    aligned,
    channels_first,
    drop_axis,
    image,
    requantization,
    sample_axis,
    tensor_type,
)
from codegen.onnx.inherit import SOFTMAX
from codegen.onnx.network import Op
from refsim.errors import QuantizationError, ShapeError, UnsupportedError
from refsim.ops import Operator
from refsim.ops.add import Add
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.requantize import Requantize
from refsim.ops.softmax import Softmax
from refsim.tensor import Shape


def _image_shape(low: GraphBuilder) -> Shape:
    channels, *size = low.output_shape[1:]
    return (*([1] * (2 - len(size))), *size, channels)


def _plane(values: Sequence[int], filler: int) -> tuple[int, int]:
    return (values[0], values[1]) if len(values) == 2 else (filler, values[0])


def _padding(pads: Sequence[int]) -> tuple[int, int, int, int]:
    return (pads[0], pads[1], pads[2], pads[3]) if len(pads) == 4 else (0, pads[0], 0, pads[1])


def _conv(low: GraphBuilder, op: Op) -> None:
    tensor, rank = image(low)
    x = replace(low.value().type, shape=low.tensors[tensor].shape)
    y = low.output_type(_image_shape(low))
    weight, bias, output = low.layer(x, y, 0)
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    geometry: dict[str, Any] = {
        "stride": _plane(op.attributes["strides"], 1),
        "padding": _padding(op.attributes["pads"]),
        "dilation": _plane(op.attributes["dilations"], 1),
    }
    groups, channels = op.attributes["group"], x.shape[2]
    operator: Operator
    if groups == channels > 1 and weight.shape[1] == 1:
        operator = DepthwiseConv2D(
            np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0)), bias, x.zero_point, output, **geometry
        )
    else:
        operator = Conv2D(
            np.ascontiguousarray(weight.transpose(0, 2, 3, 1)), bias, x.zero_point, output, **geometry, groups=groups
        )
    written = low.compute(operator, [tensor], y, 0)
    first = channels_first(low, written, rank)
    low.values[op.output] = Value(first, replace(y, shape=low.tensors[first].shape), 0)


def _pool(low: GraphBuilder, op: Op) -> None:
    tensor, rank = image(low)
    kind = MaxPool2D if op.kind == "MaxPool" else AveragePool2D
    operator = kind(
        _plane(op.attributes["kernel"], 1), _plane(op.attributes["strides"], 1), _padding(op.attributes["pads"])
    )
    source = low.value().type
    pooled = low.emit(
        "", low.clamped(operator, source), [tensor], replace(low.tensors[tensor], shape=_image_shape(low)), op.output
    )
    first = channels_first(low, pooled, rank)
    low.settle(first, replace(source, shape=low.tensors[first].shape), 0)


def _linear(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    sample_axis(len(low.shape()) - 1, value.batch, "a linear layer")
    y = low.output_type(drop_axis(low.output_shape, value.batch))
    weight, bias, output = low.layer(value.type, y, 0 if op.attributes["transposed"] else 1)
    low.compute(
        Linear(np.ascontiguousarray(weight), bias, value.type.zero_point, output), [value.tensor], y, value.batch
    )


def _add(low: GraphBuilder, op: Op) -> None:
    tensors, (a, b), batch = aligned(low, op)
    y = low.output_type(drop_axis(low.output_shape, batch))
    low.compute(Add.from_types(a, b, low.unscaled(y), subtract=op.kind == "Sub"), tensors, y, batch)


def _mul(low: GraphBuilder, op: Op) -> None:
    tensors, (a, b), batch = aligned(low, op)
    y = low.output_type(drop_axis(low.output_shape, batch))
    output = requantization((a.scale * b.scale) / low.unscaled(y).scale, y)
    low.compute(Mul(a.zero_point, b.zero_point, output), tensors, y, batch)


def _matmul(low: GraphBuilder, op: Op) -> None:
    rank = len(low.output_shape)
    if min(len(low.shape(0)), len(low.shape(1))) < 2:
        raise UnsupportedError("MatMul with a vector is not supported: reshape it to a matrix")
    tensors, (a, b), batch = aligned(low, op)
    if batch is not None:
        sample_axis(batch, batch if batch >= rank - 2 else None, "a matrix product")
    leading = drop_axis(low.output_shape, batch)[:-2]
    for position, kind in enumerate((a, b)):
        if kind.shape[:-2] != leading:
            tensors[position] = _repeat(low, op.inputs[position], tensors[position], (*leading, *kind.shape[-2:]))
    y = low.output_type(drop_axis(low.output_shape, batch))
    output = requantization((a.scale * b.scale) / low.unscaled(y).scale, y)
    low.compute(MatMul(a.zero_point, b.zero_point, output), tensors, y, batch)


def _repeat(low: GraphBuilder, name: str, tensor: str, shape: Shape) -> str:
    """A constant operand of a matrix product, repeated over the leading axes."""
    if name not in low.network.constants:
        raise UnsupportedError(
            f"a matrix product that repeats {name!r} {low.tensors[tensor].shape} over leading axes {shape[:-2]} "
            "is not supported"
        )
    repeated = low.tensor_name(f"{tensor}/repeated")
    low.tensors[repeated] = replace(low.tensors[tensor], shape=shape)
    low.constants[repeated] = np.ascontiguousarray(np.broadcast_to(low.constants[tensor], shape))
    return repeated


def _softmax(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    axis = sample_axis(op.attributes["axis"], value.batch, "Softmax")
    rank = len(value.type.shape)
    order = [*(a for a in range(rank) if a != axis), axis]
    tensor = value.tensor
    if axis != rank - 1:
        tensor = low.transposed("rows", tensor, order, f"{tensor}/rows")
    kind = tensor_type(low.tensors[tensor].shape, SOFTMAX)
    direct = low.quantization() == SOFTMAX
    written = low.emit(
        "",
        Softmax.from_scale(value.type.scale),
        [tensor],
        kind,
        op.output if direct else low.tensor_name(f"{op.output}/softmax"),
    )
    if axis != rank - 1:
        written = low.transposed("rows_back", written, [order.index(a) for a in range(rank)], f"{op.output}/columns")
    low.settle(written, replace(kind, shape=value.type.shape), value.batch)


def _layer_norm(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    sample_axis(len(low.shape()) - 1, value.batch, "LayerNormalization")
    width = value.type.shape[-1]
    given = [name for name in op.inputs[1:] if name]
    gamma = low.network.constants[given[0]].real.reshape(-1) if given else np.ones(width)
    beta = low.network.constants[given[1]].real.reshape(-1) if len(given) > 1 else np.zeros(width)
    if gamma.size != width or beta.size != width:
        raise ShapeError(f"its scale and bias need {width} elements, one a column, found {gamma.size} and {beta.size}")
    y = low.output_type(value.type.shape)
    if not 0 <= op.attributes["epsilon"] * (width / value.type.scale) ** 2 < 2.0**62:
        raise QuantizationError(
            f"epsilon {op.attributes['epsilon']:g} does not fit the input's scale {value.type.scale:g}"
        )
    operator = LayerNorm.from_real(gamma, beta, op.attributes["epsilon"], value.type, low.unscaled(y))
    low.compute(operator, [value.tensor], y, value.batch)


def _unary(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    y = low.output_type(value.type.shape)
    function = op.attributes["function"]

    def quiet(x: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(all="ignore"):  # values outside the function's domain are reported by the operator
            return np.asarray(function(x), np.float64)

    tensor = low.emit("", Lookup.from_function(quiet, value.type, y), [value.tensor], y, op.output)
    low.values[op.output] = Value(tensor, y, value.batch)


def _clip(low: GraphBuilder, op: Op) -> None:
    bounds = (op.attributes["low"], op.attributes["high"])
    op.attributes = {"function": lambda x: np.clip(x, *bounds)}
    _unary(low, op)


def _scale(low: GraphBuilder, op: Op) -> None:
    """A constant factor: a new meaning of the same bytes where the quantisations allow, else requantised."""
    value, factor = low.value(), op.attributes["factor"]
    if factor <= 0:
        op.attributes = {"function": lambda x: x * factor}
        return _unary(low, op)
    y = low.output_type(value.type.shape)
    scaled = replace(value.type, scale=float(np.float32(value.type.scale * factor)))
    if scaled.same_quantization(y) and "clamp" not in op.attributes:
        low.values[op.output] = Value(value.tensor, y, value.batch)
        return None
    output = requantization((value.type.scale * factor) / y.scale, y)
    low.compute(Requantize(value.type.zero_point, output), [value.tensor], y, value.batch)
    return None


def _requantize(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    y = low.output_type(value.type.shape)
    output = requantization(value.type.scale / y.scale, y)
    low.compute(Requantize(value.type.zero_point, output), [value.tensor], y, value.batch)


def _mean(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    axes = [sample_axis(axis, value.batch, "a mean") for axis in op.attributes["axes"]]
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise UnsupportedError(f"a mean over axes {op.attributes['axes']}, which are not neighbours, is not supported")
    kept = len(low.output_shape) == len(low.shape())
    batch = value.batch
    if batch is not None and not kept:
        batch -= sum(axis < batch for axis in op.attributes["axes"])
    count = math.prod(value.type.shape[axis] for axis in axes)
    shape = tuple(n for axis, n in enumerate(value.type.shape) if axis not in axes)
    y = low.output_type(shape)
    output = requantization(value.type.scale / (count * low.unscaled(y).scale), y)
    low.compute(Mean(axes[0], axes[-1], value.type.zero_point, output), [value.tensor], y, batch)
    target = drop_axis(low.output_shape, batch)
    low.values[op.output] = Value(low.shaped(low.values[op.output], target), replace(y, shape=target), batch)


LAYERS: dict[str, Rule] = {
    "Add": _add,
    "AveragePool": _pool,
    "Clip": _clip,
    "Conv": _conv,
    "LayerNorm": _layer_norm,
    "Linear": _linear,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mean": _mean,
    "Mul": _mul,
    "Requantize": _requantize,
    "Scale": _scale,
    "Softmax": _softmax,
    "Sub": _add,
    "Unary": _unary,
}
"""By the network's kind."""
