"""Cases of transpose."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, shapes
from refsim.ops.transpose import Transpose


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any permutation of up to six axes."""
    shape = draw(shapes())
    permutation = draw(st.permutations(range(len(shape))))
    return Case(Transpose(tuple(permutation)), (draw(activations(shape)),))
