"""Cases of attention."""

import math

from hypothesis import strategies as st

from conformance.strategies.base import (
    Case,
    activations,
    lengths,
    often,
    requantizations,
    shapes,
    smallness,
    zero_points,
)
from refsim.numerics import largest_distance
from refsim.ops.attention import Attention
from refsim.ops.matmul import MatMul
from refsim.ops.softmax import OUTPUT_ZERO_POINT, Softmax, smallest_difference

_LARGE = ((5, 101), (9, 65), (11, 101), (17, 65), (30, 9), (60, 8), (100, 4), (4, 300), (2, 1100))
"""Queries and keys of which a tile holds only a part; more would cost emulated chips more than it shows."""

_SCORES = 2300
"""About how many scores a case has at most."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any queries, keys and values, in both layouts; in a fifth of the cases tiles hold a part of the rows."""
    if draw(st.sampled_from((False, False, False, False, True))):
        queries, keys = draw(st.sampled_from(_LARGE))
    else:
        queries, keys = draw(lengths(5)), draw(lengths(9))
    deeper = (keys + 1,) * 9 if keys < 9 else ()  # where keys come in fours, queries take a quad more than scores
    depth = draw(lengths(9, (33, *deeper)) if keys <= 101 else lengths(3))
    width = draw(often((depth,), lengths(6, (17,))))
    leading = draw(shapes(0, 4, most=3, size=max(1, min(6, _SCORES // (queries * keys)))))
    zero_point, small_scores, small_context = draw(zero_points()), draw(smallness()), draw(smallness())
    scores = draw(_products(depth, zero_point, small_scores))
    context = draw(_products(keys, OUTPUT_ZERO_POINT, small_context))
    real = st.integers(18, 24)
    shift = draw(st.one_of(real, real, often((1, 31), st.integers(1, 31))))
    multiplier = draw(often((2**30, 2**31 - 1), st.integers(2**30, 2**31 - 1)))
    op = Attention(scores, Softmax(multiplier, shift, smallest_difference(shift)), context)
    k = (keys, depth) if scores.transpose_b else (depth, keys)
    v = (width, keys) if context.transpose_b else (keys, width)
    near = (
        *((zero_point, scores.b_zero_point) if small_scores else (None, None)),
        context.b_zero_point if small_context else None,
    )
    pairs = zip(((queries, depth), k, v), near, strict=True)
    return Case(op, tuple(draw(activations((*leading, *shape), zero_point)) for shape, zero_point in pairs))


@st.composite
def _products(draw: st.DrawFn, terms: int, a_zero_point: int, small: bool) -> MatMul:
    """A legal matmul of so many products."""
    b_zero_point = draw(zero_points())
    product = largest_distance(a_zero_point) * largest_distance(b_zero_point)
    usual = draw(st.sampled_from((math.isqrt(terms) * product // 2, terms * product // 4)))
    output = draw(requantizations([terms * product], [usual], small=small))
    return MatMul(a_zero_point, b_zero_point, output, draw(st.booleans()))
