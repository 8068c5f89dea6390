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


@compiled()
def finish_columns(acc: Int32Array, stage: Stage, y: Int8Array) -> None:
    """Requantise columns: y[o, i] from acc[o, i] with the multiplier of channel o; acc may be larger than y."""
    for o in range(y.shape[0]):
        multiplier, shift = stage.multiplier[o], stage.shift[o]
        if stage.rounding == 0:
            for i in range(y.shape[1]):
                scaled = requantize(acc[o, i], multiplier, shift, 0)
                y[o, i] = np.int8(clamp(scaled + np.int64(stage.zero_point), stage.act_min, stage.act_max))
        else:
            for i in range(y.shape[1]):
                scaled = requantize(acc[o, i], multiplier, shift, 1)
                y[o, i] = np.int8(clamp(scaled + np.int64(stage.zero_point), stage.act_min, stage.act_max))


BLOCK = 4
"""Rows and terms that `accumulate` takes together, so that each number it loads serves several sums."""
LANES = 512
"""Columns that are computed together: enough for long vector loops, few enough to stay in a core's cache."""


@compiled(inline=True)
def padded_length(length: int, block: int) -> int:
    """`length` rounded up to a multiple of `block`."""
    return (length + block - 1) // block * block


def pad_blocks(matrix: Int8Array) -> Int16Array:
    """A matrix as int16, with zeros up to whole blocks of rows and columns, as `accumulate` takes it."""
    rows, columns = matrix.shape
    padded = np.zeros((padded_length(rows, BLOCK), padded_length(columns, BLOCK)), np.int16)
    padded[:rows, :columns] = matrix
    return padded


@compiled()
def accumulate(left: Int16Array, right: Int32Array, offsets: Int64Array, acc: Int32Array) -> None:
    """acc[r, i] += sum over k of left[r, k] * right[offsets[k] + i]: the product of two matrices.

    Args:
        left: int16 (R, K); R and K are multiples of BLOCK.
        right: int32, the rows of the right matrix, each somewhere in it; they may overlap.
        offsets: int64 (K,): where each row begins.
        acc: int32 (R, I) to add to.
    """
    columns = acc.shape[1]
    for r in range(0, left.shape[0], 4):
        acc0, acc1, acc2, acc3 = acc[r], acc[r + 1], acc[r + 2], acc[r + 3]
        for k in range(0, left.shape[1], 4):
            a0, a1, a2, a3 = _four(left, r, k)
            b0, b1, b2, b3 = _four(left, r + 1, k)
            c0, c1, c2, c3 = _four(left, r + 2, k)
            d0, d1, d2, d3 = _four(left, r + 3, k)
            right0, right1 = right[offsets[k] :][:columns], right[offsets[k + 1] :][:columns]
            right2, right3 = right[offsets[k + 2] :][:columns], right[offsets[k + 3] :][:columns]
            for i in range(columns):
                x0, x1, x2, x3 = right0[i], right1[i], right2[i], right3[i]
                acc0[i] += np.int32(np.int32(a0 * x0 + a1 * x1) + np.int32(a2 * x2 + a3 * x3))
                acc1[i] += np.int32(np.int32(b0 * x0 + b1 * x1) + np.int32(b2 * x2 + b3 * x3))
                acc2[i] += np.int32(np.int32(c0 * x0 + c1 * x1) + np.int32(c2 * x2 + c3 * x3))
                acc3[i] += np.int32(np.int32(d0 * x0 + d1 * x1) + np.int32(d2 * x2 + d3 * x3))


@compiled(inline=True)
def _four(matrix: Int16Array, r: int, k: int) -> tuple[np.int32, np.int32, np.int32, np.int32]:
    return np.int32(matrix[r, k]), np.int32(matrix[r, k + 1]), np.int32(matrix[r, k + 2]), np.int32(matrix[r, k + 3])


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


def check_multiplier(multiplier: Multiplier, what: str, rounding: Rounding = Rounding.SINGLE) -> None:
    """Check that an integer multiplier is one that `quantize_multiplier` gives.

    With double rounding it may be half of that: TensorFlow Lite divides a mean's by the number of elements.

    Raises:
        QuantizationError: naming `what` and the multiplier.
    """
    lowest = 30 if rounding is Rounding.SINGLE else 29
    normal = 2**lowest <= multiplier.multiplier < 2**31 and -31 <= multiplier.shift <= 30
    if not normal and multiplier != (0, 0):
        raise QuantizationError(
            f"{what}: a multiplier must be in [2^{lowest}, 2^31) with a shift in [-31, 30], or 0 with shift 0, "
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
