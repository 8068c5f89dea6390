"""Cases of reshape."""

import math

from hypothesis import strategies as st

from conformance.strategies.base import MOST_AXES, Case, activations, shapes
from refsim.ops.reshape import Reshape
from refsim.tensor import Shape


def _regrouped(factors: Shape, cuts: list[int]) -> Shape:
    """The same elements in other axes: runs of factors between the cuts are multiplied."""
    ends = sorted(cut % (len(factors) + 1) for cut in cuts)
    return tuple(math.prod(factors[a:b]) for a, b in zip([0, *ends], [*ends, len(factors)], strict=True))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any two shapes of one size."""
    factors = draw(shapes())
    cuts = st.lists(st.integers(0, MOST_AXES), max_size=MOST_AXES - 1)
    return Case(Reshape(_regrouped(factors, draw(cuts))), (draw(activations(factors)),))
