"""Cases of matmul."""

import math

from hypothesis import strategies as st

from conformance.strategies.base import (
    Case,
    activations,
    lengths,
    narrowed,
    requantizations,
    shapes,
    smallness,
    zero_points,
)
from refsim.numerics import largest_distance
from refsim.ops.matmul import MatMul


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Products of up to 300 terms, both layouts of b, any leading axes."""
    rows, depth, columns = draw(lengths(5, (17,))), draw(lengths(9, (33, 300))), draw(lengths(6, (17,)))
    if draw(st.integers(0, 15)) == 15:  # so much that b is rearranged in parts
        depth, columns = 300, 17
    leading = draw(shapes(0, 4, most=3, size=6))
    a_zero_point, b_zero_point, small = draw(zero_points()), draw(zero_points()), draw(smallness())
    product = largest_distance(a_zero_point) * largest_distance(b_zero_point)
    # Random products cancel where the zero points are in the middle, and add up where they are at an end.
    usual = draw(st.sampled_from((math.isqrt(depth) * product // 2, depth * product // 4)))
    output = draw(narrowed(draw(requantizations([depth * product], [usual], small=small))))
    transpose_b = draw(st.booleans())
    op = MatMul(a_zero_point, b_zero_point, output, transpose_b)
    b_shape = (columns, depth) if transpose_b else (depth, columns)
    near = (a_zero_point, b_zero_point) if small else (None, None)
    pairs = zip(((rows, depth), b_shape), near, strict=True)
    return Case(op, tuple(draw(activations((*leading, *shape), zero_point)) for shape, zero_point in pairs))
