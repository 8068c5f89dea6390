"""Cases of requantize."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, requantizations, shapes, zero_points
from refsim.numerics import largest_distance
from refsim.ops.requantize import Requantize


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any shape; every byte, and more elements than there are bytes."""
    zero_point = draw(zero_points())
    bound = largest_distance(zero_point)
    op = Requantize(zero_point, draw(requantizations([bound], [bound])))
    return Case(op, (draw(activations(draw(st.one_of(shapes(), st.sampled_from(((256,), (457,))))))),))
