"""The primitives of docs/numerics.md in Python's unbounded integers: slow, literal, apart from refsim and from C."""

from fractions import Fraction
from math import floor, isqrt

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
SINGLE, DOUBLE = 0, 1


def clamp(v: int, lo: int, hi: int) -> int:
    """The nearest value to v within [lo, hi]."""
    return min(max(v, lo), hi)


def truncating(a: int, b: int) -> int:
    """a / b towards zero."""
    return a // b if (a >= 0) == (b > 0) else -(-a // b)


def round_half_away(x: Fraction) -> int:
    """The nearest integer to x, ties away from zero."""
    return floor(x + Fraction(1, 2)) if x >= 0 else -floor(-x + Fraction(1, 2))


def nearest(v: int, d: int) -> int:
    """v / d rounded to nearest, ties away from zero; d > 0."""
    magnitude = (2 * abs(v) + d) // (2 * d)
    return magnitude if v >= 0 else -magnitude


def srdhm(a: int, b: int) -> int:
    """Saturating rounding doubling high multiply (section 2)."""
    if a == b == INT32_MIN:
        return INT32_MAX
    ab = a * b
    nudge = 2**30 if ab >= 0 else 1 - 2**30
    return truncating(ab + nudge, 2**31)


def rdbpot(v: int, n: int) -> int:
    """v / 2^n rounded to nearest, ties away from zero."""
    return nearest(v, 2**n)


def requant(v: int, multiplier: int, shift: int, rounding: int) -> int:
    """An accumulator scaled by multiplier * 2^(shift - 31), rounded once (0) or twice (1)."""
    if rounding == DOUBLE:
        return rdbpot(srdhm(v << max(shift, 0), multiplier), max(-shift, 0))
    t = 31 - shift
    return (v * multiplier + (1 << (t - 1))) >> t


def expneg(a: int) -> int:
    """e^a for a <= 0 in Q5.26, as Q0.31 (section 3, softmax)."""
    if a == 0:
        return INT32_MAX
    q = (a & (2**24 - 1)) - 2**24
    x = (q << 5) + 2**28
    x2 = srdhm(x, x)
    x3 = srdhm(x2, x)
    x4 = srdhm(x2, x2)
    u = rdbpot(srdhm(rdbpot(x4, 2) + x3, 715827883) + x2, 1)
    e = 1895147668 + srdhm(1895147668, x + u)
    rem = q - a
    constants = {24: 1672461947, 25: 1302514674, 26: 790015084, 27: 290630308, 28: 39332535, 29: 720401, 30: 242}
    for bit, c in constants.items():
        if rem & (1 << bit):
            e = srdhm(e, c)
    return e


def reciprocal(a: int) -> int:
    """1 / (1 + a) for a >= 0 in Q0.31, as Q0.31 (section 3, softmax)."""
    half = truncating(a + (2**31 - 1) + 1, 2)
    x = 1515870810 + srdhm(half, -1010580540)
    for _ in range(3):
        hx = srdhm(half, x)
        x += clamp(srdhm(x, 2**29 - hx) << 2, INT32_MIN, INT32_MAX)
    return clamp(x << 1, INT32_MIN, INT32_MAX)


def softmax_row(row: list[int], multiplier: int, shift: int, diff_min: int) -> list[int]:
    """Softmax of one row of bytes."""
    largest = max(row)
    known: dict[int, int] = {}
    for x in row:
        if x - largest not in known and x - largest >= diff_min:
            known[x - largest] = expneg(srdhm((x - largest) << shift, multiplier))
    total = sum(rdbpot(known[x - largest], 12) for x in row if x - largest >= diff_min)
    h = 32 - total.bit_length()
    r = reciprocal((total << h) - 2**31)
    shares = {d: clamp(rdbpot(srdhm(r, e), 12 - h + 23) - 128, -128, 127) for d, e in known.items()}
    return [shares.get(x - largest, -128) for x in row]


def layernorm_row(row: list[int], scale_bits: int, epsilon: int) -> list[int]:
    """The normalised h of one row, before gamma and beta."""
    c = len(row)
    s1, s2 = sum(row), sum(x * x for x in row)
    v = c * s2 - s1 * s1 + epsilon
    if v == 0:
        return [0] * c
    p = (61 - (v.bit_length() - 1)) // 2
    r = 2**61 // isqrt(v << 2 * p if p >= 0 else v >> -2 * p)
    t = 61 - scale_bits - p
    return [clamp(((c * x - s1) * r + 2 ** (t - 1)) >> t, -32768, 32767) for x in row]
