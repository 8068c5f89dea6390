"""What operators compute of real scales when they are built, against docs/numerics.md written out once more."""

from fractions import Fraction

import numpy as np
import pytest

from conformance.opinion.definitions import round_half_away
from conformance.opinion.functions import quantized
from refsim.errors import QuantizationError
from refsim.numerics import Rounding
from refsim.ops.add import Add
from refsim.ops.base import Requantization
from refsim.ops.concat import Concat
from refsim.ops.layernorm import LayerNorm
from refsim.ops.lookup import Lookup
from refsim.ops.softmax import Softmax
from refsim.tensor import TensorType


def type_of(scale: float, zero_point: int = 0) -> TensorType:
    return TensorType((4,), float(np.float32(scale)), zero_point)


def integer(real: float) -> int:
    return round_half_away(Fraction(real))


def last_step(output: Requantization) -> tuple[object, ...]:
    pairs = list(zip(output.multiplier.tolist(), output.shift.tolist(), strict=True))
    return pairs, output.zero_point, output.act_min, output.act_max, output.rounding


@pytest.mark.parametrize("scale_bits", [0, 7, 14])
@pytest.mark.parametrize("epsilon", [0.0, 1e-30, 1e-5, 3.0])
@pytest.mark.parametrize(
    ("gamma", "beta"),
    [
        ([1.0, -0.3], [0.25, -0.01]),  # gamma gives the scale
        ([-0.7, 0.01], [100.0, -300.0]),  # beta does
        ([0.0, 0.0], [0.0, 0.0]),  # nothing does
        ([0.0, 0.0], [1e-4, 3e-5]),
        ([6e-41, -6e-41], [0.0, 0.0]),  # a scale of one bit, in which gamma does not fit
    ],
)
def test_layernorm(gamma: list[float], beta: list[float], epsilon: float, scale_bits: int) -> None:
    x, y = type_of(0.07, 5), type_of(0.03, -7)
    op = LayerNorm.from_real(np.array(gamma), np.array(beta), epsilon, x, y, scale_bits)
    largest = max(max(map(abs, gamma)) / 32767, max(map(abs, beta)) * 2**scale_bits / 2**29)
    scale = float(np.float32(largest)) or 1.0
    assert op.gamma.tolist() == [min(max(integer(g / scale), -32767), 32767) for g in gamma]
    assert op.beta.tolist() == [integer(b / (scale * 2.0**-scale_bits)) for b in beta]
    count = len(gamma)
    exact = integer((epsilon * count * count) / (x.scale * x.scale))
    assert op.epsilon == (max(exact, 1) if epsilon else 0)
    multiplier = quantized((scale * 2.0**-scale_bits) / y.scale)
    assert last_step(op.output) == ([multiplier], -7, -128, 127, Rounding.SINGLE)
    assert op.scale_bits == scale_bits
    assert LayerNorm(op.gamma, op.beta, 0, op.output).scale_bits == 7
    twice = LayerNorm.from_real(np.array(gamma), np.array(beta), epsilon, x, y, rounding=Rounding.DOUBLE)
    assert (twice.output.rounding, twice.scale_bits) == (Rounding.DOUBLE, 7)


@pytest.mark.parametrize(
    ("gamma", "beta", "epsilon"),
    [(np.nan, 0.0, 1.0), (1.0, np.inf, 1.0), (1.0, 0.0, -1e-9), (1.0, 0.0, np.nan), (np.inf, 1.0, 0.0)],
)
def test_layernorm_needs_finite_parameters(gamma: float, beta: float, epsilon: float) -> None:
    with pytest.raises(QuantizationError, match="finite gamma and beta and an epsilon of at least 0"):
        LayerNorm.from_real(np.array([gamma]), np.array([beta]), epsilon, type_of(0.07), type_of(0.03))


@pytest.mark.parametrize(("scale_a", "scale_b"), [(0.1, 0.1), (0.1, 0.03), (0.007, 0.2)])
def test_add(scale_a: float, scale_b: float) -> None:
    a, b, y = type_of(scale_a, 3), type_of(scale_b, -4), type_of(0.11, 5)
    op = Add.from_types(a, b, y)
    twice = 2 * max(a.scale, b.scale)
    assert (op.a_zero_point, op.b_zero_point, op.subtract) == (3, -4, False)
    assert (op.a_multiplier, op.b_multiplier) == (quantized(a.scale / twice), quantized(b.scale / twice))
    assert last_step(op.output) == ([quantized(twice / (2**20 * y.scale))], 5, -128, 127, Rounding.SINGLE)
    assert Add.from_types(a, b, y, subtract=True).subtract


@pytest.mark.parametrize("scale", [2.0**-25, 1e-3, 0.05, 1.0, 31.99, 32.0, 64.0, 1e9])
def test_softmax(scale: float) -> None:
    op = Softmax.from_scale(scale)
    assert (op.multiplier, op.shift) == quantized(min(scale * 2**26, 2**31 - 1))
    assert op.diff_min == -(31 * 2**26 // 2**op.shift)


def test_concat() -> None:
    y = type_of(0.1, 5)
    inputs = [type_of(0.1, 5), type_of(0.1, 6), type_of(0.3, 5)]
    same, moved, scaled = Concat.from_types(0, inputs, y, Rounding.DOUBLE).rescale
    assert same is None
    assert moved is not None and scaled is not None
    assert (moved.input_zero_point, scaled.input_zero_point) == (6, 5)
    for rescale, multiplier in ((moved, quantized(1.0)), (scaled, quantized(inputs[2].scale / y.scale))):
        assert last_step(rescale.output) == ([multiplier], 5, -128, 127, Rounding.DOUBLE)
    one = Concat.from_types(0, inputs[1:2], y).rescale[0]
    assert one is not None
    assert one.output.rounding is Rounding.SINGLE


def test_lookup() -> None:
    x, y = type_of(0.05, 10), type_of(0.25, -3)
    steep = Lookup.from_function(lambda real: 1e30 * real, x, y)
    assert steep.table.tolist() == [-128] * 138 + [-3] + [127] * 117
    halves = Lookup.from_function(lambda real: np.arange(-128, 128) / 8, x, y)
    assert halves.table.tolist() == [min(max(integer(n / 2) - 3, -128), 127) for n in range(-128, 128)]
    identity = Lookup.from_function(lambda real: real, x, y)
    assert identity.table.tolist() == [integer(x.scale * (q - 10) / y.scale) - 3 for q in range(-128, 128)]


def test_requantization() -> None:
    one = Requantization.from_real(0.3, 4)
    assert last_step(one) == ([quantized(0.3)], 4, -128, 127, Rounding.SINGLE)
    assert (one.multiplier.dtype, one.shift.dtype) == (np.int32, np.int32)
    two = Requantization.from_real([0.3, 0.0], -4, -5, 6, Rounding.DOUBLE)
    assert last_step(two) == ([quantized(0.3), (0, 0)], -4, -5, 6, Rounding.DOUBLE)
    for output, channels in ((one, 1), (one, 3), (two, 2)):
        stage = output.stage(channels)
        repeats = channels // output.multiplier.size
        assert stage.multiplier.tolist() == output.multiplier.tolist() * repeats
        assert stage.shift.tolist() == output.shift.tolist() * repeats
        assert stage[2:] == (output.rounding, output.zero_point, output.act_min, output.act_max)
    assert one.stage() is one.stage(1)


def test_requantization_needs_vectors_of_one_length() -> None:
    good = np.array([2**30], np.int32)
    for multiplier, shift in (
        (good[0:0], good[0:0]),
        (good, np.zeros(2, np.int32)),
        (good.reshape(1, 1), np.zeros((1, 1), np.int32)),
        (good.astype(np.int64), np.zeros(1, np.int32)),
        (good, np.zeros(1, np.int64)),
    ):
        with pytest.raises(QuantizationError, match="multiplier and shift must be"):
            Requantization(multiplier, shift, 0)
    with pytest.raises(QuantizationError, match="shift in"):
        Requantization(good, np.array([31], np.int32), 0)
