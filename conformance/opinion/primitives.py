"""What each function of `conformance/primitives/primitives.c` is defined as, in Python's unbounded integers.

A function takes a row's words as int32 and gives an integer, of which the lowest 32 bits are meant.
"""

from collections.abc import Callable, Iterable
from math import isqrt

from conformance.opinion.definitions import INT32_MAX, INT32_MIN, clamp, expneg, rdbpot, reciprocal, requant, srdhm


def unsigned(*words: int) -> int:
    """One number of several words, the highest first."""
    value = 0
    for word in words:
        value = value * 2**32 + word % 2**32
    return value


def signed(value: int, bits: int) -> int:
    """The lowest bits of a number as a signed one."""
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


def parts(word: int, bits: int) -> list[int]:
    """A word's bytes (8) or halves (16), signed, the lowest first."""
    return [signed(word >> at, bits) for at in range(0, 32, bits)]


def joined(values: Iterable[int], bits: int) -> int:
    """The word with these bytes (8) or halves (16), the lowest first."""
    return sum(value % 2**bits << bits * at for at, value in enumerate(values))


def int8(value: int, zero_point: int = 0, low: int = -128, high: int = 127) -> int:
    """How an operator ends."""
    return clamp(value + zero_point, low, high)


def normalise(x: int, total: int, squares: int, count: int, scale_bits: int, low: int, high: int) -> int:
    """LayerNorm's h of an element before it is saturated (section 3), from the sums of its row and epsilon's words."""
    v = count * squares - total * total + unsigned(high, low)
    if v == 0:
        return 0
    p = (61 - (v.bit_length() - 1)) // 2
    r = 2**61 // isqrt(v << 2 * p if p >= 0 else v >> -2 * p)
    t = 61 - scale_bits - p
    return ((count * x - total) * r + (1 << (t - 1))) >> t


def exponential(distance: int, multiplier: int, shift: int, diff_min: int) -> int:
    """Softmax's E of a difference to the row's maximum; 0 where it does not count."""
    return 0 if -distance < diff_min else expneg(srdhm(-distance << shift, multiplier))


def inside(start: int, step: int, kernel: int, size: int) -> int:
    """How many of a window's positions lie before the end of an axis."""
    return clamp(-((start - size) // step), 0, kernel)


def smlad(a: int, b: int, acc: int) -> int:
    """Both halves' products, added."""
    return acc + sum(x * y for x, y in zip(parts(a, 16), parts(b, 16), strict=True))


def plus(add: int, pair: Iterable[int]) -> int:
    """Halves added, each on its own."""
    return joined((x + y for x, y in zip(parts(add, 16), pair, strict=True)), 16)


def each_byte(function: Callable[..., int], *words: int) -> int:
    """A function of each byte."""
    return joined(map(function, *(parts(word, 8) for word in words)), 8)


def same(word: int) -> int:
    """The word."""
    return word


DEFINITIONS: dict[str, Callable[..., int]] = {
    "clamp": clamp,
    "sat16": lambda v: clamp(v, -(2**15), 2**15 - 1),
    "sat32": lambda high, low: clamp(signed(unsigned(high, low), 64), INT32_MIN, INT32_MAX),
    "srdhm": srdhm,
    "rdbpot": rdbpot,
    "rdbpot_unsigned": rdbpot,
    "multiply_high": lambda v, m, n: (v * m + 2 ** (31 + n)) >> (32 + n),
    "requantize_value": requant,
    "requantize_to_int8": lambda v, m, s, rounding, *last: int8(requant(v, m, s, rounding), *last),
    "leading_zeros": lambda v: 32 - unsigned(v).bit_length(),
    "leading_zeros64": lambda high, low: 64 - unsigned(high, low).bit_length(),
    "isqrt": lambda high, low: isqrt(unsigned(high, low)),
    "divide_2_61": lambda s: 2**61 // s,
    "exp_negative": expneg,
    "normalise": normalise,
    "softmax_exponential": exponential,
    "reciprocal": reciprocal,
    "window_first": lambda start, step: max(0, -(start // step)),
    "window_end": inside,
    "load4": same,
    "store4": same,
    "even_pair": lambda word: joined(parts(word, 8)[::2], 16),
    "odd_pair": lambda word: joined(parts(word, 8)[1::2], 16),
    "even_pair_plus": lambda add, word: plus(add, parts(word, 8)[::2]),
    "odd_pair_plus": lambda add, word: plus(add, parts(word, 8)[1::2]),
    "low_halves": lambda a, b: joined((a, b), 16),
    "high_halves": lambda a, b: joined((parts(a, 16)[1], parts(b, 16)[1]), 16),
    "smlad": smlad,
    "smmla": lambda a, b, acc: (a * b >> 32) + acc,
    "smmlar": lambda a, b, acc: (a * b + 2**31 >> 32) + acc,
    "max4": lambda a, b: each_byte(max, a, b),
    "min4": lambda a, b: each_byte(min, a, b),
    "clamp4": lambda word, low, high: each_byte(clamp, word, low, high),
    "pack4": lambda *words: joined(words, 8),
    "byte": lambda word, index: parts(word, 8)[index],
    "byte_plus": lambda add, word, index: add + parts(word, 8)[index],
    "repeat4": lambda value: joined([value] * 4, 8),
    "ssat8": int8,
    "ssat16": lambda v: clamp(v, -(2**15), 2**15 - 1),
    "qadd": lambda a, b: clamp(a + b, INT32_MIN, INT32_MAX),
    "usat8_pair": lambda word: joined((clamp(half, 0, 255) for half in parts(word, 16)), 16),
    "is_quick": lambda shift, rounding: int(-23 <= shift <= -2 + rounding),
    "quick_step": lambda v, m, s, zero_point, rounding: int8(requant(v, m, s, rounding), zero_point),
}
"""Function -> its definition."""
