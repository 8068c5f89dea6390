"""What is proven of each primitive: its C, read by `c_semantics`, equals the definition wherever the contract calls it.

Definitions are written here once more, in bit vectors so wide that nothing wraps. Where one has a division by a power
of two, it is written as that: towards zero, or to nearest. Each theorem also proves that C defines the result: no
overflow, no shift by too much.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import z3

from codegen.emit.base import QUICK_SHIFTS
from conformance.proofs.c_semantics import Products, Program
from refsim.numerics import Rounding

WIDE = 96
"""Bits of the vectors in which definitions are written."""


@dataclass(frozen=True)
class Query:
    """One formula that must hold.

    Attributes:
        what: the part of the theorem, such as one shift.
        given: the domain.
        claim: what holds on it.
    """

    what: str
    given: list[Any]
    claim: Any


@dataclass(frozen=True)
class Theorem:
    """A statement about one function.

    Attributes:
        function: its name in C.
        domain: in words, for people.
        queries: that together prove it; called once.
    """

    function: str
    domain: str
    queries: Callable[[Program], Iterator[Query]]


# ---- definitions ----


def wide(bits: Any) -> Any:
    """A signed vector as a wide one."""
    return z3.SignExt(WIDE - bits.size(), bits)


def clamp(v: Any, low: Any, high: Any) -> Any:
    """The nearest value to v within [low, high]."""
    return z3.If(v < low, low, z3.If(v > high, high, v))


def truncating(v: Any, k: int) -> Any:
    """v / 2^k towards zero."""
    return z3.If(v >= 0, v >> k, -(-v >> k))


def nearest(v: Any, n: int) -> Any:
    """v / 2^n to nearest, ties away from zero."""
    half = 2**n >> 1
    return z3.If(v >= 0, (v + half) >> n, -((-v + half) >> n))


def srdhm(product: Any, saturates: Any) -> Any:
    """From the exact product; `saturates` where both factors are -2^31."""
    nudge = z3.If(product >= 0, z3.BitVecVal(2**30, WIDE), z3.BitVecVal(1 - 2**30, WIDE))
    return z3.If(saturates, z3.BitVecVal(2**31 - 1, WIDE), truncating(product + nudge, 31))


def requant(v: Any, m: Any, shift: int, rounding: Rounding, products: Products) -> Any:
    """Of 32-bit v and m, whose shifted value must fit 32 bits with double rounding."""
    if rounding is Rounding.SINGLE:
        t = 31 - shift
        return (wide(products.of(v, m)) + 2 ** (t - 1)) >> t
    left = v * 2 ** max(shift, 0)
    lowest = z3.BitVecVal(-(2**31), 32)
    return nearest(srdhm(wide(products.of(left, m)), z3.And(left == lowest, m == lowest)), max(-shift, 0))


def bytes_of(word: Any) -> list[Any]:
    """Four bytes of a word, the lowest first."""
    return [z3.Extract(8 * i + 7, 8 * i, word) for i in range(4)]


def halves_of(word: Any) -> list[Any]:
    """Two halves of a word, the low one first."""
    return [z3.Extract(15, 0, word), z3.Extract(31, 16, word)]


def joined(parts: Sequence[Any]) -> Any:
    """The word of parts, the lowest first."""
    return z3.Concat(*reversed(parts))


# ---- how a theorem is asked ----


def _equal(
    program: Program,
    function: str,
    arguments: Sequence[Any],
    expected: Any,
    given: Sequence[Any] = (),
    *,
    products: Products | None = None,
    what: str = "",
) -> Iterator[Query]:
    """The function gives `expected` (taken as signed where it is wide), and C defines it."""
    products = products or Products()
    meaning = program.call(function, arguments, products)
    found = wide(meaning.bits) if expected.size() == WIDE else meaning.bits
    facts = [*given, *products.facts]
    yield Query(what or "equal", facts, found == expected)
    if meaning.obligations:
        reasons = ", ".join(sorted({reason for reason, _ in meaning.obligations}))
        defined = z3.And(*(obligation for _, obligation in meaning.obligations))
        yield Query(f"{what + ': ' if what else ''}defined ({reasons})", facts, defined)


def _words(*names: str) -> list[Any]:
    return [z3.BitVec(name, 32) for name in names]


def _within(v: Any, low: int, high: int) -> Any:
    return z3.And(v >= low, v <= high)


# ---- theorems ----


def _clamp(program: Program) -> Iterator[Query]:
    v, low, high = _words("v", "low", "high")
    yield from _equal(program, "tnf_clamp", [v, low, high], clamp(v, low, high), [low <= high])


def _saturations(program: Program) -> Iterator[Query]:
    (v,) = _words("v")
    half, byte = (z3.BitVecVal(n, WIDE) for n in (2**15, 2**7))
    for name in ("tnf_sat16", "tnf_ssat16"):
        yield from _equal(program, name, [v], clamp(wide(v), -half, half - 1), what=name)
    yield from _equal(program, "tnf_ssat8", [v], clamp(wide(v), -byte, byte - 1), what="tnf_ssat8")
    w, word = z3.BitVec("w", 64), z3.BitVecVal(2**31, WIDE)
    yield from _equal(program, "tnf_sat32", [w], clamp(wide(w), -word, word - 1), what="tnf_sat32")
    a, b = _words("a", "b")
    yield from _equal(program, "tnf_qadd", [a, b], clamp(wide(a) + wide(b), -word, word - 1), what="tnf_qadd")


def _srdhm(program: Program) -> Iterator[Query]:
    a, b = _words("a", "b")
    products = Products()
    both = z3.And(a == -(2**31), b == -(2**31))
    expected = srdhm(wide(products.of(a, b)), both)
    yield from _equal(program, "tnf_srdhm_unsaturated", [a, b], expected, [z3.Not(both)], products=products)


def _rdbpot(program: Program) -> Iterator[Query]:
    (v,) = _words("v")
    for n in range(32):
        yield from _equal(program, "tnf_rdbpot", [v, z3.BitVecVal(n, 32)], nearest(wide(v), n), what=f"n = {n}")


def _rdbpot_unsigned(program: Program) -> Iterator[Query]:
    (v,) = _words("v")
    for n in range(1, 32):
        arguments = [v, z3.BitVecVal(n, 32)]
        yield from _equal(program, "tnf_rdbpot_unsigned", arguments, nearest(wide(v), n), [v >= 0], what=f"n = {n}")


def _multiply_high(program: Program) -> Iterator[Query]:
    v, m = _words("v", "m")
    for n in range(1, 31):
        products = Products()
        expected = (wide(products.of(v, m)) + 2 ** (31 + n)) >> (32 + n)
        arguments = [v, m, z3.BitVecVal(n, 32)]
        given = [m >= 0]
        yield from _equal(program, "tnf_multiply_high", arguments, expected, given, products=products, what=f"n = {n}")


def _legal(v: Any, m: Any, shift: int, rounding: Rounding, products: Products) -> tuple[list[Any], Any]:
    """The contract's domain of one requantisation (section 4), and what it gives."""
    lowest = 2**30 if rounding is Rounding.SINGLE else 2**29
    normal = _within(m, lowest, 2**31 - 1)
    given = [z3.Or(normal, m == 0) if shift == 0 else normal]
    if rounding is Rounding.DOUBLE and shift > 0:
        given.append(_within(v, -(2**31 - 1 >> shift), 2**31 - 1 >> shift))
    result = requant(v, m, shift, rounding, products)
    return [*given, _within(result, -(2**30), 2**30)], result


def _requantize(rounding: Rounding) -> Callable[[Program], Iterator[Query]]:
    def queries(program: Program) -> Iterator[Query]:
        v, m, zero_point, low, high = _words("v", "m", "zero_point", "low", "high")
        for shift in range(-31, 31):
            products = Products()
            given, result = _legal(v, m, shift, rounding, products)
            what, scale = f"shift {shift}", [m, z3.BitVecVal(shift, 32), z3.BitVecVal(int(rounding), 32)]
            yield from _equal(program, "tnf_requantize_value", [v, *scale], result, given, products=products, what=what)
            given = [*given, _within(zero_point, -128, 127), low >= -128, low <= high, high <= 127]
            byte = z3.Extract(7, 0, clamp(result + wide(zero_point), wide(low), wide(high)))
            arguments = [v, *scale, zero_point, low, high]
            name = "tnf_requantize_to_int8"
            yield from _equal(program, name, arguments, byte, given, products=products, what=f"{what} to int8")

    return queries


def _quick(rounding: Rounding) -> Callable[[Program], Iterator[Query]]:
    def queries(program: Program) -> Iterator[Query]:
        v, m, zero_point = _words("v", "m", "zero_point")
        for shift in QUICK_SHIFTS[rounding]:
            products = Products()
            result = requant(v, m, shift, rounding, products)
            given = [_within(m, 2**30, 2**31 - 1), _within(zero_point, -128, 127), v != -(2**31)]
            numbers = (z3.BitVecVal(shift, 32), z3.BitVecVal(int(rounding), 32))
            scale = program.call("tnf_scale_of", [m, numbers[0], zero_point, numbers[1]], products)
            scaled = program.call("tnf_scaled", [v, scale.result, numbers[1]], products)
            found = program.call("tnf_ssat8", [scaled.bits], products)
            if rounding is Rounding.DOUBLE:
                # v * (2 m - 2^32) = 2 (v * m) - 2^32 v: what the solver is told of products it does not compute
                doubled = products.of(v, m << 1)
                given.append(doubled == 2 * products.of(v, m) - (z3.SignExt(32, v) << 32))
            expected = clamp(result + wide(zero_point), z3.BitVecVal(-128, WIDE), z3.BitVecVal(127, WIDE))
            facts = [*given, *products.facts]
            yield Query(f"shift {shift}", facts, wide(found.bits) == expected)
            defined = [claim for part in (scale, scaled, found) for _, claim in part.obligations]
            yield Query(f"shift {shift}: defined", facts, z3.And(*defined))

    return queries


def _high_words(program: Program) -> Iterator[Query]:
    a, b, acc = _words("a", "b", "acc")
    products = Products()
    product = wide(products.of(a, b))
    plain, rounded = product >> 32, (product + 2**31) >> 32
    fits = _within(plain + wide(acc), -(2**31), 2**31 - 1)
    yield from _equal(program, "tnf_smmla", [a, b, acc], plain + wide(acc), [fits], products=products, what="tnf_smmla")
    fits = _within(rounded + wide(acc), -(2**31), 2**31 - 1)
    yield from _equal(
        program, "tnf_smmlar", [a, b, acc], rounded + wide(acc), [fits], products=products, what="tnf_smmlar"
    )


def _smlad(program: Program) -> Iterator[Query]:
    a, b, acc = _words("a", "b", "acc")
    low, high = (z3.SignExt(16, x) * z3.SignExt(16, y) for x, y in zip(halves_of(a), halves_of(b), strict=True))
    steps = [wide(acc) + wide(low), wide(acc) + wide(low) + wide(high)]
    given = [_within(step, -(2**31), 2**31 - 1) for step in steps]
    yield from _equal(program, "tnf_smlad", [a, b, acc], steps[1], given)


def _pairs(program: Program) -> Iterator[Query]:
    x, y = _words("x", "y")
    even, odd = ([z3.SignExt(8, bytes_of(x)[i]) for i in which] for which in ((0, 2), (1, 3)))
    yield from _equal(program, "tnf_even_pair", [x], joined(even), what="even")
    yield from _equal(program, "tnf_odd_pair", [x], joined(odd), what="odd")
    for name, pair in (("tnf_even_pair_plus", even), ("tnf_odd_pair_plus", odd)):
        sums = [h + p for h, p in zip(halves_of(y), pair, strict=True)]
        yield from _equal(program, name, [y, x], joined(sums), what=name)
    yield from _equal(program, "tnf_low_halves", [x, y], joined([halves_of(x)[0], halves_of(y)[0]]), what="low halves")
    yield from _equal(
        program, "tnf_high_halves", [x, y], joined([halves_of(x)[1], halves_of(y)[1]]), what="high halves"
    )


def _bytes(program: Program) -> Iterator[Query]:
    a, b, c, d = _words("a", "b", "c", "d")
    lowest = [z3.Extract(7, 0, word) for word in (a, b, c, d)]
    yield from _equal(program, "tnf_pack4", [a, b, c, d], joined(lowest), what="pack")
    yield from _equal(program, "tnf_repeat4", [a], joined([lowest[0]] * 4), what="repeat")
    pairs = list(zip(bytes_of(a), bytes_of(b), strict=True))
    larger, smaller = ([z3.If((x > y) == first, x, y) for x, y in pairs] for first in (True, False))
    yield from _equal(program, "tnf_max4", [a, b], joined(larger), what="max")
    yield from _equal(program, "tnf_min4", [a, b], joined(smaller), what="min")
    triples = zip(bytes_of(a), bytes_of(b), bytes_of(c), strict=True)
    clamped = [z3.If(z3.If(x > low, x, low) < high, z3.If(x > low, x, low), high) for x, low, high in triples]
    yield from _equal(program, "tnf_clamp4", [a, b, c], joined(clamped), what="clamp")
    unsigned = [z3.If(h < 0, z3.BitVecVal(0, 16), z3.If(h > 255, z3.BitVecVal(255, 16), h)) for h in halves_of(a)]
    yield from _equal(program, "tnf_usat8_pair", [a], joined(unsigned), what="to unsigned bytes")
    for index in range(4):
        byte, number = wide(bytes_of(a)[index]), z3.BitVecVal(index, 32)
        yield from _equal(program, "tnf_byte", [a, number], byte, what=f"byte {index}")
        given = [_within(wide(b) + byte, -(2**31), 2**31 - 1)]
        yield from _equal(
            program, "tnf_byte_plus", [b, a, number], wide(b) + byte, given, what=f"byte {index} and a sum"
        )


def _leading_zeros(program: Program) -> Iterator[Query]:
    for name, bits in (("tnf_leading_zeros", 32), ("tnf_leading_zeros64", 64)):
        v = z3.BitVec("v", bits)
        zeros = z3.BitVecVal(bits, 32)
        for bit in range(bits):  # the highest bit that is set decides last
            zeros = z3.If(z3.Extract(bit, bit, v) == 1, z3.BitVecVal(bits - 1 - bit, 32), zeros)
        yield from _equal(program, name, [v], zeros, what=name)


THEOREMS = (
    Theorem("tnf_clamp", "every v and every range", _clamp),
    Theorem("tnf_sat16, tnf_ssat16, tnf_ssat8, tnf_sat32, tnf_qadd", "every argument", _saturations),
    Theorem("tnf_srdhm_unsaturated", "every a and b but for both -2^31", _srdhm),
    Theorem("tnf_rdbpot", "every v, n in 0..31", _rdbpot),
    Theorem("tnf_rdbpot_unsigned", "v below 2^31, n in 1..31", _rdbpot_unsigned),
    Theorem("tnf_multiply_high", "every v, m not negative, n in 1..30", _multiply_high),
    Theorem("tnf_requantize_value and _to_int8, single", "all that section 4 admits", _requantize(Rounding.SINGLE)),
    Theorem("tnf_requantize_value and _to_int8, double", "all that section 4 admits", _requantize(Rounding.DOUBLE)),
    Theorem("tnf_scale_of, tnf_scaled, single", "every v but -2^31, every multiplier", _quick(Rounding.SINGLE)),
    Theorem("tnf_scale_of, tnf_scaled, double", "every v but -2^31, every multiplier", _quick(Rounding.DOUBLE)),
    Theorem("tnf_smmla, tnf_smmlar", "every argument whose sum fits", _high_words),
    Theorem("tnf_smlad", "every argument whose sums fit", _smlad),
    Theorem("packed pairs of 16 bits", "every word", _pairs),
    Theorem("packed bytes", "every word", _bytes),
    Theorem("tnf_leading_zeros, tnf_leading_zeros64", "every word", _leading_zeros),
)
