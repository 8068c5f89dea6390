"""Cases of mul."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, broadcast_pairs, requantizations, smallness, zero_points
from refsim.numerics import largest_distance
from refsim.ops.mul import Mul


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """All patterns of broadcasting."""
    a_zero_point, b_zero_point, small = draw(zero_points()), draw(zero_points()), draw(smallness())
    bound = largest_distance(a_zero_point) * largest_distance(b_zero_point)
    op = Mul(a_zero_point, b_zero_point, draw(requantizations([bound], [bound // 3], small=small)))
    near = (a_zero_point, b_zero_point) if small else (None, None)
    pairs = zip(draw(broadcast_pairs()), near, strict=True)
    return Case(op, tuple(draw(activations(shape, zero_point)) for shape, zero_point in pairs))
