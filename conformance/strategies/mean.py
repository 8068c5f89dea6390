"""Cases of mean."""

import math
from dataclasses import replace

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, requantizations, shapes, zero_points
from refsim.numerics import Rounding, largest_distance
from refsim.ops.mean import Mean
from refsim.tensor import Shape


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any run of axes, all of them included; some have more rows than add up within 16 bits."""
    if draw(st.integers(0, 9)) == 9:
        shape: Shape = (draw(st.sampled_from((254, 255, 256, 300, 520))), draw(st.integers(4, 7)))
        first = last = 0
    else:
        shape = draw(shapes(1, size=900, most=12))
        first = draw(st.integers(0, len(shape) - 1))
        last = draw(st.integers(first, len(shape) - 1))
    zero_point = draw(zero_points())
    count = math.prod(shape[first : last + 1])
    bound = count * largest_distance(zero_point)
    # A sum of random bytes is small where the zero point is in their middle, and large where it is at an end.
    usual = draw(st.sampled_from((bound // math.isqrt(count), bound // 2)))
    output = draw(requantizations([bound], [usual]))
    if output.rounding is Rounding.DOUBLE and draw(st.booleans()):  # as a division by the count leaves it
        output = replace(output, multiplier=output.multiplier // 2)
    op = Mean(first, last, zero_point, output)
    return Case(op, (draw(activations(shape)),))
