"""Cases of mul."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, broadcast_pairs, requantizations, zero_points
from refsim.numerics import largest_distance
from refsim.ops.mul import Mul


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """All patterns of broadcasting."""
    a_zero_point, b_zero_point = draw(zero_points()), draw(zero_points())
    bound = largest_distance(a_zero_point) * largest_distance(b_zero_point)
    op = Mul(a_zero_point, b_zero_point, draw(requantizations([bound], [bound // 3])))
    a, b = draw(broadcast_pairs())
    return Case(op, (draw(activations(a)), draw(activations(b))))
