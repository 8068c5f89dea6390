"""What lies at the end of a range is taken, and what lies just beyond it is refused."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import (
    Multiplier,
    Rounding,
    check_accumulator,
    check_multiplier,
    quantize_multiplier,
    requantized_bound,
)
from refsim.ops import Requantization
from refsim.ops.add import Add
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import weighted_bounds
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
from refsim.ops.softmax import Softmax, smallest_difference
from refsim.ops.transpose import Transpose
from refsim.tensor import TensorType
from refsim.windows import Window

ONE = Requantization.from_real(1e-6, 0)

# Written out: what is imported would move along with a fault.
INT32_MAX = 2**31 - 1
LARGEST_EPSILON = 2**62 - 1
LONGEST_ROW = 2**15


def scaled(multiplier: int = 2**30, shift: int = -9, rounding: Rounding = Rounding.SINGLE) -> Requantization:
    return Requantization(np.array([multiplier], np.int32), np.array([shift], np.int32), 0, rounding=rounding)


def many(count: int) -> Requantization:
    return Requantization.from_real([1e-6] * count, 0)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int8)


def bias(count: int) -> np.ndarray:
    return np.zeros(count, np.int32)


def softmax(multiplier: int = 2**30, shift: int = 20, off: int = 0) -> Softmax:
    return Softmax(multiplier, shift, smallest_difference(shift) + off)


def layernorm(size: int = 4, epsilon: int = 0, scale_bits: int = 7, gamma: int = 1) -> LayerNorm:
    return LayerNorm(np.full(size, gamma, np.int16), bias(size), epsilon, ONE, scale_bits)


def conv2d(groups: int) -> Conv2D:
    return Conv2D(ones(4, 1, 1, 2), bias(4), 0, ONE, groups=groups)


# name: (what takes the value, values at the ends, values just beyond them)
ENDS: dict[str, tuple[Callable[..., object], tuple[object, ...], tuple[object, ...]]] = {
    "output zero point": (lambda n: Requantization.from_real(1e-3, n), (-128, 127), (-129, 128)),
    "input zero point": (lambda n: Requantize(n, ONE), (-128, 127), (-129, 128)),
    "mul's zero points": (lambda n: (Mul(n, 0, ONE), Mul(0, n, ONE)), (-128, 127), (-129, 128)),
    "matmul's second zero point": (lambda n: MatMul(0, n, ONE), (-128, 127), (-129, 128)),
    "least activation": (lambda n: Requantization.from_real(1e-3, 0, n, 127), (-128, 127), (-129, 128)),
    "largest activation": (lambda n: Requantization.from_real(1e-3, 0, -128, n), (-128, 127), (-129, 128)),
    "multiplier": (scaled, (2**30, INT32_MAX), (2**30 - 1, 2**29, 1, -1)),
    "multiplier, rounded twice": (lambda m: scaled(m, -9, Rounding.DOUBLE), (2**29,), (2**29 - 1, 2**28)),
    "shift": (lambda s: scaled(shift=s), (-31, 30), (-32, 31)),
    "shift of the multiplier 0": (lambda s: scaled(0, s), (0,), (1, -1)),
    "multipliers of requantize": (lambda n: Requantize(0, many(n)), (1,), (0, 2)),
    "multipliers of mul": (lambda n: Mul(0, 0, many(n)), (1,), (2,)),
    "multipliers of matmul": (lambda n: MatMul(0, 0, many(n)), (1,), (2,)),
    "multipliers of mean": (lambda n: Mean(0, 0, 0, many(n)), (1,), (2,)),
    "multipliers of layernorm": (lambda n: LayerNorm(np.ones(2, np.int16), bias(2), 0, many(n)), (1,), (2,)),
    "multipliers of linear": (lambda n: Linear(ones(3, 2), bias(3), 0, many(n)), (1, 3), (2, 4)),
    "biases of linear": (lambda n: Linear(ones(3, 2), bias(n), 0, ONE), (3,), (2, 4)),
    "rows of linear": (lambda n: Linear(ones(3, 2), bias(3), 0, ONE).output_shape((5, n)), (2,), (1, 3)),
    "weights of linear": (lambda n: Linear(ones(3, n), bias(3), 0, ONE), (1,), (0,)),
    "groups": (conv2d, (1, 2, 4), (0, -1, 3)),
    "channels of conv2d": (lambda n: conv2d(2).output_shape((3, 3, n)), (4,), (2, 3, 5)),
    "channels of depthwise_conv2d": (
        lambda n: DepthwiseConv2D(ones(1, 1, 4), bias(4), 0, ONE).output_shape((2, 2, n)),
        (1, 2, 4),
        (3, 8),
    ),
    "axes of an image": (lambda shape: conv2d(2).output_shape(shape), ((3, 3, 4),), ((3, 4), (1, 3, 3, 4))),
    "kernel": (lambda n: (Window((n, 1)), Window((1, n))), (1,), (0,)),
    "stride": (lambda n: (Window((1, 1), (n, 1)), Window((1, 1), (1, n))), (1,), (0,)),
    "dilation": (lambda n: Window((1, 1), dilation=(1, n)), (1,), (0,)),
    "padding": (lambda n: [Window((1, 1), padding=(0,) * i + (n,) + (0,) * (3 - i)) for i in range(4)], (0,), (-1,)),
    "image under a window": (
        lambda n: Window((3, 1), padding=(1, 0, 1, 0), dilation=(2, 1)).output_size(n, 1),
        (3,),
        (2,),
    ),
    "padding above a pool": (lambda n: MaxPool2D((2, 2), padding=(n, 0, 0, 0)).output_shape((4, 4, 1)), (1,), (2,)),
    "padding beneath a pool": (lambda n: MaxPool2D((2, 2), padding=(0, 0, n, 0)).output_shape((4, 4, 1)), (1,), (2,)),
    "padding beneath a pool that strides": (
        lambda n: MaxPool2D((2, 2), (3, 1), (0, 0, n, 0)).output_shape((3, 4, 1)),
        (1,),
        (2,),
    ),
    "activation of a pool": (lambda n: MaxPool2D((1, 1), act_min=n), (-128, 127), (-129, 128)),
    "window of a mean": (lambda n: AveragePool2D((2**12, n)), (2**12 - 1,), (2**12,)),
    "start of slice": (lambda n: Slice((n,), (1,), (1,)), (0,), (-1,)),
    "size of slice": (lambda n: Slice((0,), (n,), (1,)).output_shape((6,)), (1, 6), (0, 7)),
    "step of slice": (lambda n: Slice((1,), (3,), (n,)).output_shape((6,)), (1, 2), (0, 3)),
    "axes of slice": (lambda n: Slice((0,) * n, (1,) * n, (1,) * n).output_shape((3, 3)), (2,), (1, 3)),
    "starts of slice": (lambda n: Slice((0,) * n, (1,), (1,)), (1,), (0, 2)),
    "padding before": (lambda n: Pad((n,), (0,), 0), (0,), (-1,)),
    "padding after": (lambda n: Pad((0,), (n,), 0), (0,), (-1,)),
    "lengths of pad": (lambda n: Pad((0,) * n, (0,), 0), (1,), (0, 2)),
    "value of pad": (lambda n: Pad((0,), (0,), n), (-128, 127), (-129, 128)),
    "axes of pad": (lambda n: Pad((0,), (0,), 0).output_shape((2,) * n), (1,), (2,)),
    "axis of concat": (lambda n: Concat(n, (None, None)).output_shape((2, 2), (2, 2)), (0, 1), (-1, 2)),
    "inputs of concat": (lambda n: Concat(0, (None,) * n).output_shape(*((2, 2),) * n), (1, 2), (0,)),
    "shapes of concat": (lambda n: Concat(0, (None, None)).output_shape((2, 2), (1, n)), (2,), (1, 3)),
    "axis of reshape": (lambda n: Reshape((n,)), (1,), (0, -1)),
    "axes of transpose": (lambda n: Transpose((1, 0)).output_shape((2,) * n), (2,), (1, 3)),
    "first axis of mean": (lambda n: Mean(n, 1, 0, ONE), (0, 1), (-1, 2)),
    "last axis of mean": (lambda n: Mean(0, n, 0, ONE).output_shape((2, 2)), (0, 1), (2,)),
    "multiplier of softmax": (softmax, (2**30, INT32_MAX), (2**30 - 1, 2**31)),
    "shift of softmax": (lambda s: softmax(shift=s), (1, 31), (0, 32)),
    "least difference of softmax": (lambda n: softmax(off=n), (0,), (-1, 1)),
    "scale of softmax": (Softmax.from_scale, (math.nextafter(2.0**-26, 1),), (2.0**-26, 0.0)),
    "row of softmax": (lambda n: softmax().output_shape((n,)), (4095,), (4096,)),
    "axes of softmax": (lambda shape: softmax().output_shape(shape), ((1,),), ((),)),
    "epsilon": (lambda n: layernorm(epsilon=n), (0, LARGEST_EPSILON), (-1, LARGEST_EPSILON + 1)),
    "scale bits": (lambda n: layernorm(scale_bits=n), (0, 14), (-1, 15)),
    "gamma": (lambda n: layernorm(gamma=n), (-32767, 32767), (-32768,)),
    "row of layernorm": (layernorm, (1, LONGEST_ROW), (0, LONGEST_ROW + 1)),
    "rows of layernorm": (lambda shape: layernorm().output_shape(shape), ((4,), (2, 4)), ((), (3,), (5,))),
    "beta": (
        lambda n: LayerNorm(np.array([32767], np.int16), np.array([n], np.int32), 0, ONE),
        (INT32_MAX - 32768 * 32767, 32768 * 32767 - INT32_MAX),
        (INT32_MAX - 32768 * 32767 + 1, 32768 * 32767 - INT32_MAX - 1),
    ),
    "quantisation of softmax's output": (
        lambda pair: softmax().check_quantization((), TensorType((4,), *pair)),
        ((1 / 256, -128),),
        ((1 / 128, -128), (1 / 512, -128), (1 / 256, -127), (1 / 256, 127)),
    ),
    "table": (lambda n: Lookup(ones(n)), (256,), (255, 257)),
    "axes of matmul": (lambda n: MatMul(0, 0, ONE).output_shape((2,) * n, (2,) * n), (2, 3), (1,)),
    "ranks of matmul": (lambda n: MatMul(0, 0, ONE).output_shape((2, 2), (2,) * n), (2,), (1, 3)),
    "depth of matmul": (lambda n: MatMul(0, 0, ONE).output_shape((5, 3), (n, 4)), (3,), (2, 4)),
    "matrices of matmul": (lambda n: MatMul(0, 0, ONE).output_shape((3, 2, 2), (n, 2, 2)), (3,), (1, 2)),
    "accumulator": (lambda n: check_accumulator(n, "it"), (INT32_MAX,), (INT32_MAX + 1,)),
    "requantised": (lambda n: requantized_bound(n, 2**30, 1, Rounding.SINGLE, "it"), (2**30,), (2**30 + 1,)),
    "requantised twice": (lambda n: requantized_bound(n, 2**30, 1, Rounding.DOUBLE, "it"), (2**30 - 1,), (2**30,)),
    "requantised twice, to the right": (
        lambda n: requantized_bound(n, 2**30, 0, Rounding.DOUBLE, "it"),
        (INT32_MAX - 1,),
        (INT32_MAX,),
    ),
    "integer multiplier": (lambda n: check_multiplier(Multiplier(n, 0), "it"), (2**30, INT32_MAX), (2**30 - 1, 2**31)),
    "real multiplier": (quantize_multiplier, (0.0, 2.0**30 - 1), (-1e-9, 2.0**30, math.inf, math.nan)),
}


@pytest.mark.parametrize("name", ENDS)
def test_ranges_end_where_they_should(name: str) -> None:
    make, legal, illegal = ENDS[name]
    for value in legal:
        make(value)
    for value in illegal:
        with pytest.raises((QuantizationError, ShapeError)):
            make(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda output: Requantize(0, output),
        lambda output: Mul(0, 0, output),
        lambda output: MatMul(0, 0, output),
        lambda output: Mean(0, 0, 0, output),
        lambda output: Add(0, 0, Multiplier(2**30, 0), Multiplier(2**30, 0), output),
        lambda output: LayerNorm(np.ones(2, np.int16), bias(2), 0, output),
    ],
)
def test_what_has_one_scale_takes_one_multiplier(make: Callable[[Requantization], object]) -> None:
    make(scaled(shift=-20))
    with pytest.raises(ShapeError, match="has 1 output channels but 2 multipliers"):
        make(many(2))


def test_multipliers_too_small_for_their_shift_are_none() -> None:
    assert quantize_multiplier(0.0) == (0, 0)
    assert quantize_multiplier(2.0**-32) == (2**30, -31)
    assert quantize_multiplier(math.nextafter(2.0**-33, 1)) == (0, 0)
    assert quantize_multiplier(math.nextafter(1.0, 0)) == (2**30, 1)


def test_quantisation_that_an_operator_was_not_built_for_is_refused() -> None:
    here, there, other = TensorType((4,), 0.5, 3), TensorType((4,), 0.25, 3), TensorType((4,), 0.5, 4)
    same = Reshape((4,))
    same.check([here], here)
    for tensor in (there, other):
        with pytest.raises(QuantizationError, match="keeps its input's quantisation"):
            same.check([tensor], here)
    scaled_by_one = Requantize(3, Requantization.from_real(1e-3, 4))
    scaled_by_one.check([here], other)
    for x, y in ((other, other), (here, here)):
        with pytest.raises(QuantizationError, match="was built for"):
            scaled_by_one.check([x], y)
    with pytest.raises(ShapeError, match="takes 1 input"):
        same.check([here, here], here)


def test_a_window_moves_by_one_and_pads_nothing_unless_told() -> None:
    assert Window((2, 3)) == Window((2, 3), (1, 1), (0, 0, 0, 0), (1, 1)) == MaxPool2D((2, 3)).window
    weight = ones(4, 2, 3, 1)
    assert (
        Conv2D(weight, bias(4), 0, ONE).window == DepthwiseConv2D(weight[0], bias(1), 0, ONE).window == Window((2, 3))
    )
    assert (ONE.act_min, ONE.act_max, MaxPool2D((1, 1)).act_min, MaxPool2D((1, 1)).act_max) == (-128, 127, -128, 127)


def test_bounds_are_bias_and_the_largest_sum() -> None:
    weight = np.array([[1, -2], [3, 4]], np.int8)
    assert weighted_bounds(weight, np.array([5, -6], np.int32), 10) == [5 + 138 * 3, 6 + 138 * 7]
