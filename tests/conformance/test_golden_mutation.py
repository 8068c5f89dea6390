"""Mutants of the golden model: what is made of a source, what a mutant reaches, and that one is found."""

import os
from dataclasses import replace

import pytest

pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed: pip install tinyformer[mutation]")
if not hasattr(os, "fork"):
    pytest.skip("mutants run in forked processes, which this system has not", allow_module_level=True)

from conformance.mutation.golden.mutants import files, is_compiled, mutated, source, spots
from conformance.mutation.golden.trial import COMPILED, INTERPRETED, UNIT_TESTS, Corpus, collect, dependents, judge
from conformance.mutation.mutants import Mutant
from conformance.mutation.trial import KILLED, NOT_COMPILED, SURVIVED

FILE = "ops/slice.py"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return collect(["slice", "requantize", "max_pool2d", "softmax"], 10, 0, lambda: None)


def changed(old: str, new: str, file: str = FILE, function: str = "") -> Mutant:
    lines = source(file).split("\n")
    line = next(i for i, text in enumerate(lines, 1) if old in text)
    return Mutant(file, line, function, lines[line - 1], lines[line - 1].replace(old, new), "")


def test_every_mutant_is_one_line_of_code_changed() -> None:
    found = [spot.mutant() for spot in spots(FILE)]
    assert len({mutant.name for mutant in found}) == len(found) > 20
    for mutant in found:
        assert mutant.old != mutant.new
        assert mutant.function.split(".")[0] == "Slice"
        before, after = source(FILE).split("\n"), mutated(mutant).split("\n")
        assert [i for i, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b] == [mutant.line]


def test_types_are_no_mutants() -> None:
    assert "-> Int8Array" in source("ops/base.py")
    for file in ("matrices.py", "ops/base.py"):
        unions = [i for i, line in enumerate(source(file).split("\n"), 1) if " | " in line and "def " in line]
        lines = [spot.mutant() for spot in spots(file) if "BitOr" in spot.rule]
        assert unions
        assert not [m for m in lines if m.line in unions]


def test_what_holds_a_files_code_is_compiled_anew() -> None:
    assert dependents("ops/softmax.py") == {"refsim.ops.softmax", "refsim.ops.attention"}
    assert "refsim.ops.conv2d" in dependents("planes.py")
    assert "refsim.ops.softmax" not in dependents("planes.py")
    assert dependents("numerics.py") >= {"refsim.ops.requantize", "refsim.matrices", "refsim.planes"}
    assert set(files()) >= {"numerics.py", "ops/softmax.py", "ops/base.py"}


def test_only_what_numba_compiles_is_compiled_anew() -> None:
    windows = [spot.mutant() for spot in spots("windows.py")]
    assert {m.function for m in windows if is_compiled(m)} == {"inside"}
    assert {m.function for m in windows if not is_compiled(m)} >= {"image_shape", "Window.output_size"}
    assert {m.function for m in (s.mutant() for s in spots("numerics.py")) if not is_compiled(m)} >= {
        "check_multiplier"
    }
    constants = [m for m in (s.mutant() for s in spots("numerics.py")) if not m.function]
    assert constants
    assert all(map(is_compiled, constants))


def test_a_fault_is_found(corpus: Corpus) -> None:
    spot = next(spot for spot in spots(FILE) if "Number" in spot.rule and "run" in spot.mutant().function)
    verdict = judge(spot.mutant(), corpus)
    assert (verdict.status, verdict.place) == (KILLED, INTERPRETED)


@pytest.mark.parametrize("file", ["numerics.py", "windows.py", "ops/softmax.py"])
def test_without_a_fault_python_computes_what_numba_does(corpus: Corpus, file: str) -> None:
    assert judge(changed("import", "import", file), corpus, compiled=False).status == SURVIVED


def test_a_last_bit_is_found_where_no_byte_shows_it(corpus: Corpus) -> None:
    verdict = judge(changed("1895147668) +", "1895147669) +", "ops/softmax.py"), corpus, compiled=False)
    assert (verdict.status, verdict.place) == (KILLED, INTERPRETED)


def test_what_only_compiled_code_can_tell_is_left_to_it(corpus: Corpus) -> None:
    """Numba makes -128 of int8(128), where NumPy refuses; so it is no fault."""
    wraps = changed("column_max = ", "column_max = 0 * int(np.int8(128)) or ", "ops/max_pool2d.py", "_max_pool2d")
    assert judge(wraps, corpus, compiled=False).status == SURVIVED


def test_what_overflows_is_judged_when_it_is_compiled(corpus: Corpus) -> None:
    verdict = judge(changed("return np.asc", "return np.int8(300) * np.asc", function="Slice.run"), corpus)
    assert (verdict.status, verdict.place, verdict.how) == (KILLED, COMPILED, "an operator fails")


def test_a_limit_that_is_moved_is_found_by_a_unit_test(corpus: Corpus) -> None:
    verdict = judge(changed("LONGEST_ROW = 4095", "LONGEST_ROW = 4096", "ops/softmax.py"), corpus, compiled=False)
    assert (verdict.status, verdict.place) == (KILLED, UNIT_TESTS)


def test_what_is_no_code_is_no_fault(corpus: Corpus) -> None:
    mutant = changed("def run(", "def run((")
    assert judge(replace(mutant, function="Slice.run"), corpus).status == NOT_COMPILED
