"""Cases of layernorm."""

import numpy as np
from hypothesis import strategies as st

from conformance.strategies.base import (
    Case,
    activations,
    arrays,
    biases,
    lengths,
    often,
    requantizations,
    shapes,
    spikes,
)
from refsim.numerics import INT32_MAX
from refsim.ops.layernorm import LARGEST_EPSILON, LONGEST_ROW, MOST_SCALE_BITS, LayerNorm


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Rows up to the longest that is legal; all scale bits, 0 and 7 often; epsilon from none to the largest."""
    row = draw(lengths(12, (13, 65, 700, 3000)))
    if row == 3000 and draw(st.integers(0, 3)) == 3:
        row = LONGEST_ROW
    gamma = draw(arrays((row,), -32767, 32767, np.int16))
    room = [INT32_MAX - 32768 * abs(int(g)) for g in gamma]
    scale_bits = draw(often((0, 7, MOST_SCALE_BITS), st.integers(0, MOST_SCALE_BITS)))
    # The bound is that of a saturated h; usually h is within some four deviations.
    usual = [min(abs(int(g)) << (scale_bits + 2), 2**30) for g in gamma]
    beta = draw(biases(room, usual))
    bounds = [32768 * abs(int(g)) + abs(int(b)) for g, b in zip(gamma, beta, strict=True)]
    bits = draw(st.integers(0, 62))
    epsilon = draw(often((0, 1, row * row, LARGEST_EPSILON), st.integers(0, min(2**bits, LARGEST_EPSILON))))
    output = draw(requantizations([max(bounds)], [max(usual) + int(np.abs(beta.astype(np.int64)).max())]))
    op = LayerNorm(gamma, beta, epsilon, output, scale_bits)
    leading = draw(shapes(0, 4, size=max(1, min(12, 600 // row))))
    shape = (*leading, row)
    # Only an element that stands alone is so many deviations from the mean that h saturates.
    return Case(op, (draw(st.one_of(activations(shape), activations(shape), spikes(shape))),))
