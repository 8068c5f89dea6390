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
def finish(acc: Integer, multiplier: Integer, shift: Integer, rounding: int, stage: Stage) -> np.int8:
    """Requantise one accumulator: clamp(requant(acc, M, s, rounding) + zero_point, act_min, act_max).

    Loops take `rounding` out of the stage and give it as a constant, so that each compiles to vector code.
    """
    scaled = np.int32(requantize(acc, multiplier, shift, rounding))  # within 2^30 (section 4), before the zero point
    value = np.int32(scaled + np.int32(stage.zero_point))
    return np.int8(min(max(value, np.int32(stage.act_min)), np.int32(stage.act_max)))


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
