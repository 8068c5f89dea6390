"""The quick last steps of dsp.h against the definition in unbounded integers, in their plain C form."""

import ctypes
import random
import sys

import pytest

import ckernels
from codegen.emit.base import QUICK_SHIFTS
from conformance.opinion import definitions
from refsim.numerics import Rounding
from tests.ckernels.compilers import HOST

LIBRARY = f"quick{'.dll' if sys.platform == 'win32' else '.so'}"
SOURCE = """
#include "tinyformer/dsp.h"
int32_t is_quick(int32_t shift, int32_t rounding);
int32_t quick_byte(int32_t v, int32_t multiplier, int32_t shift, int32_t zero_point, int32_t rounding);
int32_t is_quick(int32_t shift, int32_t rounding)
{
    return tnf_is_quick(shift, rounding);
}
int32_t quick_byte(int32_t v, int32_t multiplier, int32_t shift, int32_t zero_point, int32_t rounding)
{
    return tnf_ssat8(tnf_scaled(v, tnf_scale_of(multiplier, shift, zero_point, rounding), rounding));
}
"""


@pytest.fixture(scope="module", params=HOST, ids=lambda compiler: compiler.name)
def c(request, tmp_path_factory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("quick")
    (folder / "quick.c").write_text(SOURCE)
    include = f"-I{ckernels.include_dir()}"
    request.param.run(
        "-std=c99", "-O2", "-shared", "-fPIC", "-DTNF_NO_BUILTINS", include, folder / "quick.c", "-o", folder / LIBRARY
    )
    return ctypes.CDLL(str(folder / LIBRARY))


@pytest.mark.parametrize("rounding", Rounding)
def test_the_quick_last_step_is_the_contract(c, rounding):
    rng = random.Random(int(rounding))
    for shift in range(-31, 31):
        assert c.is_quick(shift, rounding) == (shift in QUICK_SHIFTS[rounding])
    for shift in QUICK_SHIFTS[rounding]:
        for multiplier in (2**30, 2**30 + 1, 3 * 2**29, 2**31 - 1, rng.randrange(2**30, 2**31)):
            # values near the middle between two bytes, where rounding decides, and of every magnitude up to the largest
            middles = [
                round((k + 0.5) * 2.0 ** (31 - shift) / multiplier) + d for k in range(-40, 40) for d in (-1, 0, 1)
            ]
            spread = [rng.getrandbits(32) - 2**31 >> rng.randrange(32) for _ in range(100)]
            for v in {0, 1, 2**31 - 1, 2**30, *(v for v in middles if abs(v) < 2**31), *spread} - {-(2**31)}:
                for signed in (v, -v):
                    zero_point = rng.choice((-128, -3, 0, 127))
                    expected = definitions.clamp(
                        definitions.requant(signed, multiplier, shift, rounding) + zero_point, -128, 127
                    )
                    assert c.quick_byte(signed, multiplier, shift, zero_point, int(rounding)) == expected, (
                        signed,
                        shift,
                    )
