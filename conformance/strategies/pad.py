"""Cases of pad."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, shapes, zero_points
from refsim.ops.pad import Pad


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any padding of up to six axes."""
    shape = draw(shapes(size=60))
    sides = st.tuples(*(st.integers(0, 2) for _ in shape))
    return Case(Pad(draw(sides), draw(sides), draw(zero_points())), (draw(activations(shape)),))
