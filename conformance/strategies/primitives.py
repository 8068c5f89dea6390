"""Cases of the primitives: arguments by the thousand, drawn from a seed, all of them legal."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.primitives import Primitive, functions, rows_of
from conformance.strategies.base import Case
from conformance.strategies.layernorm import LARGE_DIGITS
from refsim.ops.layernorm import LARGEST_EPSILON, LONGEST_ROW, MOST_SCALE_BITS
from refsim.ops.softmax import smallest_difference

ROWS = 1000
"""Arguments of a case. The first are few enough to shrink to."""

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
Words = NDArray[np.int64]

RARE_DIVISORS = (
    *LARGE_DIGITS,
    *(2130715151, 2147361202, 1598055639, 1985360602, 1455044210, 1851325784, 2081423108, 1663493196, 1467344435),
)
"""Of `divide_2_61`: with these a digit is at first too large by much, or what is left is just where it is corrected."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One of the functions, on `ROWS` arguments or, for what differs, fewer."""
    function = draw(st.sampled_from(list(functions())))
    arguments = ARGUMENTS[function](Drawing(draw(st.integers(0, 2**32 - 1))))
    count = draw(st.sampled_from((1, 10, 100, *(ROWS,) * 29)))
    first = draw(st.integers(0, ROWS - 1))
    return Case(Primitive(function), (rows_of(np.roll(arguments, -first, axis=0)[:count]),))


class Drawing:
    """Numbers where faults hide: ends, powers of two and their neighbours, of any magnitude, evenly spread.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def numbers(self, low: int | Words, high: int | Words) -> Words:
        """`ROWS` integers, low <= high of each at most 2^62 apart."""
        low, high = np.broadcast_to(low, ROWS), np.broadcast_to(high, ROWS)
        power = np.int64(1) << self.random.integers(0, 63, ROWS)
        sign = self.random.choice((-1, 1), ROWS)
        kinds = (
            np.where(self.random.random(ROWS) < 0.5, low, high) + self.random.integers(-2, 3, ROWS),
            sign * (power + self.random.integers(-1, 2, ROWS)),
            sign * self.random.integers(0, power, endpoint=True),
            self.random.integers(low, high, endpoint=True),
        )
        drawn = np.choose(self.random.integers(0, len(kinds), ROWS), kinds)
        # What is outside becomes anything inside, and not the end of it, which is drawn often enough.
        return np.where((low <= drawn) & (drawn <= high), drawn, kinds[-1])

    def words(self, *ranges: tuple[int | Words, int | Words]) -> Words:
        """Arguments (ROWS, words), each word within its range."""
        return np.stack([self.numbers(*limits) for limits in ranges], axis=1)

    def packed(self, bits: int = 8) -> Words:
        """Words of bytes or halves, each a number of its own."""
        half = 1 << (bits - 1)
        parts = [self.numbers(-half, half - 1) & (2 * half - 1) for _ in range(0, 32, bits)]
        return sum((part << bits * at for at, part in enumerate(parts)), start=np.zeros(ROWS, np.int64))


def _any(words: int) -> Callable[[Drawing], Words]:
    return lambda d: d.words(*[(INT32_MIN, INT32_MAX)] * words)


def _bytes(words: int) -> Callable[[Drawing], Words]:
    return lambda d: np.stack([d.packed() for _ in range(words)], axis=1)


def _long(values: Words) -> Words:
    """64-bit numbers as two words, the high one first."""
    return np.stack([values >> 32, values], axis=1)


def _clamp(d: Drawing) -> Words:
    low, high = np.sort(d.words((INT32_MIN, INT32_MAX), (INT32_MIN, INT32_MAX)), axis=1).T
    return np.stack([d.numbers(np.maximum(low - 2, INT32_MIN), np.minimum(high + 2, INT32_MAX)), low, high], axis=1)


def _srdhm(d: Drawing) -> Words:
    drawn = _any(2)(d)
    drawn[(drawn == INT32_MIN).all(axis=1)] = INT32_MAX  # no kernel multiplies these, see numerics.h
    return drawn


def _stages(d: Drawing, shifts: tuple[int, int], least: int = 2**29) -> tuple[Words, ...]:
    """Accumulators, multipliers, shifts, zero points, roundings: legal (section 4), half at a step of the output."""
    rounding = d.numbers(0, 1)
    multiplier = d.numbers(np.maximum(2 ** (30 - rounding), least), INT32_MAX)
    shift = d.numbers(*shifts)
    bound = np.minimum((2**30 - 1 << np.minimum(31 - shift, 32)) // multiplier, INT32_MAX)
    bound = np.where(rounding == 1, np.minimum(bound, INT32_MAX >> np.maximum(shift, 0)), bound)
    steps = d.numbers(-600, 600) / 2  # of the output; halves are where it changes
    near = np.rint(np.clip(steps / multiplier * 2.0 ** (31 - shift), -(2.0**32), 2.0**32)).astype(np.int64)
    near = np.clip(near + d.numbers(-2, 2), -bound, bound)
    accumulator = np.where(d.random.random(ROWS) < 0.5, near, d.numbers(-bound, bound))
    return accumulator, multiplier, shift, d.numbers(-128, 127), rounding


def _requantize_value(d: Drawing) -> Words:
    accumulator, multiplier, shift, _, rounding = _stages(d, (-31, 30))
    return np.stack([accumulator, multiplier, shift, rounding], axis=1)


def _requantize_to_int8(d: Drawing) -> Words:
    accumulator, multiplier, shift, zero_point, rounding = _stages(d, (-31, 30))
    low, high = np.sort(d.words((-128, 127), (-128, 127)), axis=1).T
    whole = d.random.random(ROWS) < 0.5
    low, high = np.where(whole, -128, low), np.where(whole, 127, high)
    return np.stack([accumulator, multiplier, shift, rounding, zero_point, low, high], axis=1)


def _quick_step(d: Drawing) -> Words:
    accumulator, multiplier, shift, zero_point, rounding = _stages(d, (-23, -2), least=2**30)
    shift = np.where((rounding == 1) & (d.random.random(ROWS) < 0.1), -1, shift)
    return np.stack([accumulator, multiplier, shift, zero_point, rounding], axis=1)


def _isqrt(d: Drawing) -> Words:
    """Squares, what lies just below the next, and anything."""
    root = d.numbers(0, 2**32 - 1).view(np.uint64)
    more = np.choose(d.random.integers(0, 5, ROWS), (root * 0, root, 2 * root, 2 * root + 1, root * 0 - 1))
    anything = (2 * d.numbers(-(2**62), 2**62 - 1) + d.numbers(0, 1)).view(np.uint64)
    return _long(np.where(d.random.random(ROWS) < 0.7, root * root + more, anything).view(np.int64))


def _divide_2_61(d: Drawing) -> Words:
    rare = d.random.random((ROWS, 1)) < 0.1
    return np.where(rare, d.random.choice(RARE_DIVISORS, (ROWS, 1)), d.words((2**30, INT32_MAX)))


def _normalise(d: Drawing) -> Words:
    """Rows of two different elements, one of them many times; half of the time the other is alone, and h large."""
    alone = d.random.random(ROWS) < 0.5
    count = np.where(alone, d.random.integers(LONGEST_ROW // 8, LONGEST_ROW, ROWS), d.numbers(1, LONGEST_ROW))
    ones = np.where(alone, 1, d.numbers(1, count))
    x, other = d.words((-128, 127), (-128, 127)).T
    total, squares = ones * x + (count - ones) * other, ones * x * x + (count - ones) * other * other
    epsilon = np.where(alone, 0, d.numbers(0, 1) * d.numbers(0, LARGEST_EPSILON))
    bits = np.where(alone, MOST_SCALE_BITS, d.numbers(0, MOST_SCALE_BITS))
    return np.stack([x, total, squares, count, bits, epsilon, epsilon >> 32], axis=1)


def _softmax_exponential(d: Drawing) -> Words:
    shift = d.numbers(1, 31)
    least = np.array([smallest_difference(int(s)) for s in shift])
    distance = d.numbers(0, np.minimum(255, 2 - least))
    return np.stack([distance, d.numbers(2**30, INT32_MAX), shift, least], axis=1)


def _sum_of(product: Callable[[Words, Words], Words]) -> Callable[[Drawing], Words]:
    """Two factors, and what may be added to a function of their product without leaving int32."""

    def draw(d: Drawing) -> Words:
        a, b = _any(2)(d).T
        return np.stack([a, b, _addend(d, product(a, b))], axis=1)

    return draw


def _addend(d: Drawing, *terms: Words) -> Words:
    """A number to which the terms can be added, one after the other."""
    sums = np.cumsum([np.zeros(ROWS, np.int64), *terms], axis=0)
    return d.numbers(INT32_MIN - sums.min(axis=0), INT32_MAX - sums.max(axis=0))


def _smlad(d: Drawing) -> Words:
    a, b = d.packed(16), d.packed(16)
    low, high = ((x << 48 >> 48) * (y << 48 >> 48) for x, y in ((a, b), (a >> 16, b >> 16)))
    return np.stack([a, b, _addend(d, low, high)], axis=1)


def _pair_plus(d: Drawing) -> Words:
    return np.stack([d.packed(16), d.packed()], axis=1)


def _byte(d: Drawing) -> Words:
    return np.stack([d.packed(), d.numbers(0, 3)], axis=1)


def _byte_plus(d: Drawing) -> Words:
    word, index = _byte(d).T
    return np.stack([d.numbers(INT32_MIN + 128, INT32_MAX - 127), word, index], axis=1)


ARGUMENTS: dict[str, Callable[[Drawing], Words]] = {
    "clamp": _clamp,
    "sat16": lambda d: d.words((-(2**17), 2**17)),
    "sat32": lambda d: _long(d.numbers(-(2**34), 2**34)),
    "srdhm": _srdhm,
    "rdbpot": lambda d: d.words((INT32_MIN, INT32_MAX), (0, 31)),
    "rdbpot_unsigned": lambda d: d.words((0, INT32_MAX), (1, 31)),
    "multiply_high": lambda d: d.words((INT32_MIN, INT32_MAX), (0, INT32_MAX), (1, 30)),
    "requantize_value": _requantize_value,
    "requantize_to_int8": _requantize_to_int8,
    "leading_zeros": _any(1),
    "leading_zeros64": lambda d: _long(d.numbers(-(2**62), 2**62) << d.numbers(0, 1)),
    "isqrt": _isqrt,
    "divide_2_61": _divide_2_61,
    "exp_negative": lambda d: d.words((INT32_MIN, 0)),
    "normalise": _normalise,
    "softmax_exponential": _softmax_exponential,
    "reciprocal": lambda d: d.words((0, INT32_MAX)),
    "window_first": lambda d: d.words((-(2**12), 2**12), (1, 40)),
    "window_end": lambda d: d.words((-40, 80), (1, 9), (1, 20), (1, 70)),
    "load4": _bytes(1),
    "store4": _bytes(1),
    "even_pair": _bytes(1),
    "odd_pair": _bytes(1),
    "even_pair_plus": _pair_plus,
    "odd_pair_plus": _pair_plus,
    "low_halves": _any(2),
    "high_halves": _any(2),
    "smlad": _smlad,
    "smmla": _sum_of(lambda a, b: a * b >> 32),
    "smmlar": _sum_of(lambda a, b: a * b + 2**31 >> 32),
    "max4": _bytes(2),
    "min4": _bytes(2),
    "clamp4": _bytes(3),
    "pack4": _any(4),
    "byte": _byte,
    "byte_plus": _byte_plus,
    "repeat4": lambda d: d.words((-128, 127)),
    "ssat8": lambda d: d.words((-(2**9), 2**9)),
    "ssat16": lambda d: d.words((-(2**17), 2**17)),
    "qadd": _any(2),
    "usat8_pair": lambda d: d.packed(16)[:, None],
    "is_quick": lambda d: d.words((-31, 30), (0, 1)),
    "quick_step": _quick_step,
}
"""Function -> what draws its arguments."""
