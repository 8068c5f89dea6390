"""Twelve seeded defects in generated C, each found by the check that asks for it."""

import functools
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from codegen.choose import Optimise
from codegen.generate import GeneratedModel, generate
from codegen.target import Target, load_target
from conformance.models import ModelUnderTest, random_samples
from conformance.toolchain import arm_toolchains
from conformance.verify.checks import Compiler
from conformance.verify.result import Check, Outcome, Report
from conformance.verify.runner import Plan, verify
from refsim import Graph, TensorType
from refsim.numerics import Int8Array
from refsim.ops import Requantization
from refsim.ops.add import Add
from refsim.ops.linear import Linear
from tests.codegen.graphs import Builder

TARGET = "rp2040"  # Cortex-M0+: portable kernels, and every unaligned access traps


def small_graph() -> Graph:
    """A dense layer, a sparse one, and their sum: both are in use at once."""
    rng = np.random.default_rng(1)
    b = Builder("tiny")

    def linear(name: str, source: str, weight: Int8Array) -> str:
        bias = rng.integers(-500, 500, len(weight)).astype(np.int32)
        stage = Requantization.from_real(np.full(len(weight), 0.004), 5)
        op = Linear(weight, bias, b.tensors[source].zero_point, stage)
        return b.add(name, op, source, like=TensorType((), 1 / 32, 5))

    weight = rng.integers(-127, 128, (16, 16)).astype(np.int8)
    mask = rng.random((16, 16)) < 0.15
    dense = linear("dense", b.input("x", (3, 16)), weight)
    sparse = linear("sparse", dense, np.where(mask, weight[::-1], 0).astype(np.int8))
    y = b.tensors[sparse]
    total = b.add("sum", Add.from_types(b.tensors[dense], y, y), dense, sparse, like=y)
    return b.graph(linear("last", total, weight[:8]))


GRAPH = small_graph()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    """The folder without a defect."""
    return generate(GRAPH, load_target(TARGET), tmp_path_factory.mktemp("whole") / "out", optimise=Optimise.SIZE)


def run(folder: Path, wanted: str, *, target: Target | None = None, flags: tuple[str, ...] = ()) -> Report:
    model_file = folder / "model.c"  # its hash stands for a model file's, which a graph of tests has not
    plan = Plan(
        path=model_file,
        model=ModelUnderTest(GRAPH, random_samples(GRAPH, 2)),
        targets=[target or load_target(TARGET)],
        compilers=[Compiler(arm_toolchains()[0], flags=flags)],
        wanted=frozenset({wanted}),
        folder=folder,
    )
    return verify(plan)[0]


def found(report: Report, name: str) -> Check:
    (check,) = [check for check in report.checks if check.name == name]
    return check


def after(step: int, statement: str) -> Callable[[str], str]:
    """Put a statement after a step; {out} is where its output lies, {end} the byte after it."""

    def edit(text: str) -> str:
        trace = re.search(rf"    TRACE_TENSOR\({step}, at \+ (\d+), (\d+)\);\n", text)
        assert trace is not None
        out, size = int(trace[1]), int(trace[2])
        line = statement.replace("{out}", str(out)).replace("{end}", str(out + size))
        return text.replace(trace[0], f"    {line}\n{trace[0]}")

    return edit


def replaced(text: str, pattern: str, by: str) -> str:
    new, count = re.subn(pattern, by, text, count=1)
    assert count == 1 and new != text, f"the C has no {pattern}"
    return new


def overlapping(text: str) -> str:
    """The sparse layer's output on top of the dense layer's, which it reads itself and the sum once more."""
    dense, sparse = (int(at) for at in re.findall(r"TRACE_TENSOR\([01], at \+ (\d+), 48\)", text))
    assert abs(dense - sparse) >= 48
    begin = text.index("/* 1: sparse")
    return text[:begin] + text[begin:].replace(f"at + {sparse},", f"at + {dense - 8},")


def uninitialised(text: str) -> str:
    """The dense layer's first byte takes a bit from what was there before."""
    out = re.search(r"TRACE_TENSOR\(0, at \+ (\d+),", text)
    assert out is not None
    text = text.replace("    TRACE_MARK(0);\n", f"    TRACE_MARK(0);\n    const int8_t before = at[{out[1]}];\n")
    return after(0, "at[{out}] = (int8_t)(at[{out}] ^ (before & 1));")(text)


def swapped(text: str) -> str:
    return replaced(text, r"(step0_linear_weight\[256\] = \{\s+)(-?\d+),(\s+)(-?\d+),", r"\1\4,\3\2,")


def longer_run(text: str) -> str:
    """One more in the highest byte of the first row's distances: its last block is a block too far."""
    at = re.search(r"step1_linear_weight\[\d+\] = \{\s+-?\d+,\s+(\d+),", text)
    assert at is not None
    return text.replace(f" {at[1]},", f" {int(at[1]) + (1 << 24)},", 1)


@dataclass(frozen=True)
class Defect:
    """What is done to model.c, the check that must find it, and what it must say."""

    name: str
    check: str
    edit: Callable[[str], str]
    says: str


DEFECTS = (
    Defect("buffer overlap in the plan", "bit-exact", overlapping, "step 1 'sparse'|step 2 'sum'"),
    Defect("stray writes of an overlapping plan", "memory-access", overlapping, r"sparse \(linear\).*write of"),
    Defect(
        "stack overflow",
        "stack",
        after(0, "volatile int8_t room[20000]; for (int32_t i = 0; i < 20000; i++) { room[i] = at[i & 1]; }"),
        r"static bound 20\d\d\d bytes \(model_run",
    ),
    Defect(
        "stray write one byte past a tensor", "memory-access", after(3, "at[{end}] = 1;"), r"last.*write of 1 bytes"
    ),
    Defect(
        "wrong multiplier",
        "bit-exact",
        lambda text: replaced(text, r"(step0_linear_multiplier\[16\] = \{\s+)\d+", r"\g<1>1199511628"),
        r"step 0 'dense'.*\[0, 0\]",
    ),
    Defect("swapped weights", "bit-exact", swapped, r"step 0 'dense'.*\[0, 0\]"),
    Defect("uninitialised read", "uninitialised", uninitialised, "step 0 'dense' .* depends on what memory held"),
    Defect(
        "accumulator overflow",
        "undefined-behaviour",
        lambda text: replaced(text, r"(step0_linear_bias\[16\] = \{\s+)-?\d+", r"\g<1>2147483640"),
        r"numerics\.h:\d+: signed integer overflow",
    ),
    Defect("mis-encoded run length", "bit-exact", longer_run, "step 1 'sparse'"),
    Defect(
        "nondeterminism",
        "deterministic",
        after(0, "{ static int32_t calls; calls++; at[{out}] = (int8_t)(calls & 1); }"),
        "run again, differs at step 0",
    ),
    Defect(
        "misaligned access on M0+",
        "alignment",
        after(0, "{ volatile int32_t *word = (volatile int32_t *)(void *)(at + {out} + 1); *word = *word; }"),
        "read of 4 bytes at .* unaligned",
    ),
)


@pytest.mark.parametrize("check", sorted({defect.check for defect in DEFECTS}))
def test_the_whole_folder_passes(check: str, whole: GeneratedModel) -> None:
    assert found(run(whole.folder, check), check).outcome is Outcome.PASSED


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_found_by_its_check(defect: Defect, whole: GeneratedModel, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(whole.folder, folder)
    source = folder / "model.c"
    source.write_text(defect.edit(source.read_text()))
    check = found(run(folder, defect.check), defect.check)
    assert check.outcome is Outcome.FAILED
    assert re.search(defect.says, check.detail), check.detail


def padded(text: str, size: int) -> str:
    """The model with so many bytes of constants more, which are read so that they are linked."""
    pad = f"static const volatile int8_t pad[{size}] = {{0}};\n"
    return after(0, "(void)pad[at[0] & 1];")(text.replace("void model_run", f"{pad}void model_run"))


def test_an_image_one_byte_too_large_does_not_fit(whole: GeneratedModel, tmp_path: Path) -> None:
    size = 16 * 1024
    chip = load_target(TARGET)
    memory = [replace(region, size=size, timing=()) if region.kind == "flash" else region for region in chip.memory]
    small = replace(chip, memory=tuple(memory))

    @functools.cache
    def flash(pad: int) -> Check:
        folder = tmp_path / f"pad{pad}"
        shutil.copytree(whole.folder, folder)
        (folder / "model.c").write_text(padded(whole.sources[0].read_text(), pad))
        return found(run(folder, "flash", target=small), "flash")

    used = flash(16).figure
    assert used is not None
    fitting = 16 + size - int(used)  # and a few bytes more, since the image ends at a multiple of 16
    too_large = fitting + 16
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        fitting, too_large = (middle, too_large) if flash(middle).outcome is Outcome.PASSED else (fitting, middle)
    fits, check = flash(fitting), flash(too_large)
    assert (fits.outcome, fits.figure, fits.limit) == (Outcome.PASSED, size, size)
    assert (check.outcome, check.limit) == (Outcome.FAILED, size)
    assert check.figure is not None and check.figure > size
    assert "bytes more than flash has" in check.detail


def test_a_compiler_flag_that_breaks_exactness_is_found(whole: GeneratedModel) -> None:
    report = run(whole.folder, "bit-exact", flags=("-U__INT64_TYPE__", "-D__INT64_TYPE__=int"))
    check = found(report, "bit-exact")
    assert check.outcome is Outcome.FAILED
    assert "step 0 'dense'" in check.detail
    assert check.place.endswith("-D__INT64_TYPE__=int")
