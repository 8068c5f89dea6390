"""Cases of add."""

import numpy as np
from hypothesis import strategies as st

from conformance.strategies.base import (
    Case,
    Scaling,
    activation_ranges,
    activations,
    broadcast_pairs,
    multipliers,
    roundings,
    scalings,
    shapes,
    zero_points,
)
from refsim.numerics import INT32_MAX, REQUANTIZED_MAX, Multiplier, Rounding, largest_distance, requantized_bound
from refsim.ops.add import LEFT_SHIFT, Add
from refsim.ops.base import Requantization


def input_scalings() -> st.SearchStrategy[Scaling]:
    """Mostly as `Add.from_types` makes them: one input keeps half its value, the other less."""
    half = st.builds(Scaling, st.just(2**30), st.just(27), st.integers(-8, 0))
    return st.one_of(
        half, st.builds(Scaling, st.integers(2**30, 2**31 - 1), st.just(27), st.integers(-12, 0)), scalings()
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """All patterns of broadcasting; multipliers from those that scales give to the ends of what is legal.

    Half of the cases are as networks have them: one input halved exactly, or both, and most of those of equal shapes.
    """
    usual = draw(st.booleans())
    rounding = draw(roundings())
    zero_point_a, zero_point_b, zero_point = draw(zero_points()), draw(zero_points()), draw(zero_points())
    halved = draw(st.sampled_from(((True, False), (False, True), (True, True)))) if usual else (False, False)
    scaling_a, scaling_b = (Scaling(2**30, 27, 0) if exactly else draw(input_scalings()) for exactly in halved)
    kind = draw(st.integers(0, 15))
    if kind > 13:  # one of them as large as is legal
        largest = Scaling(draw(multipliers().filter(bool)), None, 0)
        scaling_a, scaling_b = (largest, scaling_b) if kind == 15 else (scaling_a, largest)
    elif kind > 11:  # sums of so few bits that the last of them shows
        scaling_a, scaling_b = (Scaling(draw(multipliers().filter(bool)), 9, draw(st.integers(0, 3))) for _ in range(2))
    a, bound_a = _raised(scaling_a, zero_point_a, rounding, REQUANTIZED_MAX)
    b, bound_b = _raised(scaling_b, zero_point_b, rounding, INT32_MAX - bound_a)
    bound = bound_a + bound_b
    # What a power of two scales is a tie as often as not.
    total = draw(st.one_of(scalings(), scalings(), st.just(Scaling(2**30, 8, 0)))).pick(bound, bound // 2, rounding)
    output = Requantization(
        np.array([total.multiplier], np.int32),
        np.array([total.shift], np.int32),
        zero_point,
        *draw(activation_ranges(zero_point)),
        rounding,
    )
    equal = usual and draw(st.integers(0, 3)) > 0
    shape_a, shape_b = (draw(shapes()),) * 2 if equal else draw(broadcast_pairs())
    op = Add(zero_point_a, zero_point_b, a, b, output, subtract=not usual and draw(st.booleans()))
    return Case(op, (draw(activations(shape_a)), draw(activations(shape_b))))


def _raised(scaling: Scaling, zero_point: int, rounding: Rounding, limit: int) -> tuple[Multiplier, int]:
    bound = largest_distance(zero_point) << LEFT_SHIFT
    pair = scaling.pick(bound, bound, rounding, limit)
    return pair, requantized_bound(bound, *pair, rounding, "")
