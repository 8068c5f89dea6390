"""Every operator against its definition in unbounded integers, written from docs/numerics.md on small cases."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refsim import Rounding, TensorType
from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import Multiplier
from refsim.ops import OPERATORS, Requantization
from refsim.ops.add import Add
from refsim.ops.attention import Attention
from refsim.ops.average_pool2d import AveragePool2D
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
from refsim.ops.softmax import Softmax
from refsim.ops.transpose import Transpose
from tests.refsim import reference

ROUNDINGS = st.sampled_from(list(Rounding))
ZERO_POINTS = st.sampled_from([-128, -5, 0, 17, 127])
SEEDS = st.integers(0, 2**32 - 1)


def int8(rng, *shape):
    """Random bytes with the extremes well represented."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def stage(rng, channels, rounding, zero_point):
    low, high = sorted(rng.integers(-128, 128, 2)) if rng.integers(2) else (-128, 127)
    return Requantization.from_real(rng.uniform(1e-4, 2e-2, channels), zero_point, int(low), int(high), rounding)


def type_of(shape, scale, zero_point):
    return TensorType(shape, float(np.float32(scale)), zero_point)


@settings(max_examples=40)
@given(SEEDS, ROUNDINGS, ZERO_POINTS, ZERO_POINTS, st.sampled_from([1, 2]), st.integers(1, 2), st.integers(1, 2))
def test_conv2d(seed, rounding, zx, zy, groups, stride, dilation):
    rng = np.random.default_rng(seed)
    h, w, depth, count = (int(n) for n in rng.integers(1, 5, 4))
    kh, kw = (int(n) for n in rng.integers(1, 4, 2))
    padding = tuple(int(n) for n in rng.integers(0, 3, 4))
    if h + padding[0] + padding[2] < dilation * (kh - 1) + 1 or w + padding[1] + padding[3] < dilation * (kw - 1) + 1:
        return
    channels = count * groups
    op = Conv2D(
        int8(rng, channels, kh, kw, depth),
        rng.integers(-5000, 5000, channels).astype(np.int32),
        zx,
        stage(rng, channels, rounding, zy),
        (stride, 1),
        padding,
        (dilation, dilation),
        groups,
    )
    x = int8(rng, 2, h, w, depth * groups)
    y = op.run(x)
    assert y.shape[1:] == op.output_shape(x.shape[1:])
    for n, oh, ow, o in np.ndindex(*y.shape):
        acc = int(op.bias[o])
        for i, j, c in np.ndindex(kh, kw, depth):
            ih, iw = oh * stride - padding[0] + i * dilation, ow - padding[1] + j * dilation
            if 0 <= ih < h and 0 <= iw < w:
                acc += (int(x[n, ih, iw, o // count * depth + c]) - zx) * int(op.weight[o, i, j, c])
        assert y[n, oh, ow, o] == reference.finish(acc, op.output, o)


@settings(max_examples=30)
@given(SEEDS, ROUNDINGS, ZERO_POINTS, ZERO_POINTS, st.integers(1, 3), st.integers(1, 2))
def test_depthwise_conv2d(seed, rounding, zx, zy, multiplier, stride):
    rng = np.random.default_rng(seed)
    h, w, channels = (int(n) for n in rng.integers(1, 5, 3))
    op = DepthwiseConv2D(
        int8(rng, 3, 3, channels * multiplier),
        rng.integers(-5000, 5000, channels * multiplier).astype(np.int32),
        zx,
        stage(rng, channels * multiplier, rounding, zy),
        (stride, stride),
        (1, 1, 1, 1),
    )
    x = int8(rng, 2, h, w, channels)
    y = op.run(x)
    for n, oh, ow, o in np.ndindex(*y.shape):
        acc = int(op.bias[o])
        for i, j in np.ndindex(3, 3):
            ih, iw = oh * stride - 1 + i, ow * stride - 1 + j
            if 0 <= ih < h and 0 <= iw < w:
                acc += (int(x[n, ih, iw, o // multiplier]) - zx) * int(op.weight[i, j, o])
        assert y[n, oh, ow, o] == reference.finish(acc, op.output, o)


@pytest.mark.parametrize("size", [(2, 40, 30), (13, 9, 9), (3, 23, 22), (1, 1, 600)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_conv2d_in_parts(size, stride):
    """Images of which several make a part, or of which one is several."""
    rng = np.random.default_rng(sum(size))
    op = Conv2D(
        int8(rng, 3, 3, 2, 5),
        rng.integers(-5000, 5000, 3).astype(np.int32),
        -7,
        Requantization.from_real(1e-3, 5),
        stride,
        (1, 2, 2, 0),
    )
    x = int8(rng, *size, 5)
    y = op.run(x)
    padded = np.zeros((size[0], size[1] + 3, size[2] + 2, 5), np.int64)
    padded[:, 1 : 1 + size[1], 2:] = x.astype(np.int64) + 7
    acc = np.zeros((size[0], size[1] + 1, size[2] + 1, 3), np.int64) + op.bias
    for kh, kw in np.ndindex(3, 2):
        seen = padded[:, kh : kh + acc.shape[1], kw : kw + acc.shape[2]]
        acc += seen @ op.weight[:, kh, kw].T.astype(np.int64)
    expected = [reference.finish(int(v), op.output) for v in acc[:, :: stride[0], :: stride[1]].ravel()]
    np.testing.assert_array_equal(y.ravel(), expected)


@pytest.mark.parametrize(("rows", "channels"), [(1100, 3), (513, 9), (512, 4), (511, 1), (5, 40), (3, 600), (600, 601)])
def test_linear_in_parts(rows, channels):
    """More rows than a part takes, and more channels than rows."""
    rng = np.random.default_rng(rows + channels)
    op = Linear(
        int8(rng, channels, 5), rng.integers(-999, 999, channels).astype(np.int32), 3, stage(rng, channels, 0, -9)
    )
    x = int8(rng, rows, 5)
    acc = (x.astype(np.int64) - 3) @ op.weight.T.astype(np.int64) + op.bias
    y = op.run(x)
    for row in (*range(0, rows, 37), rows - 1):
        assert y[row].tolist() == [reference.finish(int(v), op.output, o) for o, v in enumerate(acc[row])]


@settings(max_examples=30)
@given(SEEDS, ROUNDINGS, ZERO_POINTS, ZERO_POINTS)
def test_linear_is_a_1x1_convolution(seed, rounding, zx, zy):
    rng = np.random.default_rng(seed)
    depth, channels, rows = (int(n) for n in rng.integers(1, 9, 3))
    output = stage(rng, channels, rounding, zy)
    weight, bias = int8(rng, channels, depth), rng.integers(-999, 999, channels).astype(np.int32)
    x = int8(rng, 2, rows, depth)
    y = Linear(weight, bias, zx, output).run(x)
    conv = Conv2D(weight.reshape(channels, 1, 1, depth), bias, zx, output).run(x.reshape(2, rows, 1, depth))
    np.testing.assert_array_equal(y, conv.reshape(y.shape))


@settings(max_examples=30)
@given(SEEDS, ROUNDINGS, ZERO_POINTS, ZERO_POINTS, ZERO_POINTS, st.booleans())
def test_matmul(seed, rounding, za, zb, zy, transpose_b):
    rng = np.random.default_rng(seed)
    heads, m, k, n = (int(v) for v in rng.integers(1, 5, 4))
    op = MatMul(za, zb, stage(rng, 1, rounding, zy), transpose_b)
    a = int8(rng, 2, heads, m, k)
    b = int8(rng, 2, heads, n, k) if transpose_b else int8(rng, 2, heads, k, n)
    y = op.run(a, b)
    right = b.swapaxes(-1, -2) if transpose_b else b
    acc = (a.astype(object) - za) @ (right.astype(object) - zb)
    expected = [reference.finish(int(v), op.output) for v in acc.ravel()]
    np.testing.assert_array_equal(y.ravel(), expected)


@settings(max_examples=30)
@given(SEEDS, ROUNDINGS, ZERO_POINTS, ZERO_POINTS, ZERO_POINTS, st.floats(1e-3, 1), st.floats(1e-3, 1), st.booleans())
def test_add(seed, rounding, za, zb, zy, scale_a, scale_b, subtract):
    rng = np.random.default_rng(seed)
    ta, tb, ty = type_of((3, 4), scale_a, za), type_of((4,), scale_b, zb), type_of((3, 4), 0.11, zy)
    op = Add.from_types(ta, tb, ty, rounding=rounding, subtract=subtract)
    a, b = int8(rng, 2, 3, 4), int8(rng, 2, 4)
    y = op.run(a, b)
    for index in np.ndindex(*y.shape):
        left = reference.requantize((int(a[index]) - za) << 20, *op.a_multiplier, int(rounding))
        right = reference.requantize((int(b[index[0], index[2]]) - zb) << 20, *op.b_multiplier, int(rounding))
        sign = -1 if subtract else 1
        assert y[index] == reference.finish(left + sign * right, op.output)
        real = (ta.dequantize(a)[index] + sign * tb.dequantize(b)[index[0], index[2]]) / ty.scale + zy
        assert abs(min(max(real, -128), 127) - int(y[index])) < 0.51


@settings(max_examples=30)
@given(SEEDS, ROUNDINGS, ZERO_POINTS, ZERO_POINTS, ZERO_POINTS)
def test_mul_requantize_mean(seed, rounding, za, zb, zy):
    rng = np.random.default_rng(seed)
    output = stage(rng, 1, rounding, zy)
    a, b = int8(rng, 2, 3, 4), int8(rng, 2, 3, 1)
    y = Mul(za, zb, output).run(a, b)
    for n, i, j in np.ndindex(*y.shape):
        assert y[n, i, j] == reference.finish((int(a[n, i, j]) - za) * (int(b[n, i, 0]) - zb), output)
    y = Requantize(za, output).run(a)
    np.testing.assert_array_equal(y.ravel(), [reference.finish(int(v) - za, output) for v in a.ravel()])
    y = Mean(0, 0, za, output).run(a)
    for n, j in np.ndindex(*y.shape):
        assert y[n, j] == reference.finish(sum(int(v) - za for v in a[n, :, j]), output)


def test_subtraction_is_no_addition_of_the_negative():
    """A tie of the rescaled operand rounds towards plus infinity; negated beforehand it would go the other way."""
    halves, whole = Multiplier(2**30, -20), Requantization(np.array([2**30], np.int32), np.array([1], np.int32), 0)
    a, b = np.zeros((1, 3), np.int8), np.array([[-3, 1, 3]], np.int8)
    assert Add(0, 0, halves, halves, whole, subtract=True).run(a, b).tolist() == [[1, -1, -2]]
    assert Add(0, 0, halves, halves, whole).run(a, -b).tolist() == [[2, 0, -1]]


def test_halved_multipliers_are_for_double_rounding():
    """A mean of TensorFlow Lite divides its multiplier by the number of elements."""
    halved = (np.array([2**29 + 5], np.int32), np.array([-3], np.int32), 0)
    output = Requantization(*halved, rounding=Rounding.DOUBLE)
    x = np.arange(-60, 60, dtype=np.int8).reshape(1, 4, 30)
    y = Mean(0, 0, 0, output).run(x)
    assert y[0].tolist() == [reference.finish(int(x[0, :, i].astype(int).sum()), output) for i in range(30)]
    with pytest.raises(QuantizationError, match=r"must be in \[2\^30, 2\^31\)"):
        Requantization(*halved)
    with pytest.raises(
        QuantizationError, match=r"requantize takes multipliers from 2\^30 to 2\^31 - 1, or 0, found 536870917"
    ):
        Requantize(0, output)


def softmax_by_definition(row, op):
    """docs/numerics.md, softmax, in unbounded integers."""
    srdhm, rdbpot = reference.srdhm, reference.rdbpot

    def saturate(v):
        return min(max(v, -(2**31)), 2**31 - 1)

    def exponential(d):
        if d < op.diff_min:
            return 0
        a = srdhm(d * 2**op.shift, op.multiplier)
        if a == 0:
            return 2**31 - 1
        q = a % 2**24 - 2**24
        x = q * 32 + 2**28
        x2 = srdhm(x, x)
        u = rdbpot(srdhm(rdbpot(srdhm(x2, x2), 2) + srdhm(x2, x), 715827883) + x2, 1)
        e = 1895147668 + srdhm(1895147668, x + u)
        factors = [1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242]
        for bit, factor in zip(range(24, 31), factors, strict=True):
            if (q - a) >> bit & 1:
                e = srdhm(e, factor)
        return e

    differences = [int(v) - max(int(w) for w in row) for v in row]
    total = sum(rdbpot(exponential(d), 12) for d in differences if d >= op.diff_min)
    zeros = 32 - total.bit_length()
    half = (total * 2**zeros - 2**31 + 2**31) // 2
    x = 1515870810 + srdhm(half, -1010580540)
    for _ in range(3):
        x += saturate(srdhm(x, 2**29 - srdhm(half, x)) * 4)
    scale, exponent = saturate(x * 2), 12 - zeros + 23
    shares = [
        0 if d < op.diff_min or exponent > 31 else rdbpot(srdhm(scale, exponential(d)), exponent) for d in differences
    ]
    return [min(max(s - 128, -128), 127) for s in shares]


@settings(max_examples=40)
@given(SEEDS, st.floats(2.0**-20, 40), st.integers(1, 12))
def test_softmax(seed, scale, length):
    rng = np.random.default_rng(seed)
    op = Softmax.from_scale(float(np.float32(scale)))
    x = int8(rng, 2, 2, length)
    y = op.run(x)
    for index in np.ndindex(2, 2):
        assert list(y[index]) == softmax_by_definition(x[index], op)


@pytest.mark.parametrize("length", [511, 512, 1024, 4095])
def test_softmax_on_long_equal_rows(length):
    op = Softmax.from_scale(0.125)
    x = np.full((1, 2, length), 5, np.int8)
    x[0, 1, 1:] = -100  # an ordinary row after it
    y = op.run(x)
    for row in range(2):
        assert y[0, row].tolist() == softmax_by_definition(x[0, row], op)


@pytest.mark.parametrize(
    ("row", "multiplier", "shift"),
    [
        ([44, 34], 2043888973, 20),  # so near a tie that one more or less in the sum shows
        ([-77, 28, -23, 100], 2138052343, 20),
        ([-128, -128, -128], 2**30, 31),  # a largest of -127 would leave no exponential but 0
        ([-128, -127, 127], 2**30, 31),
    ],
)
def test_softmax_of_telling_rows(row, multiplier, shift):
    op = Softmax(multiplier, shift, -(31 * 2**26 >> shift))
    assert op.run(np.array([row], np.int8))[0].tolist() == softmax_by_definition(row, op)


def test_softmax_takes_scales_however_large():
    largest = Softmax(2**31 - 1, 31, 0)
    for scale in (32.0, 64.0, 1e9):
        op = Softmax.from_scale(scale)
        assert (op.multiplier, op.shift, op.diff_min) == (largest.multiplier, largest.shift, largest.diff_min)


@settings(max_examples=30)
@given(SEEDS, ROUNDINGS, ZERO_POINTS, ZERO_POINTS, ZERO_POINTS, st.booleans(), st.booleans())
def test_attention(seed, rounding, zq, zk, zv, transpose_k, transpose_v):
    rng = np.random.default_rng(seed)
    heads, m, k, n, d = (int(v) for v in rng.integers(1, 5, 5))
    op = Attention(
        MatMul(zq, zk, stage(rng, 1, rounding, 3), transpose_k),
        Softmax.from_scale(0.125),
        MatMul(-128, zv, stage(rng, 1, rounding, -4), transpose_v),
    )
    q, keys, values = int8(rng, 2, heads, m, k), int8(rng, 2, heads, n, k), int8(rng, 2, heads, n, d)
    given_keys = keys if transpose_k else np.ascontiguousarray(keys.swapaxes(-1, -2))
    given_values = np.ascontiguousarray(values.swapaxes(-1, -2)) if transpose_v else values
    y = op.run(q, given_keys, given_values)
    assert y.shape[1:] == op.output_shape(q.shape[1:], given_keys.shape[1:], given_values.shape[1:])
    for s, h, i in np.ndindex(2, heads, m):
        scores = [
            sum((int(a) - zq) * (int(b) - zk) for a, b in zip(q[s, h, i], key, strict=True)) for key in keys[s, h]
        ]
        shares = softmax_by_definition([reference.finish(acc, op.scores.output) for acc in scores], op.softmax)
        for j in range(d):
            acc = sum(
                (share + 128) * (int(value) - zv) for share, value in zip(shares, values[s, h, :, j], strict=True)
            )
            assert y[s, h, i, j] == reference.finish(acc, op.context.output)


def test_softmax_is_close_to_the_real_one():
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 128, (50, 64)).astype(np.int8)
    real = x.astype(np.float64) * 0.04
    expected = np.exp(real - real.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    y = Softmax.from_scale(float(np.float32(0.04))).run(x)
    assert np.abs((y + 128.0) / 256 - expected).max() * 256 <= 0.51


def layernorm_by_definition(row, op):
    """docs/numerics.md, layernorm, in unbounded integers."""
    values = [int(v) for v in row]
    count, total = len(values), sum(values)
    variance = count * sum(v * v for v in values) - total**2 + op.epsilon
    out = []
    for value, gamma, beta in zip(values, op.gamma, op.beta, strict=True):
        h = 0
        if variance:
            p = (61 - (variance.bit_length() - 1)) // 2
            scaled = variance << 2 * p if p >= 0 else variance >> -2 * p
            assert 2**60 <= scaled < 2**62
            inverse = 2**61 // math.isqrt(scaled)
            t = 61 - op.scale_bits - p
            h = min(max(((count * value - total) * inverse + 2 ** (t - 1)) >> t, -(2**15)), 2**15 - 1)
        out.append(reference.finish(h * int(gamma) + int(beta), op.output))
    return out


@settings(max_examples=60)
@given(
    SEEDS, ROUNDINGS, ZERO_POINTS, st.integers(1, 40), st.integers(0, 14), st.sampled_from([0.0, 1e-5, 1e-3, 1.0, 1e9])
)
def test_layernorm(seed, rounding, zy, length, scale_bits, epsilon):
    rng = np.random.default_rng(seed)
    x, y = type_of((2, length), 0.07, 3), type_of((2, length), 0.03, zy)
    op = LayerNorm.from_real(rng.normal(size=length), rng.normal(size=length), epsilon, x, y, scale_bits, rounding)
    data = int8(rng, 2, 2, length)
    data[0, 0] = data[0, 0, 0]  # a constant row
    result = op.run(data)
    for index in np.ndindex(2, 2):
        assert list(result[index]) == layernorm_by_definition(data[index], op)


@pytest.mark.parametrize(("spike", "beta"), [(127, -32767), (-127, 32768)])
def test_layernorm_where_its_h_saturates(spike, beta):
    row = np.full(16, -spike, np.int8)
    row[0] = spike
    op = LayerNorm(np.ones(16, np.int16), np.full(16, beta, np.int32), 0, Requantization.from_real(1.0, 0), 14)
    y = op.run(row[None])[0].tolist()
    assert y == layernorm_by_definition(row, op)
    assert y[0] == 0


def test_layernorm_with_a_variance_of_63_bits():
    rows = np.full((3, 600), -128, np.int8)
    rows[1:, 7], rows[2, 9:80] = 127, 100
    op = LayerNorm(np.ones(600, np.int16), np.zeros(600, np.int32), 2**62 - 1, Requantization.from_real(1.0, 0), 14)
    y = op.run(rows[None])[0]
    for row in range(3):
        assert y[row].tolist() == layernorm_by_definition(rows[row], op)
    assert len(set(y[2].tolist())) > 1


@pytest.mark.parametrize("count", [44, 192, 512])
def test_scaled_layernorm_is_within_one_of_the_real_one_and_the_naive_variant_is_not(count):
    rng = np.random.default_rng(count)
    x, y = type_of((count,), 0.05, 0), type_of((count,), 0.03, 0)
    data = np.clip(rng.normal(0, 40, (200, count)), -128, 127).astype(np.int8)
    real = data * x.scale
    expected = (real - real.mean(-1, keepdims=True)) / np.sqrt(real.var(-1, keepdims=True) + 1e-5) / y.scale
    expected = np.clip(np.rint(expected), -128, 127)
    errors = {}
    for scale_bits in (0, 7):
        op = LayerNorm.from_real(np.ones(count), np.zeros(count), 1e-5, x, y, scale_bits)
        errors[scale_bits] = np.abs(op.run(data) - expected)
    assert errors[7].max() <= 1 and (errors[7] == 0).mean() > 0.9
    assert errors[0].mean() > 4


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_pooling(seed, kernel_h, kernel_w, stride):
    rng = np.random.default_rng(seed)
    h, w = (int(n) for n in rng.integers(3, 6, 2))
    padding = (int(rng.integers(kernel_h)), int(rng.integers(kernel_w)), 0, 0)
    low, high = sorted(int(v) for v in rng.integers(-128, 128, 2))
    x = int8(rng, 2, h, w, 3)
    for cls in (MaxPool2D, AveragePool2D):
        y = cls((kernel_h, kernel_w), (stride, stride), padding, low, high).run(x)
        for n, oh, ow, c in np.ndindex(*y.shape):
            top, left = oh * stride - padding[0], ow * stride - padding[1]
            window = x[n, max(top, 0) : top + kernel_h, max(left, 0) : left + kernel_w, c].ravel().astype(int)
            value = (
                max(window) if cls is MaxPool2D else reference.round_half_away(Fraction(int(window.sum()), len(window)))
            )
            assert y[n, oh, ow, c] == min(max(value, low), high)


def test_lookup_tabulates_a_function():
    x, y = type_of((4,), 0.05, 10), type_of((4,), 1 / 128, -3)
    op = Lookup.from_function(np.tanh, x, y)
    q = np.arange(-128, 128).astype(np.int8)
    expected = [
        min(
            max(reference.round_half_away(Fraction(math.tanh(0.05000000074505806 * (int(v) - 10)) * 128)) - 3, -128),
            127,
        )
        for v in q
    ]
    assert op.run(q[None])[0].tolist() == expected
    with pytest.raises(QuantizationError, match="not finite"), np.errstate(divide="ignore"):
        Lookup.from_function(lambda v: 1 / v, x, y)


def test_data_movement_moves_bytes():
    x = np.arange(-60, 60).astype(np.int8).reshape(1, 4, 5, 6)
    np.testing.assert_array_equal(Reshape((20, 6)).run(x)[0], x[0].reshape(20, 6))
    np.testing.assert_array_equal(Transpose((2, 0, 1)).run(x)[0], x[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(Slice((1, 0, 1), (2, 5, 3), (2, 1, 2)).run(x)[0], x[0, 1:4:2, :, 1:6:2])
    np.testing.assert_array_equal(Pad((1, 0, 0), (0, 2, 0), -7).run(x)[0, 0], np.full((7, 6), -7))
    same = type_of((4, 5, 6), 0.1, 0)
    other = type_of((4, 5, 6), 0.2, 5)
    joined = Concat.from_types(1, [same, other], same).run(x, x)
    np.testing.assert_array_equal(joined[0, :, :5], x[0])
    np.testing.assert_array_equal(joined[0, :, 5:], np.clip(2 * (x[0].astype(int) - 5), -128, 127))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: Conv2D(
                np.ones((2, 3, 3, 4), np.int16), np.zeros(2, np.int32), 0, Requantization.from_real(1e-3, 0)
            ),
            ShapeError,
            "int8",
        ),
        (
            lambda: Linear(
                np.full((3, 70000), 127, np.int8), np.zeros(3, np.int32), -128, Requantization.from_real(1e-6, 0)
            ),
            QuantizationError,
            "output channel 0.*2266950000",
        ),
        (
            lambda: Linear(np.ones((2, 4), np.int8), np.zeros(2, np.int32), 200, Requantization.from_real(1e-3, 0)),
            QuantizationError,
            "200",
        ),
        (
            lambda: Linear(np.ones((2, 4), np.int8), np.zeros(2, np.int32), 0, Requantization.from_real([1e-3] * 3, 0)),
            ShapeError,
            "3 multipliers",
        ),
        (lambda: Requantization.from_real(1e-3, 0, 5, 4), QuantizationError, "activation range"),
        (
            lambda: MatMul(0, 0, Requantization.from_real(1e-3, 0)).output_shape((2, 3), (4, 5)),
            ShapeError,
            "cannot multiply",
        ),
        (
            lambda: MatMul(-128, -128, Requantization.from_real(1e-6, 0)).output_shape((1, 40000), (40000, 1)),
            QuantizationError,
            "int32",
        ),
        (lambda: Requantize(0, Requantization.from_real(2.0**29, 0)), QuantizationError, "requantised value"),
        (lambda: Softmax.from_scale(2.0**-27), QuantizationError, "input scale"),
        (lambda: Softmax.from_scale(0.1).output_shape((2, 4096)), ShapeError, "4095"),
        (
            lambda: Attention(
                MatMul(0, 0, Requantization.from_real(0.1, 0)),
                Softmax.from_scale(0.1),
                MatMul(0, 0, Requantization.from_real(0.1, 0)),
            ),
            QuantizationError,
            "probabilities have zero point -128, .* built for 0",
        ),
        (
            lambda: LayerNorm(
                np.array([-32768], np.int16), np.zeros(1, np.int32), 0, Requantization.from_real(1e-6, 0)
            ),
            QuantizationError,
            "-32768",
        ),
        (lambda: MaxPool2D((2, 2), padding=(2, 0, 0, 0)).output_shape((4, 4, 1)), ShapeError, "padding"),
        (
            lambda: Concat.from_types(0, [type_of((2, 3), 1, 0)], type_of((2, 3), 1, 0)).output_shape((2, 3), (2, 3)),
            ShapeError,
            "inputs",
        ),
        (lambda: Slice((1,), (3,), (2,)).output_shape((5,)), ShapeError, "leaves"),
        (lambda: Transpose((0, 0)), ShapeError, "permutation"),
        (lambda: Reshape((3,)).output_shape((2, 2)), ShapeError, "cannot turn"),
        (lambda: TensorType((0, 3), 1.0, 0), ShapeError, "positive"),
        (lambda: TensorType((3,), 0.1, 0), QuantizationError, "float32"),
        (lambda: TensorType((3,), 1.0, 128), QuantizationError, "zero point"),
    ],
)
def test_wrong_parameters_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_operators_are_found_by_name():
    assert len(OPERATORS) == 19
    assert OPERATORS["conv2d"] is Conv2D
