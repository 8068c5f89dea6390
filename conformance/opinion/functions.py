"""The golden model's functions of numbers: what each computes, its definition, and arguments to try both with.

An operator gives bytes, in which the last bits of what these computed seldom show.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isqrt
from random import Random
from typing import Any

import numpy as np

from conformance.opinion import definitions
from conformance.opinion.definitions import DOUBLE, INT32_MAX, INT32_MIN, SINGLE

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Function:
    """One function.

    Attributes:
        module: of refsim, "numerics".
        golden: calls the module for some arguments.
        definition: the same in unbounded integers.
        draw: arguments at random, in the function's domain.
        ends: arguments at the ends of it.
    """

    module: str
    golden: Callable[..., Any]
    definition: Callable[..., Any]
    draw: Callable[[Random], Arguments]
    ends: tuple[Arguments, ...] = ()

    def arguments(self, count: int, seed: int) -> list[Arguments]:
        """So many drawn at random, after those at the ends."""
        random = Random(seed)  # noqa: S311 - no secret
        return [*self.ends, *(self.draw(random) for _ in range(count))]

    def computed(self, arguments: Arguments) -> Any:
        """What the golden model gives."""
        return self.golden(importlib.import_module(f"refsim.{self.module}"), *arguments)


def integer(random: Random, low: int, high: int) -> int:
    """Within [low, high]: any, of few bits, or near an end, zero or a power of two."""
    kind = random.randrange(4)
    if kind == 0:
        return random.randint(low, high)
    bits = max(abs(low), abs(high)).bit_length()
    size = random.randint(0, 2 ** random.randint(0, bits)) if kind == 1 else random.randint(-2, 2)
    if kind == 2:
        size += 2 ** random.randint(0, bits)
    origin = random.choice((low, high, 0)) if kind == 3 else 0
    return min(max(origin + size * random.choice((-1, 1)), low), high)


def _int32(random: Random) -> int:
    return integer(random, INT32_MIN, INT32_MAX)


def _multiplier(random: Random) -> int:
    return random.choice((0, 2**29, 2**30, INT32_MAX, *(random.randint(2**29, INT32_MAX) for _ in range(12))))


def _divided(random: Random) -> Arguments:
    """An integer and a power of two; half of the quotients are ties or next to one."""
    n = random.randint(0, 31)
    tie = (2 * random.randint(-(2 ** (31 - n)), 2 ** (31 - n)) + 1) << n >> 1
    near = min(max(tie + random.randint(-1, 1), INT32_MIN), INT32_MAX)
    return random.choice((near, _int32(random))), n


def _scaled(random: Random) -> Arguments:
    """Arguments of requant."""
    multiplier, shift, rounding = _multiplier(random), random.randint(-31, 30), random.choice((SINGLE, DOUBLE))
    bits = 31 - max(shift, 0) if rounding == DOUBLE else 31
    return integer(random, -(2**bits), 2**bits - 1), multiplier, shift, rounding


def _finished(random: Random) -> Arguments:
    """Arguments of requant whose result is within 2^30, then zero point and range."""
    while True:
        v, multiplier, shift, rounding = _scaled(random)
        shift = random.choice((shift, 8 - v.bit_length()))  # so that most results are no end of the range
        small = max(shift, -31), rounding
        if (rounding == SINGLE or abs(v) << max(shift, 0) < 2**31) and abs(
            definitions.requant(v, multiplier, *small)
        ) <= 2**30:
            low, high = sorted(integer(random, -128, 127) for _ in range(2))
            return v, multiplier, *small, integer(random, -128, 127), *random.choice(((low, high), (-128, 127)))


def _finish(module: Any, v: int, multiplier: int, shift: int, rounding: int, *last: int) -> int:
    stage = module.Stage(np.array([multiplier], np.int32), np.array([shift], np.int32), rounding, *last)
    return int(module.finish(v, multiplier, shift, rounding, stage))


def _finished_by_definition(
    v: int, multiplier: int, shift: int, rounding: int, zero_point: int, low: int, high: int
) -> int:
    return definitions.clamp(definitions.requant(v, multiplier, shift, rounding) + zero_point, low, high)


def _square_root(module: Any, v: int) -> int:
    """Beside others, since it computes many at once."""
    roots = np.empty(3, np.int64)
    module.isqrt(np.array([7, v, 2**62 - 1], np.int64), roots)
    assert roots[0] == 2 and roots[2] == 2**31 - 1
    return int(roots[1])


def _squared(random: Random) -> Arguments:
    root = integer(random, 0, 2**31 - 1)
    return (random.choice((integer(random, 0, 2**62 - 1), root * root, max(root * root - 1, 0))),)


def _real(random: Random, low: int, high: int) -> float:
    """Of any size from 2^low to 2^high, seldom a power of two or next to one."""
    mantissa = random.choice((1.0, 1 - 2.0**-53, 1 - 2.0**-33, 1 - 2.0**-31, *(random.uniform(0.5, 1),) * 12))
    return mantissa * 2.0 ** random.randint(low, high)


def _halves(random: Random) -> Arguments:
    """Reals of any size and sign; half of them are ties or next to one."""
    tie = random.randint(-1000, 1000) + 0.5 + random.choice((-(2.0**-40), 0, 2.0**-40))
    return (random.choice((tie, _real(random, -60, 60) * random.choice((-1, 1)))),)


def _round_all(module: Any, x: float) -> list[int]:
    found: list[int] = module.round_half_away_array(np.array([x, -2.5, 0.0])).tolist()
    return found


def quantized(real: float) -> tuple[int, int]:
    """(M, s) of a real multiplier below 2^30 (section 2)."""
    if real == 0:
        return 0, 0
    exact, shift = Fraction(real), 0
    while exact >= 1:
        exact, shift = exact / 2, shift + 1
    while exact < Fraction(1, 2):
        exact, shift = exact * 2, shift - 1
    multiplier = definitions.round_half_away(exact * 2**31)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    return (multiplier, shift) if shift >= -31 else (0, 0)


def _bound(module: Any, bound: int, multiplier: int, shift: int, rounding: int) -> int | None:
    try:
        found: int = module.requantized_bound(bound, multiplier, shift, module.Rounding(rounding), "")
    except module.QuantizationError:
        return None
    return found


def largest_requantized(bound: int, multiplier: int, shift: int, rounding: int) -> int | None:
    """Largest magnitude that requantised |v| <= bound may have (section 4); None where it is refused."""
    if rounding == SINGLE:
        result = definitions.requant(bound, multiplier, shift, rounding)
    else:
        result = ceil(Fraction(bound * multiplier, 2 ** (31 - shift))) + 1 if multiplier else 0
    shifted = bound << max(shift, 0) if rounding == DOUBLE and multiplier else 0
    return result if result <= 2**30 and shifted <= INT32_MAX else None


def _bounded(random: Random) -> Arguments:
    """Arguments of requantized_bound, most of them near the ends of what is taken."""
    multiplier, shift, rounding = _multiplier(random), random.randint(-31, 30), random.choice((SINGLE, DOUBLE))
    largest = min((2**30 << (31 - shift)) // max(multiplier, 1), INT32_MAX >> max(shift, 0) if rounding else INT32_MAX)
    near = min(max(largest + random.randint(-2, 2), 0), INT32_MAX)
    return random.choice((near, near, integer(random, 0, INT32_MAX))), multiplier, shift, rounding


def _normalised(module: Any, row: tuple[int, ...], scale_bits: int, epsilon: int, expected: list[int]) -> list[int]:
    """The h of a row: what is expected of it is subtracted by beta, so that bytes show how far it is from that."""
    beta = np.array([-h for h in expected], np.int32)
    one = module.Requantization(np.array([2**30], np.int32), np.array([1], np.int32), 0)
    op = module.LayerNorm(np.ones(len(row), np.int16), beta, epsilon, one, scale_bits)
    distances = op.run(np.array([row], np.int8))[0].tolist()
    return [h + distance for h, distance in zip(expected, distances, strict=True)]


def _row_to_normalise(row: tuple[int, ...], scale_bits: int = 14, epsilon: int = 0) -> Arguments:
    return row, scale_bits, epsilon, definitions.layernorm_row(list(row), scale_bits, epsilon)


def _row(random: Random) -> Arguments:
    """A row, short or constant but for an element, and epsilons of all sizes."""
    row = [random.randint(-128, 127) for _ in range(random.randint(1, 8))]
    if random.random() < 0.2:
        row = [row[0]] * random.randint(1, 40) + [random.randint(-128, 127)]
    epsilon = random.choice((0, 0, 1, random.randint(0, 2 ** random.randint(0, 62) - 1)))
    return _row_to_normalise(tuple(row), random.choice((0, 7, 13, 14, 14, 14)), epsilon)


FUNCTIONS: dict[str, Function] = {
    "srdhm": Function(
        "numerics",
        lambda module, a, b: module.srdhm(a, b),
        definitions.srdhm,
        lambda random: (_int32(random), _int32(random)),
        tuple((a, b) for a in (INT32_MIN, -1, 0, 1, INT32_MAX) for b in (INT32_MIN, -(2**30), 0, 2**30, INT32_MAX)),
    ),
    "rdbpot": Function(
        "numerics",
        lambda module, v, n: module.rdbpot(v, n),
        definitions.rdbpot,
        _divided,
        tuple((v, n) for v in (INT32_MIN, -3, -1, 0, 1, 3, INT32_MAX) for n in (0, 1, 2, 31)),
    ),
    "requantize": Function(
        "numerics",
        lambda module, *scaled: module.requantize(*scaled),
        definitions.requant,
        _scaled,
        tuple((v, 2**30, s, how) for v in (-5, -3, -1, 0, 1, 3, 5) for s in (-1, 0, 1) for how in (SINGLE, DOUBLE)),
    ),
    "finish": Function("numerics", _finish, _finished_by_definition, _finished),
    "clamp": Function(
        "numerics",
        lambda module, v, *ends: module.clamp(v, *ends),
        definitions.clamp,
        lambda random: (_int32(random), *sorted((_int32(random), _int32(random)))),
        ((5, 5, 5), (4, 5, 6), (7, 5, 6), (INT32_MAX + 1, INT32_MIN, INT32_MAX), (INT32_MIN - 1, INT32_MIN, INT32_MAX)),
    ),
    "isqrt": Function("numerics", _square_root, isqrt, _squared, ((0,), (1,), (2**62 - 1,), ((2**31 - 1) ** 2,))),
    "floor_log2": Function(
        "numerics",
        lambda module, v: module.floor_log2(v),
        lambda v: v.bit_length() - 1,
        lambda random: (max(integer(random, 1, 2**63 - 1), 1),),
        tuple((2**n + off,) for n in range(2, 63) for off in (-1, 0)),
    ),
    "round_half_away": Function(
        "numerics",
        lambda module, x: module.round_half_away(x),
        lambda x: definitions.round_half_away(Fraction(x)),
        _halves,
        ((0.0,), (0.49999999999999994,), (-2.5,), (4503599627370497.5,)),
    ),
    "round_half_away_array": Function(
        "numerics",
        _round_all,
        lambda x: [definitions.round_half_away(Fraction(x)), -3, 0],
        _halves,
        ((0.0,), (0.49999999999999994,), (-2.5,), (4503599627370497.5,)),
    ),
    "quantize_multiplier": Function(
        "numerics",
        lambda module, real: module.quantize_multiplier(real),
        quantized,
        lambda random: (_real(random, -35, 30 - 1),),
        ((0.0,), (2.0**-33,), (2.0**-32,), (1.0,), (1 - 2.0**-40,), (2.0**30 - 1,)),
    ),
    "requantized_bound": Function("numerics", _bound, largest_requantized, _bounded, ((0, 2**30, -31, DOUBLE),)),
    "largest_distance": Function(
        "numerics",
        lambda module, zero_point: module.largest_distance(zero_point),
        lambda zero_point: max(abs(x - zero_point) for x in (-128, 127)),
        lambda random: (random.randint(-128, 127),),
        ((-128,), (-1,), (0,), (127,)),
    ),
    "exp_on_negative": Function(
        "ops.softmax",
        lambda module, a: module.exp_on_negative(a),
        definitions.expneg,
        lambda random: (integer(random, INT32_MIN, 0),),
        tuple((-(2**n) - off,) for n in range(31) for off in (-1, 0, 1)),
    ),
    "reciprocal": Function(
        "ops.softmax",
        lambda module, a: module.reciprocal(a),
        definitions.reciprocal,
        lambda random: (integer(random, 0, INT32_MAX),),
        ((0,), (1,), (2**30,), (INT32_MAX,)),
    ),
    "layernorm": Function(
        "ops.layernorm",
        _normalised,
        lambda row, scale_bits, epsilon, expected: definitions.layernorm_row(list(row), scale_bits, epsilon),
        _row,
        (
            # Rows whose h is so near a tie that one bit less of the root shows.
            _row_to_normalise((30, -74, -82, -123, -88, -75, 23)),
            _row_to_normalise((-26, -65, -53, -54, 52, -118, -96, 6)),
            _row_to_normalise((127, *(-128,) * 600), epsilon=2**62 - 1),
            _row_to_normalise((127, *(-127,) * 15)),
            _row_to_normalise((-127, *(127,) * 15)),
            _row_to_normalise((5, 5, 5)),
        ),
    ),
}
"""By name."""
