"""The primitives of docs/numerics.md once more, in Python's unbounded integers and as literally as they are written."""

from fractions import Fraction
from math import floor


def srdhm(a: int, b: int) -> int:
    if a == b == -(2**31):
        return 2**31 - 1
    ab = a * b
    nudge = 2**30 if ab >= 0 else 1 - 2**30
    total = ab + nudge
    return abs(total) // 2**31 * (1 if total >= 0 else -1)


def round_half_away(x: Fraction) -> int:
    return floor(x + Fraction(1, 2)) if x >= 0 else -floor(-x + Fraction(1, 2))


def rdbpot(v: int, n: int) -> int:
    return round_half_away(Fraction(v, 2**n))


def requantize(v: int, multiplier: int, shift: int, rounding: int) -> int:
    if rounding == 0:
        return floor(Fraction(v * multiplier, 2 ** (31 - shift)) + Fraction(1, 2))
    return rdbpot(srdhm(v * 2 ** max(shift, 0), multiplier), max(-shift, 0))


def finish(acc: int, stage, channel: int = 0) -> int:
    """An operator's last step from a `Requantization`."""
    index = channel if stage.multiplier.size > 1 else 0
    scaled = requantize(acc, int(stage.multiplier[index]), int(stage.shift[index]), int(stage.rounding))
    return min(max(scaled + stage.zero_point, stage.act_min), stage.act_max)
