"""Every primitive of numerics.h against its definition in unbounded integers."""

import ctypes
import math
import random
import re
import sys
from collections.abc import Callable

import pytest

import ckernels
from conformance.opinion import definitions
from tests.ckernels.compilers import HOST

I32, U32, U64, I64 = ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
TYPES = {"int32_t": I32, "uint32_t": U32, "uint64_t": U64, "int64_t": I64, "int8_t": ctypes.c_int8}
INT32_MIN, INT32_MAX = definitions.INT32_MIN, definitions.INT32_MAX
LIBRARY = f"primitives{'.dll' if sys.platform == 'win32' else '.so'}"

# Every scalar primitive: static inline, values in, a value out.
SIGNATURE = re.compile(r"^static inline (\w+) tnf_(\w+)\(([^*)]*)\)$", re.MULTILINE)


@pytest.fixture(
    scope="module",
    params=[(c, b) for c in HOST for b in (True, False)],
    ids=lambda p: f"{p[0].name}-{'builtins' if p[1] else 'portable'}",
)
def c(request, tmp_path_factory) -> Callable[..., int]:
    """c("clamp", v, lo, hi) calls tnf_clamp as this compiler builds it."""
    compiler, builtins = request.param
    found = SIGNATURE.findall((ckernels.include_dir() / "tinyformer" / "numerics.h").read_text())
    text = '#include "tinyformer/numerics.h"\n'
    for result, name, parameters in found:
        names = ", ".join(p.split()[-1] for p in parameters.split(","))
        head = f"{result} call_{name}({parameters})"
        text += f"{head};\n{head} {{ return tnf_{name}({names}); }}\n"
    folder = tmp_path_factory.mktemp("primitives")
    (folder / "primitives.c").write_text(text)
    flags = [] if builtins else ["-DTNF_NO_BUILTINS"]
    compiler.run("-std=c99", "-O2", "-shared", "-fPIC", *flags, folder / "primitives.c", "-o", folder / LIBRARY)
    library = ctypes.CDLL(str(folder / LIBRARY))
    for result, name, parameters in found:
        function = getattr(library, f"call_{name}")
        function.restype = TYPES[result]
        function.argtypes = [TYPES[p.split()[-2]] for p in parameters.split(",")]
    return lambda name, *arguments: int(getattr(library, f"call_{name}")(*arguments))


def words(count: int, seed: int) -> list[int]:
    """int32 values: the extremes, neighbours of powers of two, and random ones of every magnitude."""
    edges = {sign * 2**k + d for k in range(32) for sign in (1, -1) for d in (-1, 0, 1)}
    rng = random.Random(seed)
    values = [v for v in edges if INT32_MIN <= v <= INT32_MAX]
    return sorted(values) + [rng.getrandbits(32) - 2**31 >> rng.randrange(32) for _ in range(count)]


def test_clamps(c):
    for v in words(100, 1):
        assert c("clamp", v, -128, 127) == definitions.clamp(v, -128, 127)
        assert c("clamp", v, 5, 5) == 5
        assert c("sat16", v) == definitions.clamp(v, -32768, 32767)
        for wide in (v, v * 2, v * 2**31):
            assert c("sat32", wide) == definitions.clamp(wide, INT32_MIN, INT32_MAX)


def test_srdhm(c):
    pairs = [(a, b) for a in words(0, 0) for b in words(0, 0)]
    pairs += list(zip(words(3000, 2), reversed(words(3000, 3)), strict=True))
    for a, b in pairs:
        if not a == b == INT32_MIN:
            assert c("srdhm_unsaturated", a, b) == definitions.srdhm(a, b), (a, b)


def test_rdbpot(c):
    for n in range(32):
        ties = [k * 2**n + 2**n // 2 + d for k in (-3, -2, -1, 0, 1, 2) for d in (-1, 0, 1)]
        for v in [*words(200, n), *(t for t in ties if INT32_MIN <= t <= INT32_MAX)]:
            assert c("rdbpot", v, n) == definitions.rdbpot(v, n), (v, n)
            if n > 0 and v >= 0:
                assert c("rdbpot_unsigned", v, n) == definitions.rdbpot(v, n), (v, n)


@pytest.mark.parametrize("rounding", [definitions.SINGLE, definitions.DOUBLE])
def test_requantize_value_over_every_shift(c, rounding):
    rng = random.Random(rounding)
    for shift in range(-31, 31):
        for multiplier in (2**30, 2**30 + 1, 3 * 2**29, INT32_MAX, rng.randrange(2**30, 2**31)):
            # The contract's bound (section 4): the result within 2^30, and v shifted left within int32.
            limit = min(INT32_MAX, (2**30 << 31 - shift) // multiplier - 1)
            if rounding == definitions.DOUBLE:
                limit = min(limit, INT32_MAX >> max(shift, 0))
            for v in {0, 1, limit, limit // 2, *(rng.randint(-limit, limit) for _ in range(20))}:
                for signed in (v, -v):
                    expected = definitions.requant(signed, multiplier, shift, rounding)
                    assert c("requantize_value", signed, multiplier, shift, rounding) == expected
                    byte = definitions.clamp(expected - 3, -100, 90)
                    assert c("requantize_to_int8", signed, multiplier, shift, rounding, -3, -100, 90) == byte
    assert c("requantize_value", INT32_MIN, 0, 0, rounding) == 0


@pytest.mark.parametrize("shift", [-31, -9, -2, -1, 0, 1, 5])
def test_requantize_value_at_ties(c, shift):
    # With M = 2^30 the exact result is v * 2^(shift - 1): every tie there is.
    for v in range(-1030, 1031):
        for rounding in (definitions.SINGLE, definitions.DOUBLE):
            expected = definitions.requant(v, 2**30, shift, rounding)
            assert c("requantize_value", v, 2**30, shift, rounding) == expected, v


def test_multiply_high(c):
    for n in range(1, 31):
        for v, m in zip(words(100, n), words(100, n + 40), strict=True):
            if m >= 0:
                assert c("multiply_high", v, m, n) == (v * m + 2 ** (31 + n)) >> (32 + n), (v, m, n)


def test_leading_zeros(c):
    for v in {0, *(v % 2**32 for v in words(500, 5))}:
        assert c("leading_zeros", v) == 32 - v.bit_length()
        assert c("leading_zeros64", v << 31) == 64 - (v << 31).bit_length()
        assert c("leading_zeros64", v) == 64 - v.bit_length()


def test_isqrt(c):
    rng = random.Random(6)
    roots = [2**k + d for k in range(33) for d in (-1, 0, 1)] + [
        rng.getrandbits(32) >> rng.randrange(31) for _ in range(5000)
    ]
    values = [*range(5000), 2**62 - 1, 2**64 - 1, *(r * r + d for r in roots for d in (-1, 0, 1, r, 2 * r))]
    values += [rng.getrandbits(64) >> rng.randrange(64) for _ in range(5000)]
    for v in values:
        if 0 <= v < 2**64:
            assert c("isqrt", v) == math.isqrt(v), v


def test_divide_2_61(c):
    rng = random.Random(7)
    divisors = [2**30 + d for d in range(500)] + [2**31 - 1 - d for d in range(500)]
    divisors += [(high << 15) + d for high in range(2**15, 2**16, 97) for d in (0, 1, 2**15 - 1)]
    divisors += [2**61 // q + d for q in range(2**30 + 1, 2**31, 2**21 + 5) for d in (0, 1)]  # quotients at their steps
    divisors += [rng.randrange(2**30, 2**31) for _ in range(5000)]
    for s in divisors:
        if 2**30 <= s < 2**31:
            assert c("divide_2_61", s) == 2**61 // s, s


def test_exp_negative(c):
    rng = random.Random(8)
    arguments = [0, INT32_MIN, *(-(2**k) + d for k in range(31) for d in (-1, 0, 1)), *(-k * 2**24 for k in range(128))]
    arguments += [-(rng.getrandbits(31) >> rng.randrange(31)) for _ in range(5000)]
    for a in arguments:
        if a <= 0:
            assert c("exp_negative", a) == definitions.expneg(a), a


def test_reciprocal(c):
    rng = random.Random(9)
    for a in [
        0,
        1,
        2,
        INT32_MAX,
        INT32_MAX - 1,
        *(2**k for k in range(31)),
        *(rng.getrandbits(31) for _ in range(5000)),
    ]:
        assert c("reciprocal", a) == definitions.reciprocal(a), a


def test_window_bounds_are_those_of_the_positions_inside(c):
    for size in range(1, 6):
        for kernel in range(1, 5):
            for step in range(1, 4):
                for start in range(-12, 9):
                    inside = [k for k in range(kernel) if 0 <= start + k * step < size]
                    first, end = c("window_first", start, step), c("window_end", start, step, kernel, size)
                    assert list(range(first, end)) == inside, (size, kernel, step, start)
