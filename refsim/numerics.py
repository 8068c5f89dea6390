"""The primitives of the numerics contract (docs/numerics.md, section 2), each defined once.

The compiled ones run inside the operators' loop nests; Numba keeps every integer in the width that the explicit casts
name. The others run once, when a graph is built.
"""

import math
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refsim.compiled import compiled
from refsim.errors import QuantizationError

Int8Array = NDArray[np.int8]
Int16Array = NDArray[np.int16]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Integer = int | np.signedinteger[Any]
"""What a compiled function takes for a scalar: Python's own integer or any of NumPy's."""

INT32_MAX = 2**31 - 1
REQUANTIZED_MAX = 2**30
"""Largest magnitude of a requantised value before its zero point is added (section 4)."""


class Rounding(IntEnum):
    """How `requantize` rounds: once, ties up (ours), or twice (TensorFlow Lite's reference convolution, CMSIS-NN)."""

    SINGLE = 0
    DOUBLE = 1


@compiled(inline=True)
def srdhm(a: Integer, b: Integer) -> np.int64:
    """Saturating rounding doubling high multiply of two int32: a * b / 2^31 to nearest, within int32's range."""
    product = np.int64(a) * np.int64(b)
    if product >= np.int64(0):
        # Only -2^31 * -2^31 gives 2^31, which saturates.
        return min((product + np.int64(2**30)) >> np.int64(31), np.int64(2**31 - 1))
    # Truncating division of a negative number: the shift floors, so shift the magnitude.
    return -((-(product + np.int64(1 - 2**30))) >> np.int64(31))


@compiled(inline=True)
def rdbpot(v: Integer, n: Integer) -> np.int64:
    """Rounding divide by 2^n (0 <= n <= 31), ties away from zero."""
    half = (np.int64(1) << np.int64(n)) >> np.int64(1)
    if v >= 0:
        return (np.int64(v) + half) >> np.int64(n)
    return -((half - np.int64(v)) >> np.int64(n))


@compiled(inline=True)
def requantize(v: Integer, multiplier: Integer, shift: Integer, rounding: int) -> np.int64:
    """Scale the int32 accumulator v by multiplier * 2^(shift - 31); `rounding` is a `Rounding`."""
    if rounding == 0:
        t = np.int64(31) - np.int64(shift)
        return (np.int64(v) * np.int64(multiplier) + (np.int64(1) << (t - np.int64(1)))) >> t
    left = np.int64(max(shift, 0))
    right = np.int64(max(-shift, 0))
    return rdbpot(srdhm(np.int64(v) << left, np.int64(multiplier)), right)


@compiled(inline=True)
def clamp(v: Integer, low: Integer, high: Integer) -> np.int64:
    """The nearest value to v within [low, high]."""
    return min(max(np.int64(v), np.int64(low)), np.int64(high))


class Stage(NamedTuple):
    """An operator's last step as the compiled loops take it; see `refsim.ops.base.Requantization`.

    Attributes:
        multiplier, shift: int32 (channels,).
        rounding: a `Rounding`.
        zero_point, act_min, act_max: of the output.
    """

    multiplier: Int32Array
    shift: Int32Array
    rounding: int
    zero_point: int
    act_min: int
    act_max: int


@compiled(inline=True)
def finish(acc: Integer, multiplier: Integer, shift: Integer, stage: Stage) -> np.int8:
    """Requantise one accumulator: clamp(requant(acc, M, s, rounding) + zero_point, act_min, act_max)."""
    scaled = requantize(acc, multiplier, shift, stage.rounding)
    return np.int8(clamp(scaled + np.int64(stage.zero_point), stage.act_min, stage.act_max))


@compiled()
def finish_rows(acc: Int32Array, stage: Stage, y: Int8Array) -> None:
    """Requantise rows: y[j, o] from acc[j, o] with the multiplier of channel o; acc may be larger than y."""
    for j in range(y.shape[0]):
        if stage.rounding == 0:  # the branch stands outside the loop so that each loop compiles to vector code
            for o in range(y.shape[1]):
                scaled = requantize(acc[j, o], stage.multiplier[o], stage.shift[o], 0)
                y[j, o] = np.int8(clamp(scaled + np.int64(stage.zero_point), stage.act_min, stage.act_max))
        else:
            for o in range(y.shape[1]):
                scaled = requantize(acc[j, o], stage.multiplier[o], stage.shift[o], 1)
                y[j, o] = np.int8(clamp(scaled + np.int64(stage.zero_point), stage.act_min, stage.act_max))


ROW_BLOCK = 4
"""Rows of taps whose weighted sums are taken together, so that each weight is loaded once for all of them."""
CHANNEL_BLOCK = 4
"""Output channels that are taken together in sums along the taps."""
VECTOR = 16
"""int32 in a vector."""


class Weight(NamedTuple):
    """Weights as `accumulate` takes them: in rows to sum along the taps, or in columns to sum along the channels.

    The same sums in another order of loops: along the taps is quicker, but for few taps and many channels. Zeros fill
    lengths up to whole blocks, so that the loops compile to whole vectors.

    Attributes:
        rows: int8 or int16 (O, K); empty where columns are used.
        columns: int32 (K, O); empty where rows are used.
        bias: int32 (O,).
    """

    rows: Int8Array | Int16Array
    columns: Int32Array
    bias: Int32Array


@compiled(inline=True)
def prefers_columns(taps: int, channels: int) -> bool:
    """Whether sums along the channels are quicker."""
    return taps <= 2 * VECTOR and channels >= 3 * VECTOR


@compiled(inline=True)
def padded_length(length: int, block: int) -> int:
    """`length` rounded up to a multiple of `block`."""
    return (length + block - 1) // block * block


def arrange_weight(weight: Int8Array, bias: Int32Array) -> Weight:
    """Weights (O, K) and bias (O,) for `accumulate`."""
    channels, taps = weight.shape
    by_columns = prefers_columns(taps, channels)
    padded = np.zeros(
        (padded_length(channels, VECTOR if by_columns else CHANNEL_BLOCK), padded_length(taps, VECTOR)), np.int8
    )
    padded[:channels, :taps] = weight
    padded_bias = np.zeros(padded.shape[0], np.int32)
    padded_bias[:channels] = bias
    if by_columns:
        return Weight(np.empty((0, padded.shape[1]), np.int8), np.ascontiguousarray(padded.T, np.int32), padded_bias)
    return Weight(padded, np.empty((0, padded.shape[0]), np.int32), padded_bias)


@compiled()
def accumulate(taps: Int16Array, weight: Weight, acc: Int32Array) -> None:
    """acc[r, o] = bias[o] + sum over k of taps[r, k] * weight[o, k].

    Args:
        taps: int16 (R, K), R a multiple of ROW_BLOCK, K of VECTOR.
        weight: of K taps and O channels.
        acc: int32 (R, O) to fill.
    """
    if weight.columns.shape[0] > 0:
        _accumulate_along_channels(taps, weight.columns, weight.bias, acc)
    else:
        _accumulate_along_taps(taps, weight.rows, weight.bias, acc)


@compiled()
def _accumulate_along_taps(taps: Int16Array, rows: Int8Array | Int16Array, bias: Int32Array, acc: Int32Array) -> None:
    for r in range(0, taps.shape[0], 4):
        for o in range(0, rows.shape[0], 4):
            a0 = b0 = c0 = d0 = np.int32(bias[o])
            a1 = b1 = c1 = d1 = np.int32(bias[o + 1])
            a2 = b2 = c2 = d2 = np.int32(bias[o + 2])
            a3 = b3 = c3 = d3 = np.int32(bias[o + 3])
            for k in range(rows.shape[1]):
                w0, w1 = np.int32(rows[o, k]), np.int32(rows[o + 1, k])
                w2, w3 = np.int32(rows[o + 2, k]), np.int32(rows[o + 3, k])
                t = np.int32(taps[r, k])
                a0, a1 = np.int32(a0 + np.int32(t * w0)), np.int32(a1 + np.int32(t * w1))
                a2, a3 = np.int32(a2 + np.int32(t * w2)), np.int32(a3 + np.int32(t * w3))
                t = np.int32(taps[r + 1, k])
                b0, b1 = np.int32(b0 + np.int32(t * w0)), np.int32(b1 + np.int32(t * w1))
                b2, b3 = np.int32(b2 + np.int32(t * w2)), np.int32(b3 + np.int32(t * w3))
                t = np.int32(taps[r + 2, k])
                c0, c1 = np.int32(c0 + np.int32(t * w0)), np.int32(c1 + np.int32(t * w1))
                c2, c3 = np.int32(c2 + np.int32(t * w2)), np.int32(c3 + np.int32(t * w3))
                t = np.int32(taps[r + 3, k])
                d0, d1 = np.int32(d0 + np.int32(t * w0)), np.int32(d1 + np.int32(t * w1))
                d2, d3 = np.int32(d2 + np.int32(t * w2)), np.int32(d3 + np.int32(t * w3))
            acc[r, o], acc[r, o + 1], acc[r, o + 2], acc[r, o + 3] = a0, a1, a2, a3
            acc[r + 1, o], acc[r + 1, o + 1], acc[r + 1, o + 2], acc[r + 1, o + 3] = b0, b1, b2, b3
            acc[r + 2, o], acc[r + 2, o + 1], acc[r + 2, o + 2], acc[r + 2, o + 3] = c0, c1, c2, c3
            acc[r + 3, o], acc[r + 3, o + 1], acc[r + 3, o + 2], acc[r + 3, o + 3] = d0, d1, d2, d3


@compiled()
def _accumulate_along_channels(taps: Int16Array, columns: Int32Array, bias: Int32Array, acc: Int32Array) -> None:
    for r in range(0, taps.shape[0], 4):
        acc0, acc1, acc2, acc3 = acc[r], acc[r + 1], acc[r + 2], acc[r + 3]
        for o in range(bias.size):
            acc0[o] = acc1[o] = acc2[o] = acc3[o] = bias[o]
        for k in range(0, taps.shape[1], 4):
            a0, a1, a2, a3 = _four_taps(taps, r, k)
            b0, b1, b2, b3 = _four_taps(taps, r + 1, k)
            c0, c1, c2, c3 = _four_taps(taps, r + 2, k)
            d0, d1, d2, d3 = _four_taps(taps, r + 3, k)
            column0, column1, column2, column3 = columns[k], columns[k + 1], columns[k + 2], columns[k + 3]
            for o in range(bias.size):
                w0, w1, w2, w3 = column0[o], column1[o], column2[o], column3[o]
                acc0[o] += np.int32(np.int32(a0 * w0 + a1 * w1) + np.int32(a2 * w2 + a3 * w3))
                acc1[o] += np.int32(np.int32(b0 * w0 + b1 * w1) + np.int32(b2 * w2 + b3 * w3))
                acc2[o] += np.int32(np.int32(c0 * w0 + c1 * w1) + np.int32(c2 * w2 + c3 * w3))
                acc3[o] += np.int32(np.int32(d0 * w0 + d1 * w1) + np.int32(d2 * w2 + d3 * w3))


@compiled(inline=True)
def _four_taps(taps: Int16Array, r: int, k: int) -> tuple[np.int32, np.int32, np.int32, np.int32]:
    return np.int32(taps[r, k]), np.int32(taps[r, k + 1]), np.int32(taps[r, k + 2]), np.int32(taps[r, k + 3])


@compiled()
def remove_zero_point(x: Int8Array, zero_point: int, centred: Int16Array | Int32Array) -> None:
    """centred[j, i] = x[j, i] - zero_point over x; centred may be larger."""
    for j in range(x.shape[0]):
        for i in range(x.shape[1]):
            centred[j, i] = np.int16(np.int16(x[j, i]) - np.int16(zero_point))


@compiled()
def isqrt(v: Int64Array, root: Int64Array) -> None:
    """root[i] = floor of the square root of v[i], 0 <= v[i] < 2^62, exactly (bit by bit, no floating point)."""
    remainder = v.copy()
    root[:] = np.int64(0)
    for position in range(60, -1, -2):
        bit = np.int64(1) << np.int64(position)
        for i in range(v.size):
            trial = root[i] + bit
            fits = remainder[i] >= trial
            remainder[i] -= trial if fits else np.int64(0)
            root[i] = (root[i] >> np.int64(1)) + (bit if fits else np.int64(0))


@compiled()
def floor_log2(v: Integer) -> np.int64:
    """Position of the highest set bit of v, v >= 1."""
    position = np.int64(0)
    rest = np.int64(v)
    for step in (32, 16, 8, 4, 2, 1):
        if rest >> np.int64(step) != np.int64(0):
            rest >>= np.int64(step)
            position += np.int64(step)
    return position


def round_half_away(x: float) -> int:
    """x rounded to the nearest integer, ties away from zero (a float64 of any finite size)."""
    magnitude = abs(x)
    whole = math.floor(magnitude)
    rounded = whole + (1 if magnitude - whole >= 0.5 else 0)
    return rounded if x >= 0 else -rounded


def round_half_away_array(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """`round_half_away` of every element."""
    magnitude = np.abs(x)
    whole = np.floor(magnitude)
    rounded: NDArray[np.int64] = (np.sign(x) * (whole + (magnitude - whole >= 0.5))).astype(np.int64)
    return rounded


class Multiplier(NamedTuple):
    """A real multiplier m >= 0 as integers: m = multiplier * 2^(shift - 31)."""

    multiplier: int
    shift: int


def quantize_multiplier(real: float) -> Multiplier:
    """Turn a real multiplier (float64) into integers (section 2).

    Raises:
        QuantizationError: `real` is negative, not finite, or so large that its shift would exceed 30.
    """
    if not math.isfinite(real) or real < 0:
        raise QuantizationError(f"a requantisation multiplier must be finite and not negative, found {real}")
    if real == 0:
        return Multiplier(0, 0)
    multiplier = normalise_multiplier(real)
    if multiplier.shift < -31:
        return Multiplier(0, 0)
    if multiplier.shift > 30:
        raise QuantizationError(f"requantisation multiplier {real:g} is too large: it must be below 2^30")
    return multiplier


def normalise_multiplier(real: float) -> Multiplier:
    """A positive real as multiplier * 2^(shift - 31), multiplier in [2^30, 2^31), whatever the shift."""
    fraction, shift = math.frexp(real)
    multiplier = round_half_away(fraction * 2.0**31)
    if multiplier == 2**31:
        return Multiplier(2**30, shift + 1)
    return Multiplier(multiplier, shift)


def check_multiplier(multiplier: Multiplier, what: str) -> None:
    """Check that an integer multiplier is one that `quantize_multiplier` gives.

    Raises:
        QuantizationError: naming `what` and the multiplier.
    """
    normal = 2**30 <= multiplier.multiplier < 2**31 and -31 <= multiplier.shift <= 30
    if not normal and multiplier != (0, 0):
        raise QuantizationError(
            f"{what}: a multiplier must be in [2^30, 2^31) with a shift in [-31, 30], or 0 with shift 0, "
            f"found {multiplier.multiplier} with {multiplier.shift}"
        )


def largest_distance(zero_point: int) -> int:
    """Largest |x - zero_point| over int8 x."""
    return max(127 - zero_point, 128 + zero_point)


def check_accumulator(bound: int, what: str) -> None:
    """Refuse an accumulator whose magnitude may exceed int32 (section 4).

    Raises:
        QuantizationError: naming `what` and the bound.
    """
    if bound > INT32_MAX:
        raise QuantizationError(f"{what}: the accumulator may reach {bound}, beyond int32 ({INT32_MAX})")


def requantized_bound(bound: int, multiplier: int, shift: int, rounding: Rounding, what: str) -> int:
    """Largest magnitude that requantising |v| <= bound can give, checked to be within 2^30 (section 4).

    Raises:
        QuantizationError: naming `what`, the bound and the multiplier.
    """
    if multiplier == 0:
        return 0
    t = 31 - shift
    if rounding is Rounding.SINGLE:
        result = (bound * multiplier + (1 << (t - 1))) >> t
    else:
        if bound << max(shift, 0) > INT32_MAX:
            raise QuantizationError(
                f"{what}: the accumulator may reach {bound}, which leaves int32 when shifted left by {shift} "
                "(double rounding)"
            )
        result = -(-(bound * multiplier) >> t) + 1
    if result > REQUANTIZED_MAX:
        raise QuantizationError(
            f"{what}: the requantised value may reach {result}, beyond {REQUANTIZED_MAX} "
            f"(accumulator bound {bound}, multiplier {multiplier} * 2^{shift - 31})"
        )
    return result
