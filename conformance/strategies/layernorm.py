"""Cases of layernorm."""

import numpy as np
from hypothesis import strategies as st

from conformance.strategies.base import (
    NEAR,
    Case,
    activations,
    arrays,
    biases,
    lengths,
    often,
    requantizations,
    shapes,
    smallness,
    spikes,
)
from refsim.numerics import INT32_MAX, Int8Array, Int32Array
from refsim.ops.layernorm import LARGEST_EPSILON, LONGEST_ROW, MOST_SCALE_BITS, LayerNorm

LARGE_DIGITS = (1075054146, 1177837845, 1419583300, 2045246300)
"""Roots of which 2^61 / root, divided in digits of 16 bits, is at first given a last digit of 17: four of 11,264."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Rows up to the longest that is legal; all scale bits, 0 and 7 often; epsilon from none to the largest."""
    # Only what stands nearly alone is so many deviations from the mean that h saturates.
    alone = draw(st.integers(0, 2)) == 2
    row = draw(st.sampled_from((9, 65, 130, 700)) if alone else lengths(12, (13, 65, 700, LONGEST_ROW)))
    shape = (*draw(shapes(0, 4, size=max(1, min(12, 600 // row)))), row)
    x = draw(spikes(shape) if alone else activations(shape))
    small = not alone and draw(smallness())
    gamma = draw(arrays((row,), *((-NEAR, NEAR) if small else (-32767, 32767)), np.int16))
    gammas = np.abs(gamma.astype(np.int64))
    scales = often((0, 7, MOST_SCALE_BITS), st.integers(0, MOST_SCALE_BITS))
    scale_bits = MOST_SCALE_BITS if alone and draw(st.booleans()) else draw(st.integers(0, 2) if small else scales)
    bits = draw(st.integers(0, 62))
    epsilon = draw(often((0, 1, row * row, 2**32, LARGEST_EPSILON), st.integers(0, min(2**bits, LARGEST_EPSILON))))
    if draw(st.integers(0, 9)) == 9:
        epsilon = draw(_epsilons_of_large_digits(x.reshape(-1, row)[0]))
    if small:
        beta = draw(biases([8] * row, [8] * row))
        usual = 4 * NEAR << scale_bits
    elif draw(st.booleans()):
        # beta cancels the first row, so that the output shows the last bits of h.
        beta = -gamma.astype(np.int32) * _normalised(x.reshape(-1, row)[0], epsilon, scale_bits)
        usual = 32 * int(gammas.max())
    else:
        # The bound is that of a saturated h; usually h is within some four deviations.
        products = np.minimum(gammas << (scale_bits + 2), 2**30)
        beta = draw(biases([INT32_MAX - 32768 * int(g) for g in gammas], products.tolist()))
        usual = int(products.max()) + int(np.abs(beta.astype(np.int64)).max())
    bound = int((32768 * gammas + np.abs(beta.astype(np.int64))).max())
    output = draw(requantizations([bound], [usual], small=small))
    return Case(LayerNorm(gamma, beta, epsilon, output, scale_bits), (x,))


@st.composite
def _epsilons_of_large_digits(draw: st.DrawFn, x: Int8Array) -> int:
    """An epsilon with which the root of the first row's variance is one of `LARGE_DIGITS`."""
    wide = x.astype(np.int64)
    spread = x.size * int((wide * wide).sum()) - int(wide.sum()) ** 2
    square = draw(st.sampled_from(LARGE_DIGITS)) ** 2
    variance = -(-square >> 2 * draw(st.integers(0, 14)))
    return (variance if variance >= spread else square) - spread


def _normalised(x: Int8Array, epsilon: int, scale_bits: int) -> Int32Array:
    """About what LayerNorm makes of one row before gamma, in floating point; int32 in the range of int16."""
    centred = x.size * x.astype(np.float64) - x.sum(dtype=np.float64)
    variance = (centred * centred).sum() / x.size + epsilon
    h = np.round(centred / np.sqrt(max(variance, 1.0)) * 2.0**scale_bits)
    saturated: Int32Array = np.clip(h, -(2**15), 2**15 - 1).astype(np.int32)
    return saturated
