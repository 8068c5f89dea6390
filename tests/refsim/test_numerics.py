"""The primitives against their definitions in unbounded integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conformance.opinion.functions import FUNCTIONS
from refsim import numerics
from refsim.errors import QuantizationError
from refsim.numerics import Rounding
from tests.refsim import reference

INT32 = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([-(2**31), -(2**31) + 1, -(2**30), -1, 0, 1, 2**30, 2**31 - 1]),
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_their_definitions(name):
    """On thousands of arguments; Hypothesis, below, looks for others."""
    function = FUNCTIONS[name]
    values = set()
    for arguments in function.arguments(3000, 0):
        expected = function.definition(*arguments)
        assert function.computed(arguments) == expected, arguments
        values.add(str(expected))
    assert len(values) > 60


@given(INT32, INT32)
@example(-(2**31), -(2**31))
def test_srdhm_is_its_definition(a, b):
    assert numerics.srdhm(a, b) == reference.srdhm(a, b)


@given(INT32, st.integers(0, 31))
def test_rdbpot_rounds_ties_away_from_zero(v, n):
    assert numerics.rdbpot(v, n) == reference.rdbpot(v, n)


@pytest.mark.parametrize(("v", "n", "expected"), [(5, 1, 3), (-5, 1, -3), (4, 3, 1), (-4, 3, -1), (3, 3, 0), (7, 0, 7)])
def test_rdbpot_on_ties(v, n, expected):
    assert numerics.rdbpot(v, n) == expected


@given(INT32, st.one_of(st.just(0), st.integers(2**30, 2**31 - 1)), st.integers(-31, 30))
def test_single_rounding_is_its_definition(v, multiplier, shift):
    assert numerics.requantize(v, multiplier, shift, 0) == reference.requantize(v, multiplier, shift, 0)


@given(st.data(), st.one_of(st.just(0), st.integers(2**30, 2**31 - 1)), st.integers(-31, 30))
def test_double_rounding_is_its_definition(data, multiplier, shift):
    room = 31 - max(shift, 0)
    v = data.draw(st.integers(-(2**room), 2**room - 1))
    assert numerics.requantize(v, multiplier, shift, 1) == reference.requantize(v, multiplier, shift, 1)


def test_the_two_roundings_differ_where_they_should():
    # 0.5 and -0.5: once rounded, ties go up; twice rounded, away from zero.
    assert numerics.requantize(1, 2**30, 0, 0) == 1
    assert numerics.requantize(-1, 2**30, 0, 0) == 0
    assert numerics.requantize(-3, 2**30, 0, 0) == -1
    assert numerics.requantize(-3, 2**30, -1, 1) == -1
    # 1.25 twice over: srdhm rounds 2.5 to 3, then 1.5 to 2; rounding once gives 1.
    assert numerics.requantize(5, 2**30, -1, 1) == 2
    assert numerics.requantize(5, 2**30, -1, 0) == 1


@given(st.one_of(st.integers(0, 2**62 - 1), st.integers(0, 2**31 - 1).map(lambda r: max(r * r - 1, 0))))
@example(2**62 - 1)
@example((2**31 - 1) ** 2)
def test_isqrt_is_exact(v):
    values = np.array([v, 0, 1, 2, 3, 4], np.int64)
    roots = np.empty_like(values)
    numerics.isqrt(values, roots)
    assert roots.tolist() == [math.isqrt(v), 0, 1, 1, 1, 2]


@given(st.integers(1, 2**63 - 1))
def test_floor_log2(v):
    assert numerics.floor_log2(v) == v.bit_length() - 1


@given(st.floats(-1e12, 1e12))
@example(0.49999999999999994)
@example(-2.5)
@example(4503599627370497.5)
def test_round_half_away(x):
    assert numerics.round_half_away(x) == reference.round_half_away(Fraction(x))
    assert numerics.round_half_away_array(np.array([x]))[0] == reference.round_half_away(Fraction(x))


@given(st.floats(2.0**-32, 2.0**29))
def test_multiplier_stands_for_the_real_number(real):
    multiplier, shift = numerics.quantize_multiplier(real)
    if multiplier == 0:
        assert real < 2.0**-31
        return
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier) * Fraction(2) ** (shift - 31) - Fraction(real)) <= Fraction(real) / 2**31


def test_multiplier_corner_cases():
    assert numerics.quantize_multiplier(0.0) == (0, 0)
    assert numerics.quantize_multiplier(0.5) == (2**30, 0)
    assert numerics.quantize_multiplier(1.0) == (2**30, 1)
    assert numerics.quantize_multiplier(1.0 - 2.0**-40) == (2**30, 1)  # rounds up to 2^31, so halve and shift
    assert numerics.quantize_multiplier(2.0**-33) == (0, 0)
    assert numerics.quantize_multiplier(2.0**-32) == (2**30, -31)
    for wrong in (-1.0, math.inf, math.nan, 2.0**30):
        with pytest.raises(QuantizationError):
            numerics.quantize_multiplier(wrong)


@given(st.integers(0, 2**31 - 1), st.integers(2**30, 2**31 - 1), st.integers(-31, 30), st.sampled_from(list(Rounding)))
def test_the_bound_holds_or_is_refused(bound, multiplier, shift, rounding):
    try:
        limit = numerics.requantized_bound(bound, multiplier, shift, rounding, "here")
    except QuantizationError as error:
        assert "here" in str(error)
        too_large = abs(reference.requantize(bound, multiplier, shift, 0)) >= 2**30 - 1
        assert too_large or (rounding is Rounding.DOUBLE and bound << max(shift, 0) > 2**31 - 1)
        return
    for v in (bound, -bound, bound // 2):
        assert abs(numerics.requantize(v, multiplier, shift, int(rounding))) <= limit <= 2**30


def test_accumulator_bound_names_the_culprit():
    numerics.check_accumulator(2**31 - 1, "channel 3")
    with pytest.raises(QuantizationError, match="channel 3.*2147483648"):
        numerics.check_accumulator(2**31, "channel 3")
