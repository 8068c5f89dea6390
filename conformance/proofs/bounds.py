"""What is proven of each operator: from the checks made when it is built, that no intermediate leaves its width.

Formulas over unbounded integers, for all parameters that the checks admit; docs/proofs.md ("No operator overflows")
says which, and how sums of many terms follow. Where a factor is unknown, its product is an unknown of which only the
bounds are told. Zero points, shifts and the like are tried one by one, so that every formula is linear.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import z3

from conformance.proofs.c_semantics import Program
from conformance.proofs.theorems import Query, Theorem
from refsim.numerics import INT32_MAX, REQUANTIZED_MAX, Rounding, largest_distance
from refsim.ops.add import LEFT_SHIFT
from refsim.ops.layernorm import LARGEST_EPSILON, MOST_SCALE_BITS
from refsim.ops.layernorm import LONGEST_ROW as LONGEST_NORMALISED
from refsim.ops.softmax import LONGEST_ROW, smallest_difference

MULTIPLIER_MAX = 2**31 - 1
ZERO_POINTS = range(-128, 128)


def magnitude(v: Any) -> Any:
    """|v|."""
    return z3.If(v >= 0, v, -v)


def int32(v: Any) -> Any:
    """v fits 32 bits."""
    return z3.And(v >= -(2**31), v <= 2**31 - 1)


def int64(v: Any) -> Any:
    """v fits 64 bits."""
    return z3.And(v >= -(2**63), v <= 2**63 - 1)


def byte(v: Any) -> Any:
    """v is an int8."""
    return z3.And(v >= -128, v <= 127)


def _requantised(rounding: Rounding) -> Callable[[Program], Iterator[Query]]:
    """Whatever |v| <= B gives is within 2^30 if `refsim.numerics.requantized_bound` accepts B."""

    def queries(_: Program) -> Iterator[Query]:
        p, q = z3.Ints("v*M B*M")
        for shift in range(-31, 31):
            t, left, right = 31 - shift, max(shift, 0), max(-shift, 0)
            given = [magnitude(p) <= q, q <= INT32_MAX * MULTIPLIER_MAX]
            if rounding is Rounding.SINGLE:
                given.append((q + 2 ** (t - 1)) / 2**t <= REQUANTIZED_MAX)
                result = (p + 2 ** (t - 1)) / 2**t
                wide = int64(p + 2 ** (t - 1))
            else:
                given += [q * 2**left <= INT32_MAX * MULTIPLIER_MAX, (q + 2**t - 1) / 2**t + 1 <= REQUANTIZED_MAX]
                high = (p * 2**left + 2**30) / 2**31
                half = 2**right >> 1
                result = z3.If(high >= 0, (high + half) / 2**right, -((-high + half) / 2**right))
                wide = z3.And(int64(p * 2**left + 2**30), int32(high))
            moved = z3.And(int32(result - 128), int32(result + 127))
            yield Query(f"shift {shift}", given, z3.And(magnitude(result) <= REQUANTIZED_MAX, moved, wide))

    return queries


def _weighted(_: Program) -> Iterator[Query]:
    x, d, w, s, total, most = z3.Ints("x x-z w sum total X")
    bias, done, more, sum_w = z3.Ints("|bias| done more sum_w")
    near = z3.And(
        *(z3.And(magnitude(x - z) <= largest_distance(z), magnitude(x) <= largest_distance(z)) for z in ZERO_POINTS)
    )
    yield Query("x and x - z, by X", [byte(x)], near)
    product = z3.And(*(magnitude(d * n) <= most * abs(n) for n in range(-128, 128)))
    yield Query("a term, by X * |w|", [magnitude(d) <= most], product)
    given = [magnitude(s) <= bias + done, magnitude(w) <= more, bias + done + more <= INT32_MAX]
    yield Query("one term more", given, z3.And(magnitude(s + w) <= bias + done + more, int32(s + w)))
    for z in ZERO_POINTS:
        given = [magnitude(sum_w) <= total, magnitude(s) <= bias, bias + largest_distance(z) * total <= INT32_MAX]
        yield Query(f"zero point {z}: bias - z * sum of w", given, int32(s - z * sum_w))


def _matmul(_: Program) -> Iterator[Query]:
    b, others, k, kb, s, correction = z3.Ints("b B K K*B sum correction")
    terms = z3.And(*(magnitude(d * b) <= abs(d) * others for d in range(-255, 256)))
    yield Query("a term, by |a - z_a| * B", [magnitude(b) <= others], terms)
    for most in range(128, 256):
        # b and z_b leave the sums: both are at most 128 in magnitude, and B is at least that
        given = [k >= 1, kb >= 128 * k, most * kb <= INT32_MAX]
        given += [magnitude(v) <= most * 128 * k for v in (s, correction)]
        claim = z3.And(int32(s), int32(correction), magnitude(s) <= most * kb, magnitude(correction) <= most * kb)
        yield Query(f"A = {most}: sum and correction", given, claim)


def _elementwise(_: Program) -> Iterator[Query]:
    x, y, p = z3.Ints("x y product")
    sa, sb, a, b = z3.Ints("sa sb A B")
    raised = z3.And(*(int32((x - z) * 2 ** (LEFT_SHIFT + more)) for z in ZERO_POINTS for more in (0, 2)))
    yield Query(f"add: raised by {LEFT_SHIFT} and {LEFT_SHIFT + 2} bits", [byte(x)], raised)
    products = z3.And(*(magnitude(d * y) <= 255 * 255 for d in range(-255, 256)))
    yield Query("mul: a product", [magnitude(y) <= 255], products)
    fits = [magnitude(sa) <= a, magnitude(sb) <= b, a + b <= INT32_MAX]
    yield Query("add: sum and difference", fits, z3.And(int32(sa + sb), int32(sa - sb)))
    for shift in range(-21, 3):
        # the fine term: its factor times a multiplier below 2^31, the high word, and (coarse - z) * 2^19
        given = [magnitude(x) <= 255, magnitude(y) <= 255, magnitude(p) <= magnitude(x) * 2 ** (21 + shift) * 2**31]
        total = (p + 2**31) / 2**32 + y * 2**19
        yield Query(f"tnf_add_dsp: fine shift {shift}", given, z3.And(int32(x * 2 ** (21 + shift)), int32(total)))


def _pools(_: Program) -> Iterator[Query]:
    n, s = z3.Ints("n sum")
    of_bytes = [n >= 1, s >= -128 * n, s <= 127 * n]
    for z in ZERO_POINTS:
        most = largest_distance(z)
        given = [*of_bytes, n * most <= INT32_MAX]
        claim = z3.And(int32(s), int32(n * z), int32(s - n * z), magnitude(s - n * z) <= n * most)
        yield Query(f"mean, zero point {z}", given, claim)
    rounded = magnitude(s) + n / 2
    legal = [*of_bytes, 128 * n <= INT32_MAX]
    yield Query("average: sum, and before its division", legal, z3.And(int32(s), rounded < 2**32, rounded < 129 * n))
    halves = z3.And(s >= -(2**15), s < 2**15)
    yield Query("sums of 255 bytes in 16 bits", [*of_bytes, n <= 255], halves)


def _softmax(_: Program) -> Iterator[Query]:
    d, p, e, s, n, r = z3.Ints("d product e sum n r")
    one = 2**19
    for shift in range(1, 32):
        lowest = smallest_difference(shift)
        given = [d <= 0, d >= lowest, d >= -255, p <= 0, p >= d * 2**shift * MULTIPLIER_MAX]
        argument = (p + 2**30) / 2**31
        legal = z3.And(int32(d * 2**shift), d * 2**shift > -(2**31), argument >= -(2**31), argument <= 0)
        yield Query(f"shift {shift}: the exponential's argument", given, legal)
    yield Query("an addend", [e >= 0, e <= 2**31 - 1], z3.And((e + 2**11) / 2**12 >= 0, (e + 2**11) / 2**12 <= one))
    yield Query("the largest element's", [], z3.IntVal((2**31 - 1 + 2**11) // 2**12) == one)
    row = [n >= 1, n <= LONGEST_ROW, s >= one, s <= one * n]
    yield Query("a sum", row, int32(s))
    for zeros in range(33):
        given = [*row, s * 2 * 2**zeros >= 2**32, s * 2**zeros < 2**32]
        fraction = s * 2**zeros - 2**31
        claim = z3.And(z3.BoolVal(1 <= zeros <= 12 and 23 <= 35 - zeros <= 34), fraction >= 0, fraction < 2**31)
        yield Query(f"{zeros} leading zeros: the reciprocal's argument", given, claim)
    given = [e >= 0, e <= 2**31 - 1, r >= 0, r <= 2**31 - 1, p >= 0, p <= e * (2**31 - 1)]
    yield Query("a quotient", given, z3.And((p + 2**30) / 2**31 >= 0, int32((p + 2**30) / 2**31)))
    excess = (r - 2**31) * 2
    given = [e >= 0, e <= 2**31 - 1, r >= 2**30, r <= 2**31 - 1, p <= 0, p >= -e * 2**31]
    high = (p + 2**31) / 2**32 + e
    yield Query(
        "tnf_softmax_dsp: a quotient", given, z3.And(int32(excess), high >= 0, high + 2**30 < 2**32, int32(high))
    )


def _layernorm(_: Program) -> Iterator[Query]:
    n, s1, s2, x, spread, epsilon, p = z3.Ints("n s1 s2 x spread E product")
    longest = LONGEST_NORMALISED
    sums = [n >= 1, n <= longest, s1 >= -128 * n, s1 <= 127 * n, s2 >= 0, s2 <= 2**14 * n]
    yield Query("sums", sums, z3.And(int32(s1), int32(s2)))
    yield Query("their products", [s2 >= 0, s2 <= 2**14 * longest], int64(s2 * longest + 2**22 * 2**22))
    given = [spread >= 0, spread <= longest * longest * 2**14, epsilon >= 0, epsilon <= LARGEST_EPSILON]
    yield Query("variance", given, z3.And(spread + epsilon >= 0, spread + epsilon < 2**63))
    centred = z3.And(*(magnitude(c * n - s1) <= 255 * n for c in range(-128, 128)))
    yield Query("n * x - sum", sums, z3.And(centred, 255 * n < 2**23))
    for log in range(63):
        # n * x - sum is at most the root of n * V, by Cauchy and Schwarz
        largest = min(255 * longest, math.isqrt(longest * (2 ** (log + 1) - 1)))
        claims = []
        for bits in range(MOST_SCALE_BITS + 1):
            t = 61 - bits - (61 - log) // 2
            for taken in (t, t - 1):  # a reciprocal of 2^31 is halved
                right = max(taken, 33) - 32
                claims.append(z3.BoolVal(17 <= t <= 62 and 1 <= right <= 30))
                claims.append(int32(x * 2 ** max(33 - taken, 0)))
        yield Query(f"log V = {log}: n * x - sum, moved to the left", [magnitude(x) <= largest], z3.And(*claims))
    yield Query("before the shift", [magnitude(p) <= 255 * longest * 2**31], int64(p + 2**61))
    g, b = z3.Ints("|gamma| |beta|")
    given = [g >= 0, b >= 0, 32768 * g + b <= INT32_MAX, magnitude(p) <= 32768 * g, magnitude(x) <= b]
    yield Query("h * gamma + beta", given, z3.And(int32(p), int32(p + x)))


def _bytes(_: Program) -> Iterator[Query]:
    (x,) = z3.Ints("x")
    yield Query("lookup: x + 128", [byte(x)], z3.And(x + 128 >= 0, x + 128 <= 255))
    near = z3.And(*(magnitude(x - z) <= largest_distance(z) for z in ZERO_POINTS))
    yield Query(
        "requantize, concat: x - z", [byte(x)], z3.And(near, z3.BoolVal(max(map(largest_distance, ZERO_POINTS)) == 255))
    )


BOUNDS = (
    Theorem("requantised values, single", "all that requantized_bound admits", _requantised(Rounding.SINGLE)),
    Theorem("requantised values, double", "all that requantized_bound admits", _requantised(Rounding.DOUBLE)),
    Theorem("conv2d, depthwise_conv2d, linear", "|bias| + X * sum |w| below 2^31", _weighted),
    Theorem("matmul, attention", "K * A * B below 2^31", _matmul),
    Theorem("add, mul", "every zero point; bounds of both terms together below 2^31", _elementwise),
    Theorem("mean, average_pool2d", "n * X, n * 128 below 2^31", _pools),
    Theorem("softmax, attention", f"rows up to {LONGEST_ROW}, every multiplier and shift", _softmax),
    Theorem("layernorm", "rows up to 2^15, every epsilon, 0 to 14 scale bits", _layernorm),
    Theorem("lookup, requantize, concat", "every x and zero point", _bytes),
)
