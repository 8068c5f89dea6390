"""The places: every core by every compiler and option, and room for every case."""

import numpy as np

from codegen.target import CORES
from conformance.places import ARENA_BYTES, Library, place_specs
from conformance.strategies import Case
from conformance.suite import compare
from refsim.ops.lookup import Lookup


def test_every_core_by_every_compiler_and_option() -> None:
    """zig builds the same code at -O1, -O2 and -O3."""
    suffixes = ("", "-Os", "-gcc", "-gcc-O3", "-gcc-Os")
    expected = {f"{core}{suffix}" for core in CORES for suffix in suffixes}
    found = place_specs()
    assert expected == {name for name in found if name.startswith("cortex")}
    assert [name for name, spec in found.items() if not spec.thorough] == [
        *("definition", "host", "host-ubsan", "cortex-m7", "cortex-m4", "cortex-m33", "cortex-m0plus"),
        "cortex-m7-gcc",
    ]


def test_the_smallest_chip_takes_the_largest_case() -> None:
    place = place_specs()["cortex-m3"].build(Library())
    x = np.random.default_rng(0).integers(-128, 128, (1, ARENA_BYTES // 2 - 100)).astype(np.int8)
    op = Lookup(np.arange(-128, 128).astype(np.int8)[::-1].copy())
    assert compare(Case(op, (x,)), op.run(x)[0], place) is None
    place.close()
