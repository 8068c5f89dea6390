"""Rules for TensorFlow Lite operators that compute."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.tflite import tables
from codegen.tflite.building import GraphBuilder, Rule, activation_range, left_out, narrow
from codegen.tflite.reader import FileOperator
from codegen.tflite.schema import SAME, VALID, Activation
from refsim import TensorType
from refsim.errors import QuantizationError, ShapeError, UnsupportedError
from refsim.numerics import quantize_multiplier
from refsim.ops import Requantization
from refsim.ops.add import Add
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.requantize import Requantize
from refsim.ops.softmax import Softmax
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape


def _padding(code: int, image: Shape, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """(top, left, bottom, right) of SAME or VALID padding."""
    if code == VALID:
        return 0, 0, 0, 0
    if code != SAME:
        raise UnsupportedError(f"padding {code} is not supported; SAME and VALID are")
    if min(*stride, *dilation) < 1:
        raise ShapeError(f"strides {tuple(stride)} and dilations {tuple(dilation)} must be at least 1")
    totals = [
        max((-(-size // step) - 1) * step + (taps - 1) * spread + 1 - size, 0)
        for size, taps, step, spread in zip(image, kernel, stride, dilation, strict=False)
    ]
    top, left = (total // 2 for total in totals)
    return top, left, totals[0] - top, totals[1] - left


def _image(low: GraphBuilder) -> tuple[str, TensorType]:
    tensor = low.read()
    kind = low.tensors[tensor]
    if len(low.given(0).shape) != 4 or len(kind.shape) != 3:
        raise UnsupportedError(f"an image of shape (1, H, W, C) is needed, found {low.given(0).shape}")
    return tensor, kind


def _conv(low: GraphBuilder, op: FileOperator) -> None:
    tensor, x = _image(low)
    y = low.output_type()
    weight, scales = low.weight(4, 0)
    stride, dilation = (op.option(2, "i"), op.option(1, "i")), (op.option(5, "i", 1), op.option(4, "i", 1))
    bias, output = low.layer(weight, x.scale * scales / y.scale, y, op.option(3, "b"))
    if not weight.size or x.shape[2] % weight.shape[3]:
        raise ShapeError(f"a weight of shape {weight.shape} does not fit {x.shape[2]} input channels")
    padding = _padding(op.option(0, "b"), x.shape, weight.shape[1:3], stride, dilation)
    groups = x.shape[2] // weight.shape[3]
    low.write(Conv2D(weight, bias, x.zero_point, output, stride, padding, dilation, groups), tensor)


def _depthwise(low: GraphBuilder, op: FileOperator) -> None:
    tensor, x = _image(low)
    y = low.output_type()
    weight, scales = low.weight(4, 3)
    if weight.shape[0] != 1:
        raise ShapeError(f"a weight of shape (1, KH, KW, C) is needed, found {weight.shape}")
    stride, dilation = (op.option(2, "i"), op.option(1, "i")), (op.option(6, "i", 1), op.option(5, "i", 1))
    bias, output = low.layer(weight[0].transpose(2, 0, 1), x.scale * scales / y.scale, y, op.option(4, "b"))
    padding = _padding(op.option(0, "b"), x.shape, weight.shape[1:3], stride, dilation)
    low.write(DepthwiseConv2D(weight[0], bias, x.zero_point, output, stride, padding, dilation), tensor)


def _fully_connected(low: GraphBuilder, op: FileOperator) -> None:
    tensor = low.read()
    x, y = low.tensors[tensor], low.output_type()
    if op.option(1, "b"):
        raise UnsupportedError("shuffled weights are not supported: convert without a delegate's layout")
    weight, scales = low.weight(2, 0)
    if scales.size == 1:  # a single scale is multiplied in float32
        sx, sw = narrow(x.scale, float(scales[0]))
        real = np.float64(sx * sw) / y.scale
    else:
        real = x.scale * scales / y.scale
    bias, output = low.layer(weight, real, y, op.option(0, "b"))
    depth = weight.shape[1]
    if x.shape[-1:] != (depth,):
        if not depth or x.size % depth:
            raise ShapeError(f"a weight of shape {weight.shape} does not fit an input of {x.shape}")
        tensor = low.shaped(tensor, (depth,) if x.size == depth else (x.size // depth, depth))
    low.write(Linear(weight, bias, x.zero_point, output), tensor)


def _batch_matmul(low: GraphBuilder, op: FileOperator) -> None:
    whole = [low.given(position).shape for position in (0, 1)]
    if min(map(len, whole)) < 2:
        raise UnsupportedError(f"matrices are needed, found shapes {whole[0]} and {whole[1]}")
    batches = [tuple(n for n in shape[:-2] if n != 1) for shape in whole]
    names = [low.read(0), low.read(1)]
    a, b = (low.tensors[name] for name in names)
    rows = batches[0]
    if batches[1] == () and rows and not op.option(0, "B"):
        a_shape: Shape = (math.prod(rows) * whole[0][-2], whole[0][-1])  # one matrix for all: all rows together
        rows = ()
    elif batches[0] == batches[1]:
        a_shape = (*rows, *whole[0][-2:])
    else:
        raise UnsupportedError(f"a matrix product that repeats one input, {whole[0]} by {whole[1]}, is not supported")
    left, right = low.shaped(names[0], a_shape), low.shaped(names[1], (*rows, *whole[1][-2:]))
    if op.option(0, "B"):
        order = (*range(len(rows)), len(rows) + 1, len(rows))
        left = low.emit(Transpose(order), [left], a, f"{low.output.name}/transposed")
    y = low.output_type()
    sa, sb = narrow(a.scale, b.scale)
    output = low.requantization(np.float64(sa * sb) / y.scale, y)
    low.write(MatMul(a.zero_point, b.zero_point, output, bool(op.option(1, "B"))), left, right)


def _add(low: GraphBuilder, op: FileOperator) -> None:
    left, right = low.read(0), low.read(1)
    a, b, y = low.tensors[left], low.tensors[right], low.output_type()
    operator = Add.from_types(
        a,
        b,
        y,
        *activation_range(op.option(0, "b"), y),
        low.profile.of(op.kind),
        subtract=op.kind == "SUB",
    )
    low.write(operator, left, right)


def _mul(low: GraphBuilder, op: FileOperator) -> None:
    left, right = low.read(0), low.read(1)
    a, b, y = low.tensors[left], low.tensors[right], low.output_type()
    sa, sb, sy = narrow(a.scale, b.scale, y.scale)
    output = low.requantization(float(sa * sb / sy), y, op.option(0, "b"))
    low.write(Mul(a.zero_point, b.zero_point, output), left, right)


def _pool(low: GraphBuilder, op: FileOperator) -> None:
    tensor, x = _image(low)
    stride, kernel = (op.option(2, "i"), op.option(1, "i")), (op.option(4, "i"), op.option(3, "i"))
    padding = _padding(op.option(0, "b"), x.shape, kernel, stride, (1, 1))
    kind = MaxPool2D if op.kind == "MAX_POOL_2D" else AveragePool2D
    low.write(kind(kernel, stride, padding, *activation_range(op.option(5, "b"), low.output_type())), tensor)


def _largest(low: GraphBuilder, op: FileOperator) -> None:
    """REDUCE_MAX: a pool over the reduced axes, which are brought together before all others."""
    tensor, whole = low.read(), low.given(0).shape
    x, skip = low.tensors[tensor], left_out(whole)
    axes = sorted({axis - skip for axis in low.axes(low.integers(1), len(whole)) if axis >= skip})
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    if (*axes, *kept) != tuple(range(len(x.shape))):
        tensor = low.emit(Transpose((*axes, *kept)), [tensor], x, f"{low.output.name}/transposed")
    count = math.prod(x.shape[axis] for axis in axes)
    low.write(MaxPool2D((count, 1), (1, 1)), low.shaped(tensor, (count, 1, x.size // count)))


def _mean(low: GraphBuilder, op: FileOperator) -> None:
    tensor = low.read()
    x, y, whole = low.tensors[tensor], low.output_type(), low.given(0).shape
    skip = left_out(whole)
    axes = sorted({axis - skip for axis in low.axes(low.integers(1), len(whole)) if axis >= skip})
    if axes and axes != list(range(axes[0], axes[-1] + 1)):  # brought together behind all others
        kept = [axis for axis in range(len(x.shape)) if axis not in axes]
        tensor = low.emit(Transpose((*kept, *axes)), [tensor], x, f"{low.output.name}/transposed")
        axes = list(range(len(kept), len(x.shape)))
    if not axes:
        tensor, axes = low.shaped(tensor, (1, *x.shape)), [0]
    shape = low.tensors[tensor].shape
    count = math.prod(shape[axes[0] : axes[-1] + 1])
    multiplier, shift = quantize_multiplier(x.scale / y.scale)
    # The engine divides the integer multiplier by the count, truncating, instead of the real one.
    room = min(count.bit_length() - 1, 31 + shift)
    multiplier, shift = (multiplier << room) // count, shift - room
    output = Requantization(
        np.array([multiplier], np.int32),
        np.array([shift], np.int32),
        y.zero_point,
        rounding=low.profile.of(op.kind),
    )
    low.write(Mean(axes[0], axes[-1], x.zero_point, output), tensor)


def _softmax(low: GraphBuilder, op: FileOperator) -> None:
    tensor = low.read()
    beta = op.option(0, "f")
    if not (math.isfinite(beta) and beta > 0):
        raise QuantizationError(f"beta must be positive and finite, found {beta}")
    low.write(Softmax.from_scale(beta * low.tensors[tensor].scale), tensor)


def _relu(low: GraphBuilder, op: FileOperator) -> None:
    tensor = low.read()
    x, y = low.tensors[tensor], low.output_type()
    activation = {"RELU": Activation.RELU, "RELU6": Activation.RELU6}.get(op.kind, Activation.RELU_N1_TO_1)
    sx, sy = narrow(x.scale, y.scale)
    low.write(Requantize(x.zero_point, low.requantization(float(sx / sy), y, activation)), tensor)


def _table(low: GraphBuilder, op: FileOperator) -> None:
    tensor = low.read()
    x, y = low.tensors[tensor], low.output_type()
    if op.kind == "HARD_SWISH":
        table = tables.hard_swish_table(x, y)
    elif op.kind == "LEAKY_RELU":
        table = tables.leaky_relu_table(op.option(0, "f"), x, y, low.profile.of(op.kind))
    else:
        gelu = tables.gelu_tanh if op.option(0, "B") else tables.gelu
        function = {"LOGISTIC": tables.logistic, "TANH": math.tanh}.get(op.kind, gelu)
        table = tables.float_table(function, x, y)
    low.write(Lookup(table), tensor)


LAYERS: dict[str, Rule] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool,
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "GELU": _table,
    "HARD_SWISH": _table,
    "LEAKY_RELU": _table,
    "LOGISTIC": _table,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "MUL": _mul,
    "REDUCE_MAX": _largest,
    "RELU": _relu,
    "RELU6": _relu,
    "RELU_N1_TO_1": _relu,
    "SOFTMAX": _softmax,
    "SUB": _add,
    "TANH": _table,
}
"""By the schema's name."""
