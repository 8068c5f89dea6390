"""The operators without their roundings: what the integers approximate, in float64.

An element is a byte that need not be whole: real = scale * (x - zero_point), as for int8. So the integer operators'
own zero points, weights, multipliers and activation ranges serve unchanged, and no scale is needed. An activation
range also stands where the int8 range ends: a ReLU6 cannot be told from saturation once both mean 127.
"""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from refsim.ops.add import LEFT_SHIFT, Add
from refsim.ops.attention import Attention
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import Operator, Pooling, Requantization
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.softmax import OUTPUT_SCALE, OUTPUT_ZERO_POINT, Softmax
from refsim.ops.transpose import Transpose
from refsim.windows import Window

RealArray = NDArray[np.float64]

MOVES = (Reshape, Transpose, Slice, Pad)
"""Operators that only move bytes: they add no error of their own."""


@singledispatch
def run_real(op: Operator, *inputs: RealArray) -> RealArray:
    """Compute a batch without rounding.

    Args:
        op: the operator.
        inputs: float64 (N, *shape), bytes that need not be whole.

    Returns:
        float64 (N, *output_shape), the same.
    """
    raise NotImplementedError(f"{op.name} has no real evaluation")


def _real(multiplier: Any, shift: Any) -> Any:
    return np.ldexp(np.asarray(multiplier, np.float64), np.asarray(shift) - 31)


def _finish(acc: RealArray, output: Requantization) -> RealArray:
    """The last step, channels on the last axis."""
    scaled: RealArray = acc * _real(output.multiplier, output.shift) + output.zero_point
    return scaled.clip(output.act_min, output.act_max)


@run_real.register
def _add(op: Add, a: RealArray, b: RealArray) -> RealArray:
    a, b = _same_rank(a, b)
    left = (a - op.a_zero_point) * _real(*op.a_multiplier)
    right = (b - op.b_zero_point) * _real(*op.b_multiplier)
    return _finish((left - right if op.subtract else left + right) * 2.0**LEFT_SHIFT, op.output)


@run_real.register
def _mul(op: Mul, a: RealArray, b: RealArray) -> RealArray:
    a, b = _same_rank(a, b)
    return _finish((a - op.a_zero_point) * (b - op.b_zero_point), op.output)


def _same_rank(a: RealArray, b: RealArray) -> tuple[RealArray, RealArray]:
    rank = max(a.ndim, b.ndim)
    first, second = (x.reshape(x.shape[0], *(1,) * (rank - x.ndim), *x.shape[1:]) for x in (a, b))
    return first, second


@run_real.register
def _attention(op: Attention, q: RealArray, k: RealArray, v: RealArray) -> RealArray:
    return _matmul(op.context, _softmax(op.softmax, _matmul(op.scores, q, k)), v)


@run_real.register
def _concat(op: Concat, *inputs: RealArray) -> RealArray:
    parts = [x if r is None else _requantize(r, x) for x, r in zip(inputs, op.rescale, strict=True)]
    return np.concatenate(parts, axis=op.axis + 1)


def _windows(x: RealArray, window: Window, filler: float) -> RealArray:
    """Every window of an image (N, H, W, C), as (N, OH, OW, C, KH, KW)."""
    top, left, bottom, right = window.padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=filler)
    height, width = window.output_size(x.shape[1], x.shape[2])
    spans = tuple(d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True))
    views = sliding_window_view(padded, spans, axis=(1, 2))
    (down, right_step), (dilation_h, dilation_w) = window.stride, window.dilation
    return views[:, ::down, ::right_step, :, ::dilation_h, ::dilation_w][:, :height, :width]


@run_real.register
def _conv2d(op: Conv2D, x: RealArray) -> RealArray:
    views = _windows(x - op.input_zero_point, op.window, 0.0)
    channels, _, _, depth = op.weight.shape
    count = channels // op.groups
    sums = [
        np.tensordot(
            views[:, :, :, group * depth : (group + 1) * depth],
            op.weight[group * count : (group + 1) * count].astype(np.float64),
            axes=((3, 4, 5), (3, 1, 2)),
        )
        for group in range(op.groups)
    ]
    return _finish(np.concatenate(sums, axis=-1) + op.bias, op.output)


@run_real.register
def _depthwise(op: DepthwiseConv2D, x: RealArray) -> RealArray:
    repeats = op.weight.shape[2] // x.shape[3]
    views = _windows(np.repeat(x - op.input_zero_point, repeats, axis=3), op.window, 0.0)
    total = np.zeros(views.shape[:4])
    for row in range(op.weight.shape[0]):
        for column in range(op.weight.shape[1]):
            total += views[..., row, column] * op.weight[row, column]
    return _finish(total + op.bias, op.output)


@run_real.register
def _linear(op: Linear, x: RealArray) -> RealArray:
    return _finish((x - op.input_zero_point) @ op.weight.T.astype(np.float64) + op.bias, op.output)


@run_real.register
def _matmul(op: MatMul, a: RealArray, b: RealArray) -> RealArray:
    right = np.swapaxes(b, -1, -2) if op.transpose_b else b
    return _finish((a - op.a_zero_point) @ (right - op.b_zero_point), op.output)


@run_real.register
def _layernorm(op: LayerNorm, x: RealArray) -> RealArray:
    count = x.shape[-1]
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True) + op.epsilon / (count * count)
    normal = np.divide(centred, np.sqrt(variance), out=np.zeros_like(centred), where=variance > 0)
    return _finish(normal * 2.0**op.scale_bits * op.gamma + op.beta, op.output)


@run_real.register
def _lookup(op: Lookup, x: RealArray) -> RealArray:
    """Between the table's entries a straight line: the function that it tabulates is not known here."""
    return np.interp(x, np.arange(-128, 128), op.table).reshape(x.shape)


@run_real.register
def _mean(op: Mean, x: RealArray) -> RealArray:
    axes = tuple(range(op.first_axis + 1, op.last_axis + 2))
    return _finish((x - op.input_zero_point).sum(axis=axes), op.output)


@run_real.register
def _requantize(op: Requantize, x: RealArray) -> RealArray:
    return _finish(x - op.input_zero_point, op.output)


@run_real.register
def _softmax(op: Softmax, x: RealArray) -> RealArray:
    step = float(_real(op.multiplier, op.shift)) / 2.0**26
    e = np.exp((x - x.max(axis=-1, keepdims=True)) * step)
    shares: RealArray = e / e.sum(axis=-1, keepdims=True)
    return shares / OUTPUT_SCALE + OUTPUT_ZERO_POINT


@run_real.register(MaxPool2D)
@run_real.register(AveragePool2D)
def _pool(op: Pooling, x: RealArray) -> RealArray:
    if isinstance(op, MaxPool2D):
        found: RealArray = _windows(x, op.window, -math.inf).max(axis=(-2, -1))
    else:
        inside = _windows(np.ones((1, *x.shape[1:3], 1)), op.window, 0.0).sum(axis=(-2, -1))
        found = _windows(x, op.window, 0.0).sum(axis=(-2, -1)) / inside
    return found.clip(op.act_min, op.act_max)


def _move(op: Operator, x: Any) -> Any:
    return op.run(x)  # it moves elements whatever their type


_register: Callable[..., Any] = run_real.register
for _kind in MOVES:
    _register(_kind, _move)
