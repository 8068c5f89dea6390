"""Cases of slice."""

import math

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, shapes
from refsim.ops.slice import Slice


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any part of up to six axes, every step that fits."""
    sizes = draw(shapes(size=200))
    rest = st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 2))  # start, step, elements after the last
    shape: list[int] = []
    starts, steps = [], []
    for size in sizes:
        start, step, after = draw(rest) if math.prod(shape) < 500 else (0, 1, 0)
        starts.append(start)
        steps.append(step)
        shape.append(start + (size - 1) * step + 1 + after)
    return Case(Slice(tuple(starts), sizes, tuple(steps)), (draw(activations(tuple(shape))),))
