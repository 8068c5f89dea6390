"""Operators without rounding: what the integer ones approximate, and as near as their roundings allow."""

import numpy as np
import pytest

from conformance.exploration import explore
from conformance.strategies import Case, cases
from refsim.ops import OPERATORS
from refsim.ops.add import Add
from refsim.ops.attention import Attention
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.softmax import Softmax
from refsim.real import run_real
from refsim.tensor import TensorType

NEAREST = {
    "layernorm": None,  # rounds its normalised value too: tested below
    "attention": None,  # three operators: tested below
    "softmax": 1.5,  # in fixed point
}
"""Largest distance between integer and real results; by default one rounding, or two in the double rounding mode."""


def real(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_is_as_near_as_its_roundings(operator: str) -> None:
    found: list[Case] = []
    for seed in range(6):
        explore(cases(operator), lambda case, _: found.append(case), seed, skip=min(seed, 1))
    for case in found:
        allowed = NEAREST.get(operator, 1.01)
        if isinstance(case.op, Add):  # rounds both rescaled inputs too, before they are scaled to the output
            multiplier, shift = float(case.op.output.multiplier[0]), int(case.op.output.shift[0])
            allowed = 1.01 + 2 * 1.01 * multiplier * 2.0 ** (shift - 31)
        golden = case.op.run(*case.inputs)
        exact = run_real(case.op, *map(real, case.inputs))
        assert exact.shape == golden.shape
        assert exact.min() >= -128.5
        assert exact.max() <= 127.5 + 0.5 * (operator == "softmax")
        if allowed is not None:
            assert np.abs(exact - golden).max() <= allowed


def test_layernorm_is_the_real_one() -> None:
    rng = np.random.default_rng(0)
    x, y = (TensorType((6, 40), float(np.float32(s)), z) for s, z in ((0.05, 3), (0.03, -9)))
    gamma, beta = rng.normal(1, 0.2, 40), rng.normal(0, 0.3, 40)
    op = LayerNorm.from_real(gamma, beta, 1e-5, x, y)
    q = rng.integers(-128, 128, (5, 6, 40)).astype(np.int8)
    value = x.dequantize(q).astype(np.float64)
    centred = value - value.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    found = (run_real(op, real(q)) - y.zero_point) * y.scale
    inside = np.abs(expected / y.scale + y.zero_point) < 120
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)
    assert np.abs(run_real(op, real(q)) - op.run(q)).max() < 1


def test_softmax_is_the_real_one() -> None:
    x = TensorType((3, 10), float(np.float32(0.04)), 0)
    q = np.random.default_rng(1).integers(-128, 128, (4, 3, 10)).astype(np.int8)
    e = np.exp(real(q) * x.scale)
    found = (run_real(Softmax.from_scale(x.scale), real(q)) + 128) / 256
    np.testing.assert_allclose(found, e / e.sum(-1, keepdims=True), rtol=1e-6)


def test_attention_is_its_three_operators() -> None:
    found: list[Case] = []
    explore(cases("attention"), lambda case, _: found.append(case), 1, skip=0)
    for case in found:
        assert isinstance(case.op, Attention)
        q, k, v = map(real, case.inputs)
        scores = run_real(case.op.softmax, run_real(case.op.scores, q, k))
        np.testing.assert_array_equal(run_real(case.op, q, k, v), run_real(case.op.context, scores, v))


def test_fractions_of_a_byte_are_kept() -> None:
    found: list[Case] = []
    explore(cases("linear"), lambda case, _: found.append(case), 0, skip=0)
    case = found[-1]
    assert isinstance(case.op, Linear)
    x = real(case.inputs[0]) + 0.25
    moved = run_real(case.op, x)
    rows = x.reshape(-1, x.shape[-1]) - case.op.input_zero_point
    total = rows @ case.op.weight.T.astype(float) + case.op.bias
    scale = np.ldexp(case.op.output.multiplier.astype(float), case.op.output.shift - 31)
    bounded = np.clip(total * scale + case.op.output.zero_point, case.op.output.act_min, case.op.output.act_max)
    np.testing.assert_allclose(moved.reshape(bounded.shape), bounded)
