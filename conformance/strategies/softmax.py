"""Cases of softmax."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, activations, lengths, often, shapes
from refsim.ops.softmax import LONGEST_ROW, Softmax, smallest_difference


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Rows up to the longest that is legal, often so many elements that all exponentials are computed first.

    Shifts are mostly around those of real scores (18 to 24).
    """
    real = st.integers(18, 24)
    shift = draw(st.one_of(real, real, often((1, 31), st.integers(1, 31))))
    multiplier = draw(often((2**30, 2**31 - 1), st.integers(2**30, 2**31 - 1)))
    row = draw(lengths(12, (13, 65, 513, 1100) * 3))
    if row == 1100 and draw(st.booleans()):
        row = LONGEST_ROW
    leading = draw(shapes(0, 4, size=max(1, min(12, 600 // row))))
    if draw(st.integers(0, 9)) > 6:  # short rows, mostly so many that all exponentials are computed first
        row = draw(st.integers(1, 15))
        leading = (min(draw(st.integers(1, 1500 // row)), 500 // row + 1),)
    return Case(Softmax(multiplier, shift, smallest_difference(shift)), (draw(activations((*leading, row))),))
