"""Cases of linear."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, lengths, shapes, smallness, weighted, zero_points
from refsim.ops.linear import Linear


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Rows of up to 1100 elements under any leading axes."""
    inputs, outputs = draw(lengths(9, (16, 67, 300, 1100))), draw(lengths(6, (9, 15, 33)))
    zero_point, small = draw(zero_points()), draw(smallness())
    weight, bias, output = draw(weighted((outputs, inputs), 0, zero_point, small))
    x = draw(activations((*draw(shapes(0, 5, size=20)), inputs), zero_point if small else None))
    return Case(Linear(weight, bias, zero_point, output), (x,))
