"""The suite itself: memory layouts, places that survive their kernels, saved cases, models, reports and commands."""

import io
import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import ckernels
import conformance.suite
from codegen.emit import KernelCall, kernel_call
from codegen.generate import generate
from codegen.target import load_target
from conformance import vectors
from conformance.cli import register
from conformance.comparison import difference
from conformance.exploration import explore
from conformance.layout import Layout, lay_out
from conformance.models import (
    CortexMModel,
    HostModel,
    ModelOutcome,
    ModelUnderTest,
    compare_model,
    open_place,
    random_samples,
)
from conformance.places import ARENA_BYTES, CortexMPlace, HostPlace, Library, Place, PlaceSpec, place_specs
from conformance.report import NotRun, Report
from conformance.runner import Plan, choose_operators, choose_places, execute
from conformance.strategies import Case, cases
from conformance.suite import ENOUGH, Outcome, compare, run_operator
from refsim.errors import ConformanceError, DataError, TinyFormerError, ToolchainError
from refsim.ops import OPERATORS
from refsim.ops.lookup import Lookup
from refsim.ops.mean import Mean
from refsim.ops.reshape import Reshape
from refsim.ops.softmax import Softmax, smallest_difference
from tests.codegen.graphs import hybrid_graph
from tests.codegen.test_cli import classifier

APP = typer.Typer()
register(APP)


def some_cases(operator: str, seed: int = 0) -> list[Case]:
    found: list[Case] = []
    explore(cases(operator), lambda case, _: found.append(case), seed)
    return found


def faulty(tmp_path: Path, operator: str, body: str) -> Library:
    """A library whose kernel for an operator with one input is `body`, with x, y, scratch and size in scope."""
    copy = tmp_path / "faulty"
    shutil.copytree(ckernels.include_dir(), copy / "include")
    (copy / "src").mkdir()
    path = copy / "src" / f"{operator}.c"
    path.write_text(
        '#include "tinyformer/kernels.h"\n'
        f"void tnf_{operator}(const tnf_{operator}_params *p, const int8_t *x, int8_t *y, void *scratch)\n"
        f"{{\n    int32_t size = p->size, i;\n    (void)scratch;\n    {body}\n}}\n"
    )
    return Library((path,), copy / "include")


def portable(place: Place) -> Place:
    """A place of a library that has portable kernels alone."""
    place.dsp = (False,)
    return place


LOOKUP = Lookup(np.arange(-128, 128).astype(np.int8)[::-1].copy())
LOOKUP_CASE = Case(LOOKUP, (np.arange(20, dtype=np.int8).reshape(1, 20),))
LOOKUP_RIGHT = "for (i = 0; i < size; i++) { y[i] = p->table[x[i] + 128]; }"


# Memory


@pytest.mark.parametrize("seed", range(40))
def test_layouts_keep_buffers_apart_and_promise_no_alignment(seed: int) -> None:
    case = some_cases("softmax" if seed % 2 else "concat", seed)[-1]
    call = kernel_call(case.op, case.shapes)
    size = case.op.run(*case.inputs).size
    layout = lay_out(call, case.inputs, size, None, seed)
    spans = [*layout.inputs, layout.output, *([layout.scratch] if layout.scratch else [])]
    ordered = sorted(spans, key=lambda span: span.start)
    assert ordered[0].start >= 16
    assert all(low.end + 16 <= high.start for low, high in pairwise(ordered))
    assert len(layout.image) % 16 == 0
    assert len(layout.image) - ordered[-1].end < 8
    for span, x in zip(layout.inputs, case.inputs, strict=True):
        assert layout.image[span.start : span.end] == x.tobytes()
    assert (layout.scratch is None) == (call.scratch_bytes == 0)
    if layout.scratch:
        assert (layout.scratch.start % 8, layout.scratch.size) == (0, call.scratch_bytes)
    assert lay_out(call, case.inputs, size, None, seed) == layout


def test_layouts_start_buffers_at_every_remainder() -> None:
    call = kernel_call(LOOKUP, ((20,),))
    layouts = [lay_out(call, LOOKUP_CASE.inputs, 20, None, seed) for seed in range(200)]
    assert {layout.output.start % 8 for layout in layouts} == set(range(8))
    assert any(layout.output.end == len(layout.image) for layout in layouts)
    assert any(layout.inputs[0].end == len(layout.image) for layout in layouts)


def changed(layout: Layout, at: int) -> bytes:
    after = bytearray(layout.image)
    after[at] ^= 0x40
    return bytes(after)


def test_a_write_anywhere_but_output_and_scratch_is_noticed() -> None:
    case = some_cases("softmax", 3)[-1]
    call = kernel_call(case.op, case.shapes)
    layout = lay_out(call, case.inputs, case.inputs[0].size, None, 7)
    assert layout.scratch is not None
    for at in range(len(layout.image)):
        after = changed(layout, at)
        inside = any(span.start <= at < span.end for span in (layout.output, layout.scratch))
        if inside:
            assert layout.collect(after) == after[layout.output.start : layout.output.end]
        else:
            with pytest.raises(ConformanceError, match="wrote 1 bytes that it must not"):
                layout.collect(after)
    with pytest.raises(ConformanceError, match="byte 0 past the end of the output"):
        layout.collect(changed(layout, layout.output.end))
    with pytest.raises(ConformanceError, match="1 bytes before the scratch"):
        layout.collect(changed(layout, layout.scratch.start - 1))
    with pytest.raises(ConformanceError, match="byte 0 of the input 0"):
        layout.collect(changed(layout, layout.inputs[0].start))


def test_in_place_the_input_is_the_output() -> None:
    call = kernel_call(LOOKUP, ((20,),))
    layout = lay_out(call, LOOKUP_CASE.inputs, 20, 0, 1)
    assert layout.output == layout.inputs[0]
    layout.collect(changed(layout, layout.inputs[0].start))


# Places


PLACES = ["host", "host-ubsan", "cortex-m7", "cortex-m4", "cortex-m33", "cortex-m0plus"]


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Any:
    opened = place_specs()[request.param].build(Library())
    yield opened
    opened.close()


@pytest.mark.parametrize("operator", OPERATORS)
def test_kernels_equal_the_golden_model(operator: str, place: Place) -> None:
    for case in some_cases(operator, 99):
        assert compare(case, case.op.run(*case.inputs)[0], place) is None


def test_a_large_case_runs(place: Place) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (1, ARENA_BYTES // 2 - 100)).astype(np.int8)
    case = Case(LOOKUP, (x,))
    assert compare(case, LOOKUP.run(x)[0], place) is None


BAD_KERNELS = {
    "wrong byte": (LOOKUP_RIGHT + " y[7] ^= 1;", r"1 of 20 bytes differ, .* index \[7\]: golden model -8, found -7"),
    "past the end": (LOOKUP_RIGHT + " y[size] = 1;", "byte 0 past the end of the output|SIGSEGV|at 0x20050000"),
    "before the start": (LOOKUP_RIGHT + " y[-1] ^= 1;", "1 bytes before the output"),
    "input changed": (LOOKUP_RIGHT + " ((int8_t *)x)[3] ^= 1;", "byte 3 of the input 0"),
    "null": ("*(volatile int8_t *)0 = 1; " + LOOKUP_RIGHT, "SIGSEGV|SIGABRT|SIGILL|SIGTRAP|0x00000000"),
    "only right in place": ("for (i = 0; i < size; i++) { y[i] = p->table[y[i] + 128]; } (void)x;", "bytes differ"),
    "only right elsewhere": (
        "for (i = 0; i < size; i++) { y[i] = 0; } " + LOOKUP_RIGHT,
        r"bytes differ.*\(tnf_lookup in place on input 0\)",
    ),
}


@pytest.mark.parametrize("body", BAD_KERNELS)
@pytest.mark.parametrize("kind", ["host", "cortex-m"])
def test_what_a_kernel_does_wrong_is_said_and_survived(body: str, kind: str, tmp_path: Path) -> None:
    code, message = BAD_KERNELS[body]
    library = faulty(tmp_path, "lookup", code)
    place = portable(
        HostPlace("host", library) if kind == "host" else CortexMPlace("m7", library, load_target("stm32f746"))
    )
    golden = LOOKUP.run(*LOOKUP_CASE.inputs)[0]
    for _ in range(2):
        failure = compare(LOOKUP_CASE, golden, place)
        assert failure is not None
        assert re.search(message, failure.message), failure.message
    place.close()


def test_reading_past_an_input_is_found_under_emulation(tmp_path: Path) -> None:
    code = "volatile int8_t sink = 0; " + LOOKUP_RIGHT + " sink = x[size]; (void)sink;"
    place = portable(CortexMPlace("m7", faulty(tmp_path, "lookup", code), load_target("stm32f746")))
    failure = compare(LOOKUP_CASE, LOOKUP.run(*LOOKUP_CASE.inputs)[0], place)
    assert failure is not None
    assert "read of 1 bytes" in failure.message
    assert "past the end of the input 0" in failure.message or "0x20050000" in failure.message


def test_reading_past_a_constant_is_found_under_emulation(tmp_path: Path) -> None:
    for offset in (-1, 256):
        folder = tmp_path / str(offset)
        folder.mkdir()
        code = f"volatile int8_t sink = 0; {LOOKUP_RIGHT} sink = p->table[{offset}]; (void)sink;"
        place = portable(CortexMPlace("m7", faulty(folder, "lookup", code), load_target("stm32f746")))
        failure = compare(LOOKUP_CASE, LOOKUP.run(*LOOKUP_CASE.inputs)[0], place)
        assert failure is not None
        assert "read of 1 bytes" in failure.message


def test_undefined_behaviour_is_found_by_the_sanitizer(tmp_path: Path) -> None:
    code = "volatile int32_t most = INT32_MAX; most = most + size; " + LOOKUP_RIGHT
    library = faulty(tmp_path, "lookup", code)
    golden = LOOKUP.run(*LOOKUP_CASE.inputs)[0]
    plain, checked = portable(HostPlace("host", library)), portable(HostPlace("ubsan", library, sanitize=True))
    assert compare(LOOKUP_CASE, golden, plain) is None
    failure = compare(LOOKUP_CASE, golden, checked)
    assert failure is not None
    assert "overflow" in failure.message
    plain.close()
    checked.close()


def test_scratch_is_not_zero_and_not_kept(tmp_path: Path) -> None:
    op = Softmax(2**30, 20, smallest_difference(20))
    call = kernel_call(op, ((4,),))
    x = np.zeros((1, 4), np.int8)
    scratches = set()
    for seed in range(5):
        layout = lay_out(call, (x,), 4, None, seed)
        assert layout.scratch is not None
        scratches.add(layout.image[layout.scratch.start : layout.scratch.end])
    assert len(scratches) == 5
    assert all(len(set(scratch)) > 100 for scratch in scratches)


def test_an_emitter_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, dsp: bool) -> tuple[KernelCall, ...]:
        raise IndexError("no such axis")

    monkeypatch.setattr(conformance.suite, "kernel_calls", broken)
    place = HostPlace("host", Library())
    failure = compare(LOOKUP_CASE, LOOKUP.run(*LOOKUP_CASE.inputs)[0], place)
    assert failure is not None
    assert "emitter fails: IndexError: no such axis" in failure.message


def test_an_emitter_with_a_wrong_dtype_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(op: Lookup, shapes: Any, dsp: bool) -> tuple[KernelCall, ...]:
        call = kernel_call(op, shapes)
        return (replace(call, params={**call.params, "table": op.table.astype(np.int16)}),)

    monkeypatch.setattr(conformance.suite, "kernel_calls", wrong)
    place = CortexMPlace("m7", Library(), load_target("stm32f746"))
    failure = compare(LOOKUP_CASE, LOOKUP.run(*LOOKUP_CASE.inputs)[0], place)
    assert failure is not None
    assert "int16" in failure.message


def test_a_place_is_given_up_after_many_mismatches(tmp_path: Path) -> None:
    constant = "for (i = 0; i < size; i++) { y[i] = 1; } (void)x;"
    place = portable(HostPlace("host", faulty(tmp_path, "lookup", constant)))
    (outcome,) = run_operator("lookup", [place], count=200, seed=0, failures=tmp_path / "failures")
    assert outcome.mismatches == ENOUGH
    assert ENOUGH <= outcome.cases < 200
    place.close()


def test_the_same_seed_gives_the_same_cases() -> None:
    def signature(seed: int) -> list[str]:
        return [repr(case) for case in some_cases("conv2d", seed)]

    assert signature(5) == signature(5)
    assert signature(5)[1:] != signature(6)[1:]


def test_exactly_as_many_cases_run_as_asked_for(tmp_path: Path) -> None:
    place = HostPlace("host", Library())
    for count in (1, 9, 10, 11, 37):
        (outcome,) = run_operator("reshape", [place], count=count, seed=3, failures=tmp_path)
        assert (outcome.cases, outcome.mismatches) == (count, 0)
    place.close()


@pytest.mark.parametrize("shape", [(), (1,), (3, 4)])
def test_difference_names_the_first_byte(shape: tuple[int, ...]) -> None:
    golden = np.zeros(shape, np.int8)
    assert difference(golden, golden.copy()) == ""
    found = golden.copy()
    found[(-1,) * len(shape)] = -5
    last = [n - 1 for n in shape]
    assert difference(golden, found) == (
        f"1 of {golden.size} bytes differ, the first at index {last}: golden model 0, found -5"
    )


# Saved cases


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize("operator", OPERATORS)
def test_saved_cases_come_back_as_they_were(operator: str, tmp_path: Path) -> None:
    for case in some_cases(operator, 4):
        golden = case.op.run(*case.inputs)[0]
        folder = vectors.save(tmp_path, case, golden, None, "host", {"seed": 4})
        vector = vectors.load(folder)
        assert same(vector.case.op, case.op)
        assert all(map(same, vector.case.inputs, case.inputs))
        assert same(vector.golden, golden)
        assert (vector.place, vector.descriptor["seed"], vector.descriptor["operator"]) == ("host", 4, operator)
        assert vectors.save(tmp_path, case, golden, None, "host", {"seed": 4}) == folder
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_saved_case_holds_the_place_and_its_output(tmp_path: Path) -> None:
    golden = LOOKUP.run(*LOOKUP_CASE.inputs)[0]
    folder = vectors.save(tmp_path, LOOKUP_CASE, golden, golden + 1, "cortex-m7", {"compiler": "zig -O2"})
    descriptor = json.loads((folder / "case.json").read_text())
    assert descriptor["compiler"] == "zig -O2"
    assert descriptor["arrays"]["input0"] == {"shape": [1, 20], "dtype": "int8"}
    assert (np.load(folder / "found.npy") == golden + 1).all()


@pytest.mark.parametrize("damage", ["nothing", "json", "array", "class", "format"])
def test_damaged_cases_are_refused(damage: str, tmp_path: Path) -> None:
    golden = LOOKUP.run(*LOOKUP_CASE.inputs)[0]
    folder = vectors.save(tmp_path, LOOKUP_CASE, golden, None, "host", {})
    descriptor = folder / "case.json"
    text = descriptor.read_text()
    if damage == "nothing":
        folder = tmp_path / "elsewhere"
    elif damage == "json":
        descriptor.write_text(text[:-20])
    elif damage == "array":
        (folder / "input0.npy").write_bytes(b"no array")
    elif damage == "class":
        descriptor.write_text(text.replace("refsim.ops.lookup:Lookup", "subprocess:Popen"))
    else:
        descriptor.write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(DataError, match=r"elsewhere|lookup-"):
        vectors.load(folder)


# Models


@pytest.mark.parametrize("where", ["host", "stm32f746", "stm32f407", "stm32u575"])
def test_a_model_equals_the_golden_model_tensor_by_tensor(where: str, tmp_path: Path) -> None:
    graph = hybrid_graph()
    model = ModelUnderTest(graph, random_samples(graph, 6))
    done = []
    outcome = compare_model(model, open_place(where, graph, tmp_path), where, 5, lambda: done.append(1))
    assert (outcome.samples, outcome.mismatches, outcome.message) == (5, 0, "")
    assert outcome.tensors == len(outcome.operators) > 30
    assert len(done) == 5
    if where == "host":
        assert outcome.instructions == ()
    else:
        assert len(outcome.instructions) == outcome.tensors
        assert min(outcome.instructions) > 0
        assert 0 < outcome.stack_bytes < 4096


@pytest.mark.parametrize("where", ["host", "rp2040"])
def test_the_first_layer_that_differs_is_named(where: str, tmp_path: Path) -> None:
    graph = hybrid_graph()
    generated = generate(graph, load_target("rp2040"), tmp_path / "out")
    source = tmp_path / "out" / "kernels" / "softmax.c"
    text = source.read_text()
    old = "tnf_rdbpot_unsigned((uint32_t)probability, right)"
    assert text.count(old) == 1
    source.write_text(text.replace(old, f"1 + {old}"))
    place = HostModel(generated) if where == "host" else CortexMModel(generated)
    outcome = compare_model(ModelUnderTest(graph, random_samples(graph, 3)), place, where, 3)
    first = next(step for step in generated.steps if "softmax" in step.call.sources)
    assert outcome.mismatches == 3
    assert f"{first.node!r} ({first.operator}), tensor {first.output!r}" in outcome.message
    assert "the first at index" in outcome.message


def test_a_model_that_writes_outside_its_arena_is_noticed(tmp_path: Path) -> None:
    graph = hybrid_graph()
    generated = generate(graph, load_target("stm32f746"), tmp_path / "out")
    source = tmp_path / "out" / "model.c"
    text = source.read_text()
    start = "    int8_t *const at = (int8_t *)arena;\n"
    assert text.count(start) == 1
    samples = ModelUnderTest(graph, random_samples(graph, 1))
    for offset in (-1, generated.arena_bytes):
        source.write_text(text.replace(start, f"{start}    at[{offset}] = 0;\n"))
        assert "outside its arena" in compare_model(samples, HostModel(generated), "host", 1).message
    assert compare_model(samples, CortexMModel(generated), "m7", 1).mismatches == 1


def test_an_output_that_is_overwritten_later_is_noticed(tmp_path: Path) -> None:
    graph = hybrid_graph()
    generated = generate(graph, load_target("stm32f746"), tmp_path / "out")
    source = tmp_path / "out" / "model.c"
    text = source.read_text()
    at = text.rindex("}")
    port = generated.outputs[0]
    source.write_text(f"{text[:at]}    at[{port.offset}] ^= 1;\n{text[at:]}")
    outcome = compare_model(ModelUnderTest(graph, random_samples(graph, 1)), HostModel(generated), "host", 1)
    assert "right when it was written but not at the end" in outcome.message


# Runs and reports


def plan(tmp_path: Path, specs: list[PlaceSpec], **more: Any) -> Plan:
    values = {"operators": ["reshape"], "models": {}, "required": False, "cases": 5, "emulated_samples": 2, **more}
    return Plan(profile="ci", seed=0, places=specs, failures=tmp_path / "failures", **values)


def missing(name: str, optional: bool) -> PlaceSpec:
    def build(_: Library) -> Place:
        raise ToolchainError("gcc-42: not found")

    return PlaceSpec(name, build, optional=optional)


def quiet() -> Any:
    from rich.progress import Progress

    return Progress(disable=True)


@pytest.mark.parametrize(
    ("optional", "required", "passed"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_missing_compiler_is_reported_and_fails_what_needs_it(
    optional: bool, required: bool, passed: bool, tmp_path: Path
) -> None:
    specs = [place_specs()["host"], missing("exotic", optional)]
    report = execute(plan(tmp_path, specs, required=required), quiet())
    assert report.passed is passed
    assert [(entry.what, entry.reason) for entry in report.not_run] == [("exotic", "gcc-42: not found")]
    assert [outcome.place for outcome in report.operators] == ["host"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.render())
    assert "not run: exotic: gcc-42: not found" in console.export_text()


def test_a_run_in_which_nothing_ran_has_not_passed(tmp_path: Path) -> None:
    assert not execute(plan(tmp_path, [missing("exotic", True)]), quiet()).passed
    assert not Report("ci", 0).passed


def test_reports_as_json_and_as_tables() -> None:
    bad = Outcome("pad", "host", 10, 3, 0.5, "1 of 2 bytes differ", Path("folder") / "pad-1")
    report = Report("ci", 7, {"host": "zig -O2"}, [bad, Outcome("add", "host", 10, 0, 0.1)])
    report.not_run.append(NotRun("m at cortex-m4", "too large", False))
    assert not report.passed
    data = json.loads(report.as_json())
    assert data["seed"] == 7
    assert data["operators"][0]["vector"] == str(Path("folder") / "pad-1")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.render())
    text = console.export_text()
    for expected in ("3 of 10", "0 of 10", "3 of 20", "--replay", "pad at host: 1 of 2 bytes differ"):
        assert expected in text


def test_names_are_checked() -> None:
    assert choose_operators(["add", "add"]) == ["add"]
    assert choose_operators([]) == list(OPERATORS)
    ci, thorough = choose_places([], thorough=False), choose_places([], thorough=True)
    assert [spec.name for spec in ci if not spec.optional] == ["definition", *PLACES]
    assert [spec.name for spec in ci if spec.optional] == ["cortex-m7-gcc"]
    assert {spec.name for spec in ci} < {spec.name for spec in thorough}
    with pytest.raises(TinyFormerError, match="no operator 'fft'; there are add"):
        choose_operators(["fft"])
    with pytest.raises(TinyFormerError, match="no place 'mars'"):
        choose_places(["mars"], thorough=True)


# Commands


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(APP, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_runs_saves_and_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["conformance", "--operator", "lookup", "--cases", 20, "--failures", tmp_path / "failures"]
    code, text = invoke(*options, "--place", "host", "--place", "cortex-m7", "--json", tmp_path / "r" / "result.json")
    assert code == 0, text
    assert "0 of 20" in text
    assert len(json.loads((tmp_path / "r" / "result.json").read_text())["operators"]) == 2
    assert not (tmp_path / "failures").exists()

    library = faulty(tmp_path, "lookup", "for (i = 0; i < size; i++) { y[i] = 1; } (void)x;")
    with monkeypatch.context() as patch:
        patch.setattr(ckernels, "sources", lambda: {"lookup": library.sources[0]})
        patch.setattr(ckernels, "include_dir", lambda: library.include)
        code, text = invoke(*options, "--place", "host")
        assert code == 1
        (saved,) = (f for f in (tmp_path / "failures").iterdir() if "relation" not in vectors.load(f).descriptor)
        code, text = invoke("conformance", "--replay", saved)
        assert code == 1
        assert "lookup at host: differs: 1 of 1 bytes differ" in text
    code, text = invoke("conformance", "--replay", saved)
    assert (code, "equals the golden model" in text) == (0, True)
    code, text = invoke("conformance", "--replay", saved, "--place", "cortex-m4")
    assert (code, "lookup at cortex-m4: equals" in text) == (0, True)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from codegen.onnx import quantize

    folder = tmp_path_factory.mktemp("classifier")
    classifier(folder / "float.onnx")
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3)).astype(np.uint8)
    np.savez(folder / "samples.npz", images=images)
    real = (images.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 128
    onnx.save(quantize(folder / "float.onnx", {"image": real}), folder / "small.onnx")
    return folder


def test_the_command_compares_models(quantised: Path) -> None:
    code, text = invoke(
        "conformance", "--model", quantised / "small.onnx", "--data", quantised / "samples.npz", "--images", 4
    )
    assert code == 0, text
    for expected in ("0 of 9", "0 of 4", "small: thousands of instructions a sample", "conv2d"):
        assert expected in text
    assert "lookup" not in text


def test_the_commands_refuse_what_they_cannot_do(quantised: Path, tmp_path: Path) -> None:
    with pytest.raises(TinyFormerError, match="--data"):
        invoke("conformance", "--data", quantised / "samples.npz")
    with pytest.raises(DataError, match="no readable test vector"):
        invoke("conformance", "--replay", tmp_path)


def test_scalars_and_the_highest_rank_run_everywhere(place: Place) -> None:
    scalar = np.array([5], np.int8)
    cases = [
        Case(LOOKUP, (scalar,)),
        Case(Reshape(()), (np.array([[3]], np.int8),)),
        Case(
            Mean(0, 5, 3, random_stage()),
            (np.frombuffer(random.Random(1).randbytes(64), np.int8).reshape(1, 2, 2, 2, 2, 2, 2),),
        ),
    ]
    for case in cases:
        assert compare(case, case.op.run(*case.inputs)[0], place) is None


def random_stage() -> Any:
    from refsim.ops import Requantization

    return Requantization.from_real(1 / 64, -3)


def test_without_hypothesis_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.cli.find_spec", lambda name: None)
    with pytest.raises(TinyFormerError, match=r"pip install \"tinyformer\[conformance\]\""):
        invoke("conformance")


def test_running_a_model_does_not_need_hypothesis() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import conformance.models, conformance.cli"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_steps_may_differ_from_place_to_place() -> None:
    report = Report("ci", 0)
    report.models += [
        ModelOutcome("net", "cortex-m7", 1, 1, 0, 0.1, instructions=(3000.0,), operators=("attention",)),
        ModelOutcome("net", "cortex-m4", 1, 2, 0, 0.1, instructions=(1000.0, 4000.0), operators=("matmul", "softmax")),
    ]
    console = Console(width=120, file=io.StringIO())
    console.print(report.render())
    assert isinstance(console.file, io.StringIO)
    rows = [line.replace("│", " ").split() for line in console.file.getvalue().splitlines()]
    assert ["attention", "3.0", "-", "100.0%"] in rows
    assert ["softmax", "-", "4.0", "0.0%"] in rows
    assert ["all", "3.0", "5.0", "100.0%"] in rows
