"""Cases of concat."""

import numpy as np
from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, roundings, scalings, shapes, zero_points
from refsim.numerics import Rounding, largest_distance
from refsim.ops.base import Requantization
from refsim.ops.concat import Concat
from refsim.ops.requantize import Requantize


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One to five inputs along any axis, each copied or requantised."""
    shape = draw(shapes(1, size=120))
    axis = draw(st.integers(0, len(shape) - 1))
    count = draw(st.integers(1, 5))
    rounding, zero_point = draw(roundings()), draw(zero_points())
    rescale = tuple(draw(st.one_of(st.none(), _rescales(rounding, zero_point))) for _ in range(count))
    parts = [(*shape[:axis], draw(st.integers(1, 5)), *shape[axis + 1 :]) for _ in range(count)]
    return Case(Concat(axis, rescale), tuple(draw(activations(part)) for part in parts))


@st.composite
def _rescales(draw: st.DrawFn, rounding: Rounding, output_zero_point: int) -> Requantize:
    zero_point = draw(zero_points())
    bound = largest_distance(zero_point)
    pair = draw(scalings()).pick(bound, bound, rounding)
    output = Requantization(
        np.array([pair.multiplier], np.int32), np.array([pair.shift], np.int32), output_zero_point, rounding=rounding
    )
    return Requantize(zero_point, output)
