"""Every operator at the bounds of its checks: just inside kernels with UBSan are right, one step beyond is refused.

docs/proofs.md ("No operator overflows") says why these are the bounds.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from conformance.opinion import Opinion
from conformance.places import Library, Place, place_specs
from conformance.strategies import Case
from conformance.suite import compare
from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import INT32_MAX, Int8Array, Int32Array, Multiplier, Rounding, requantized_bound
from refsim.ops import OPERATORS, Operator, Requantization
from refsim.ops.add import Add
from refsim.ops.attention import Attention
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import MOST_WEIGHTS
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LARGEST_EPSILON, LONGEST_ROW, LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.matmul import MatMul
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.requantize import Requantize
from refsim.ops.slice import Slice
from refsim.ops.softmax import Softmax, smallest_difference
from refsim.tensor import MOST_ELEMENTS, TensorType

ROUNDINGS = list(Rounding)
FARTHEST = 255
"""Largest |x - zero point|, of zero points -128 and 127."""
SUM_MAX = INT32_MAX // FARTHEST**2
"""Products of two such distances that fit int32."""
BYTES_ALONE = {"lookup", "max_pool2d", "pad", "reshape", "slice", "transpose"}
"""Operators that compute nothing that could overflow; indices are tested below."""
TESTED = {
    *("add", "attention", "average_pool2d", "concat", "conv2d", "depthwise_conv2d", "layernorm", "linear"),
    *("matmul", "mean", "mul", "requantize", "softmax"),
}


def test_every_operator_is_here() -> None:
    assert set(OPERATORS) == TESTED | BYTES_ALONE and not TESTED & BYTES_ALONE


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = place_specs()["host-ubsan"].build(Library())
    assert isinstance(place, Place)
    yield place
    place.close()


def agrees(op: Operator, place: Place, *inputs: Int8Array, obvious: bool = True) -> None:
    """All kernels give what the golden model gives, and that what unbounded integers do, where they are quick."""
    case = Case(op, inputs)
    golden = op.run(*inputs)[0]
    for where in (place, Opinion()) if obvious else (place,):
        failure = compare(case, golden, where)
        assert failure is None, failure.message


def filled(*shape: int, x: int) -> Int8Array:
    return np.full((1, *shape), x, np.int8)


def mixed(*shape: int) -> Int8Array:
    """Rows of -128, of 127 and of both in turns."""
    rows = int(np.prod(shape[:-1]))
    x = np.where((np.arange(shape[-1]) + np.arange(rows)[:, None]) % 2 == 0, 127, -128).astype(np.int8)
    x[::3], x[1::3] = -128, 127
    return x.reshape(1, *shape)


def legal(bound: int, multiplier: int, shift: int, rounding: Rounding) -> bool:
    try:
        requantized_bound(bound, multiplier, shift, rounding, "")
    except QuantizationError:
        return False
    return True


def largest(bound: int, rounding: Rounding) -> Multiplier:
    """The largest multiplier for an accumulator's bound."""
    shift = max(s for s in range(-31, 31) if legal(bound, 2**30, s, rounding))
    low, high = 2**30, 2**31
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if legal(bound, middle, shift, rounding) else (low, middle)
    return Multiplier(low, shift)


def next_larger(multiplier: Multiplier) -> Multiplier:
    if multiplier.multiplier < 2**31 - 1:
        return Multiplier(multiplier.multiplier + 1, multiplier.shift)
    return Multiplier(2**30, multiplier.shift + 1)


def output(multiplier: Multiplier, rounding: Rounding, zero_point: int = 127) -> Requantization:
    return Requantization(
        np.array([multiplier.multiplier], np.int32),
        np.array([multiplier.shift], np.int32),
        zero_point,
        rounding=rounding,
    )


def outputs(bound: int, rounding: Rounding) -> list[Requantization]:
    """With the largest multiplier, with one for which the last step is a quick one, and with the smallest."""
    quick, smallest = Multiplier(2**31 - 1, -2), Multiplier(2**30, -31)
    return [
        output(multiplier, rounding, zero_point)
        for multiplier, zero_point in ((largest(bound, rounding), 127), (quick, -128), (smallest, 0))
        if legal(bound, *multiplier, rounding)
    ]


def too_loud(bound: int, rounding: Rounding) -> Requantization:
    return output(next_larger(largest(bound, rounding)), rounding)


# ---- sums with weights ----


def extreme_weights(channels: int, taps: int) -> Int8Array:
    """Of 127, of -128, and of both in turns between blocks of 0."""
    weight = np.where(np.arange(taps) % 2 == 0, 127, -128)
    rows = [np.full(taps, 127), np.full(taps, -128), weight * (np.arange(taps) // 4 % 2)]
    return np.array([rows[channel % 3] for channel in range(channels)], np.int8)


def fullest_bias(weight: Int8Array) -> Int32Array:
    """Of each channel (first axis) what its sum of weights leaves, with either sign."""
    left = INT32_MAX - FARTHEST * np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1)
    signs = np.where(np.arange(len(left)) % 2 == 0, 1, -1)
    bias: Int32Array = (signs * left).astype(np.int32)
    return bias


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("zero_point", [-128, 127])
def test_linear(place: Place, zero_point: int, rounding: Rounding) -> None:
    weight = extreme_weights(5, 36)
    bias = fullest_bias(weight)
    for rows, last in product((1, 5, 9), outputs(INT32_MAX, rounding)):
        agrees(Linear(weight, bias, zero_point, last), place, mixed(rows, 36))
    with pytest.raises(QuantizationError, match="2147483648, beyond int32"):
        Linear(weight, bias + np.sign(bias), zero_point, last)
    with pytest.raises(QuantizationError, match="beyond 1073741824"):
        Linear(weight, bias, zero_point, too_loud(INT32_MAX, rounding))
    with pytest.raises(ShapeError, match="at most 8388607 weights"):
        Linear(np.zeros((1, MOST_WEIGHTS + 1), np.int8), np.zeros(1, np.int32), zero_point, last)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("zero_point", [-128, 127])
def test_conv2d(place: Place, zero_point: int, rounding: Rounding) -> None:
    weight = extreme_weights(4, 36).reshape(4, 3, 3, 4)
    bias = fullest_bias(weight)
    for last, padding in product(outputs(INT32_MAX, rounding), ((0, 0, 0, 0), (1, 2, 0, 1))):
        agrees(Conv2D(weight, bias, zero_point, last, padding=padding), place, mixed(5, 4, 4))
    with pytest.raises(QuantizationError, match="2147483648, beyond int32"):
        Conv2D(weight, bias + np.sign(bias), zero_point, last)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("zero_point", [-128, 127])
def test_depthwise_conv2d(place: Place, zero_point: int, rounding: Rounding) -> None:
    by_channel = extreme_weights(6, 9)
    weight, bias = by_channel.T.reshape(3, 3, 6).copy(), fullest_bias(by_channel)
    for last, stride in product(outputs(INT32_MAX, rounding), (1, 2)):
        op = DepthwiseConv2D(weight, bias, zero_point, last, stride=(stride, stride), padding=(1, 1, 1, 1))
        agrees(op, place, mixed(5, 6, 6))
    with pytest.raises(QuantizationError, match="2147483648, beyond int32"):
        DepthwiseConv2D(weight, bias + np.sign(bias), zero_point, last)


# ---- sums without ----


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("z_a", "z_b"), [(-128, -128), (127, -128), (127, 127)])
def test_matmul(place: Place, z_a: int, z_b: int, rounding: Rounding) -> None:
    last = outputs(SUM_MAX * FARTHEST**2, rounding)
    for index, stage in enumerate(last):
        op = MatMul(z_a, z_b, stage, transpose_b=index != 1)
        b = mixed(3, SUM_MAX)
        agrees(op, place, mixed(5, SUM_MAX), b if index != 1 else b.swapaxes(1, 2).copy(), obvious=False)
    with pytest.raises(QuantizationError, match="beyond int32"):
        MatMul(z_a, z_b, last[-1]).output_shape((5, SUM_MAX + 1), (SUM_MAX + 1, 3))
    with pytest.raises(QuantizationError, match="beyond 1073741824"):
        MatMul(z_a, z_b, too_loud(SUM_MAX * FARTHEST**2, rounding)).output_shape((5, SUM_MAX), (SUM_MAX, 3))


def test_attention(place: Place) -> None:
    softmax = Softmax(2**31 - 1, 31, smallest_difference(31))
    loud, quiet = (
        output(largest(SUM_MAX * FARTHEST**2, Rounding.SINGLE), Rounding.SINGLE),
        output(Multiplier(2**30, -20), Rounding.SINGLE, 0),
    )
    op = Attention(MatMul(-128, 127, loud, transpose_b=True), softmax, MatMul(-128, -128, quiet))
    agrees(op, place, mixed(3, SUM_MAX), mixed(3, SUM_MAX), mixed(3, 2), obvious=False)
    with pytest.raises(QuantizationError, match="beyond int32"):
        op.output_shape((3, SUM_MAX + 1), (3, SUM_MAX + 1), (3, 2))
    for shift in (1, 31):  # all alike, and one above all others
        wide = replace(op, softmax=Softmax(2**31 - 1, shift, smallest_difference(shift)))
        agrees(wide, place, mixed(3, 1), mixed(4095, 1), mixed(4095, 2), obvious=False)
    with pytest.raises(ShapeError, match="up to 4095"):
        op.output_shape((3, 1), (4096, 1), (4096, 2))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_mean(place: Place, rounding: Rounding) -> None:
    count = INT32_MAX // FARTHEST
    for (zero_point, x), last in zip(
        ((-128, 127), (127, -128), (127, 127)), outputs(count * FARTHEST, rounding), strict=False
    ):
        agrees(Mean(0, 0, zero_point, last), place, filled(count, x=x), obvious=False)
    with pytest.raises(QuantizationError, match="beyond int32"):
        Mean(0, 0, -128, last).output_shape((count + 1,))
    for zero_point, stage in product((-128, 127), outputs(600 * FARTHEST, rounding)):
        agrees(Mean(0, 0, zero_point, stage), place, filled(600, 5, x=-1 - zero_point))
    with pytest.raises(QuantizationError, match=r"beyond 1073741824|shifted left"):
        Mean(0, 0, 127, too_loud(600 * FARTHEST, rounding)).output_shape((600, 5))


def test_average_pool2d(place: Place) -> None:
    kernel = (4095, 4097)
    for x in (-128, 127):
        agrees(AveragePool2D(kernel), place, filled(*kernel, 1, x=x), obvious=False)
        agrees(AveragePool2D((15, 17)), place, filled(15, 18, 5, x=x))  # the last with sums of 16 bits
    with pytest.raises(QuantizationError, match="average_pool2d window.*beyond int32"):
        AveragePool2D((4096, 4096))


# ---- element by element ----


def all_pairs() -> tuple[Int8Array, Int8Array]:
    ends = np.array([-128, -127, -1, 0, 1, 126, 127], np.int8)
    return np.repeat(ends, 7)[None], np.tile(ends, 7)[None]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("z_a", "z_b"), [(-128, -128), (127, -128), (127, 127)])
def test_mul(place: Place, z_a: int, z_b: int, rounding: Rounding) -> None:
    for last in outputs(FARTHEST**2, rounding):
        agrees(Mul(z_a, z_b, last), place, *all_pairs())
    with pytest.raises(QuantizationError, match=r"beyond 1073741824|shifted left"):
        Mul(z_a, z_b, too_loud(FARTHEST**2, rounding))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("zero_point", [-128, 127])
def test_requantize_and_concat(place: Place, zero_point: int, rounding: Rounding) -> None:
    x = np.arange(-128, 128, dtype=np.int8)[None]
    for last in outputs(FARTHEST, rounding):
        op = Requantize(zero_point, last)
        agrees(op, place, x)
        agrees(Concat(0, (op, None)), place, x, x)
    with pytest.raises(QuantizationError, match=r"beyond 1073741824|shifted left"):
        Requantize(zero_point, too_loud(FARTHEST, rounding))


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("z_a", "z_b"), [(-128, -128), (127, -128), (127, 127)])
def test_add(place: Place, z_a: int, z_b: int, rounding: Rounding, subtract: bool) -> None:
    raised = FARTHEST << 20
    a = b = largest(raised, rounding)

    def bound(b: Multiplier) -> int:
        return sum(requantized_bound(raised, *m, rounding, "") for m in (a, b))

    while bound(b) > INT32_MAX:
        b = Multiplier(b.multiplier - 1, b.shift)
    for last in outputs(bound(b), rounding):
        agrees(Add(z_a, z_b, a, b, last, subtract), place, *all_pairs())
    with pytest.raises(QuantizationError, match=r"beyond (int32|1073741824)|shifted left"):
        Add(z_a, z_b, a, next_larger(b), last, subtract)
    with pytest.raises(QuantizationError, match=r"beyond 1073741824|shifted left"):
        Add(z_a, z_b, a, b, too_loud(bound(b), rounding), subtract)
    half = Multiplier(2**30, 0)  # with it the kernels for the DSP extension serve
    for fine in (half, Multiplier(2**31 - 1, 2), Multiplier(2**31 - 1, -1), Multiplier(2**30, -21)):
        if legal(raised, *fine, rounding):
            agrees(
                Add(z_a, z_b, half, fine, output(Multiplier(2**31 - 1, -2), rounding), subtract), place, *all_pairs()
            )


# ---- rows ----


def test_softmax(place: Place) -> None:
    x = np.full((1, 3, 4095), -128, np.int8)
    x[0, 1, 7], x[0, 2] = 127, 127
    for multiplier, shift in product((2**30, 2**31 - 1), (1, 2, 18, 23, 24, 30, 31)):
        agrees(Softmax(multiplier, shift, smallest_difference(shift)), place, x, obvious=False)
        agrees(Softmax(multiplier, shift, smallest_difference(shift)), place, np.arange(-128, 128, dtype=np.int8)[None])
    with pytest.raises(ShapeError, match="up to 4095"):
        Softmax(2**30, 31, 0).output_shape((1, 4096))
    for multiplier, shift in ((2**30 - 1, 18), (2**31, 18), (2**30, 0), (2**30, 32)):
        with pytest.raises(QuantizationError, match="softmax needs"):
            Softmax(multiplier, shift, smallest_difference(max(shift, 0)))
    with pytest.raises(QuantizationError, match="diff_min"):
        Softmax(2**30, 18, smallest_difference(18) - 1)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("size", [1, 2, 5, LONGEST_ROW])
def test_layernorm(place: Place, size: int, rounding: Rounding) -> None:
    gamma = np.where(np.arange(size) % 2 == 0, 32767, -32767).astype(np.int16)
    beta = np.where(np.arange(size) % 3 == 0, 1, -1).astype(np.int32) * (INT32_MAX - 32768 * 32767)
    x = np.full((1, 4, size), -128, np.int8)
    x[0, 1, size // 2], x[0, 2, ::2], x[0, 3, : size - 1] = 127, 127, 127
    stages = outputs(INT32_MAX, rounding)
    settings = list(product((0, 1, LARGEST_EPSILON), (0, 14)))
    for index, (epsilon, bits) in enumerate(settings):
        agrees(LayerNorm(gamma, beta, epsilon, stages[index % len(stages)], bits), place, x, obvious=size < 10)
    last = stages[-1]
    with pytest.raises(QuantizationError, match="2147483648, beyond int32"):
        LayerNorm(gamma, beta + np.sign(beta), 0, last)
    for wrong, match in ((LARGEST_EPSILON + 1, 7), "epsilon"), ((0, 15), "scale bits"):
        with pytest.raises(QuantizationError, match=match):
            LayerNorm(gamma, beta, wrong[0], last, wrong[1])
    with pytest.raises(QuantizationError, match="-32768"):
        LayerNorm(np.full(size, -32768, np.int16), beta * 0, 0, last)
    with pytest.raises(ShapeError, match="rows of up to"):
        LayerNorm(np.ones(LONGEST_ROW + 1, np.int16), np.zeros(LONGEST_ROW + 1, np.int32), 0, last)


# ---- indices ----


def test_indices_fit(place: Place) -> None:
    last = output(Multiplier(2**30, 0), Rounding.SINGLE)
    weight, bias = np.ones((1, 1, 1, 1), np.int8), np.zeros(1, np.int32)
    for stride, dilation in (((1, 1), (2**14, 2**14)), ((1, 1), (1, 2**26)), ((2**8, 2**8), (1, 1))):
        agrees(Conv2D(weight, bias, 0, last, stride, (2, 1, 1, 0), dilation), place, mixed(1, 2, 1))
    depthwise = DepthwiseConv2D(weight[0], bias, 0, last, stride=(2**26, 1), padding=(2, 1, 1, 0))
    agrees(depthwise, place, mixed(1, 3, 1))
    for op in (
        Conv2D(weight, bias, 0, last, dilation=(2**31 - 1, 1), padding=(5, 0, 0, 0)),
        Conv2D(weight, bias, 0, last, stride=(2**14, 2**14 + 1)),
        DepthwiseConv2D(weight[0], bias, 0, last, stride=(2**31, 1)),
        AveragePool2D((1, 1), stride=(1, 2**28 + 1)),
    ):
        with pytest.raises(ShapeError, match="more than 268435456"):
            op.output_shape((1, 2, 1))


def test_a_slice_of_one_position_may_have_any_step(place: Place) -> None:
    agrees(Slice((1, 0), (1, 3), (2**40, 2)), place, mixed(3, 5))


def test_tensors_are_limited() -> None:
    assert TensorType((2**14, 2**14), 1.0, 0).size == MOST_ELEMENTS
    with pytest.raises(ShapeError, match="at most 268435456"):
        TensorType((2**14, 2**14 + 1), 1.0, 0)
