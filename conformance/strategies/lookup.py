"""Cases of lookup."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, arrays, shapes
from refsim.ops.lookup import Lookup


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any table, any shape."""
    op = Lookup(draw(arrays((256,), -128, 127)))
    return Case(op, (draw(activations(draw(st.one_of(shapes(), st.just((256,)))))),))
