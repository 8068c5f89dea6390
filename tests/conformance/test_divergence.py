"""The first divergence: every operator's accumulator against the golden model, seeded faults, reproducers that run."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import refsim
from codegen.generate import GeneratedModel, generate
from codegen.target import load_target
from conformance import qemu
from conformance.firmware.build import board_for, build_program_firmware
from conformance.models import HostModel, Trace, random_samples
from conformance.toolchain import arm_toolchains, host_toolchains
from conformance.verify.divergence import OVERWRITTEN, first_divergence
from conformance.verify.origin import LINES, Source, origin
from conformance.verify.result import Divergence
from conformance.verify.samples import Sample
from refsim import Graph
from refsim.numerics import Int8Array, clamp, requantize
from refsim.ops.attention import Attention
from refsim.ops.base import Operator, Requantization
from refsim.ops.concat import Concat
from refsim.ops.matmul import MatMul
from refsim.ops.softmax import Softmax
from tests.codegen.graphs import hybrid_graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return hybrid_graph()


@pytest.fixture(scope="module")
def sample(graph: Graph) -> Sample:
    batch = random_samples(graph, 1, seed=3)
    tensors = refsim.run(graph, batch, trace=True)
    return Sample("0 (random)", {name: x[0] for name, x in batch.items()}, {name: x[0] for name, x in tensors.items()})


@pytest.fixture
def model(graph: Graph, tmp_path: Path) -> GeneratedModel:
    return generate(graph, load_target("stm32f746"), tmp_path / "model")


def elements(data: Int8Array) -> list[tuple[int, ...]]:
    """Some elements of a tensor, first and last among them."""
    picked = np.unique(np.linspace(0, data.size - 1, 9).astype(int))
    return [tuple(int(i) for i in np.unravel_index(at, data.shape)) for at in picked]


def last_stage(op: Operator) -> Requantization:
    stage = op.context.output if isinstance(op, Attention) else op.output
    assert isinstance(stage, Requantization)
    return stage


def finished(op: Operator, accumulator: int, channel: int) -> int:
    stage = last_stage(op)
    at = channel if stage.multiplier.size > 1 else 0
    scaled = requantize(accumulator, int(stage.multiplier[at]), int(stage.shift[at]), int(stage.rounding))
    return int(clamp(scaled + stage.zero_point, stage.act_min, stage.act_max))


def test_accumulators_of_every_operator_end_in_the_golden_model_s_bytes(graph: Graph, sample: Sample) -> None:
    with_accumulator = set()
    for node in graph.nodes:
        sources = [Source(t, graph.constants[t] if t in graph.constants else sample.golden[t]) for t in node.inputs]
        golden = sample.golden[node.output]
        for element in elements(golden):
            explained = origin(node.op, sources, element)
            assert explained.terms, node.op.name
            if explained.accumulator is None or isinstance(node.op, Concat):
                continue
            with_accumulator.add(node.op.name)
            if node.op.name == "average_pool2d":
                count = len(explained.terms)
                magnitude = (2 * abs(explained.accumulator) + count) // (2 * count)
                assert golden[element] == (magnitude if explained.accumulator >= 0 else -magnitude)
            else:
                assert golden[element] == finished(node.op, explained.accumulator, element[-1]), node.op.name
    assert with_accumulator == {
        *("add", "average_pool2d", "conv2d", "depthwise_conv2d", "layernorm"),
        *("linear", "matmul", "mean", "mul", "requantize"),
    }


@pytest.mark.parametrize("name", ["concat", "lookup", "max_pool2d", "pad", "reshape", "slice", "softmax", "transpose"])
def test_copied_bytes_are_followed_to_their_source(name: str, graph: Graph, sample: Sample) -> None:
    for node in (node for node in graph.nodes if node.op.name == name):
        sources = [Source(t, graph.constants[t] if t in graph.constants else sample.golden[t]) for t in node.inputs]
        golden = sample.golden[node.output]
        for element in elements(golden):
            explained = origin(node.op, sources, element)
            values = [term.value for term in explained.terms]
            if name in ("pad", "reshape", "slice", "transpose"):
                assert values == [golden[element]]
            elif name == "max_pool2d":
                assert max(values) == golden[element]
            elif name == "lookup":
                assert node.op.table[values[0] + 128] == golden[element]
            elif name == "softmax":
                assert len(values) == golden.shape[-1]
            else:
                assert len(values) == 1


def test_attention_s_accumulator_is_that_of_its_values() -> None:
    rng = np.random.default_rng(5)
    stage = Requantization.from_real(0.004, 2)
    op = Attention(MatMul(1, 2, stage, True), Softmax.from_scale(0.05), MatMul(-128, 3, stage))
    inputs = [rng.integers(-128, 128, (2, 5, 4)).astype(np.int8) for _ in range(3)]
    golden = op.run(*(x[None] for x in inputs))[0]
    sources = [Source(name, x) for name, x in zip("qkv", inputs, strict=True)]
    for element in elements(golden):
        accumulator = origin(op, sources, element).accumulator
        assert accumulator is not None
        assert golden[element] == finished(op, accumulator, element[-1])


def test_nothing_differs(model: GeneratedModel, sample: Sample) -> None:
    assert first_divergence(model, sample, HostModel(model).run(sample.inputs), place="host") is None


def wrong_multiplier(text: str) -> str:
    at = text.index("_conv2d_multiplier[")
    start = text.index("{", at) + 1
    first = text[start : text.index(",", start)]
    return text[:start] + f"\n {int(first) // 2 + 2**29}" + text[start + len(first) :]


def swapped_weights(text: str) -> str:
    start = text.index("{", text.index("_linear_weight[")) + 1
    first, second = text[start:].split(",", 2)[:2]
    assert first.strip() != second.strip()
    return text[:start] + f"{second},{first}" + text[start + len(first) + 1 + len(second) :]


def run_reproducer(text: bytes, folder: Path) -> tuple[int, str]:
    """Build with the command that the file documents, on the compiler that comes with the package, and run it."""
    tool, path, program = host_toolchains()[0], folder / "reproducer.c", folder / "reproducer"
    path.write_bytes(text)
    command = [*tool.command, "-std=c99", "-O2", "-o", str(program), str(path)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def diverge(model: GeneratedModel, sample: Sample) -> tuple[Divergence, dict[str, bytes]]:
    files: dict[str, bytes] = {}
    trace = HostModel(model).run(sample.inputs)
    found = first_divergence(model, sample, trace, place="host zig -O2", attachments=files)
    assert found is not None
    return found, files


def kernel_fault(model: GeneratedModel) -> None:
    kernel = model.folder / "kernels" / "softmax_dsp.c"
    text = kernel.read_text()
    assert "- 128" in text
    kernel.write_text(text.replace("- 128", "- 127"))


def edited(edit: Callable[[str], str]) -> Callable[[GeneratedModel], None]:
    def change(model: GeneratedModel) -> None:
        source = model.folder / "model.c"
        source.write_text(edit(source.read_text()))

    return change


@pytest.mark.parametrize(
    ("fault", "operator"),
    [(edited(wrong_multiplier), "depthwise_conv2d"), (edited(swapped_weights), "linear"), (kernel_fault, "attention")],
    ids=["multiplier", "weights", "kernel"],
)
def test_reproducer_fails_with_the_fault_and_passes_without(
    fault: Callable[[GeneratedModel], None], operator: str, model: GeneratedModel, sample: Sample, tmp_path: Path
) -> None:
    original = {path: path.read_text() for path in model.folder.rglob("*.[ch]")}
    fault(model)
    found, files = diverge(model, sample)
    assert found.operator == operator
    assert sample.golden[found.tensor][found.element] == found.expected != found.found
    assert found.accumulator is not None
    assert 1 <= len(found.contributions) <= LINES + 1
    assert found.reproducer == "divergence-host-zig-O2.c"
    code, text = run_reproducer(files[found.reproducer], tmp_path)
    assert code == 1
    assert f"golden model {found.expected}, found {found.found}" in text

    # The same step of the folder as it was: its reproducer passes.
    for path, content in original.items():
        path.write_text(content)
    golden = Trace(*_as_golden(model, sample))
    broken = bytearray(golden.log)
    broken[sum(step.bytes for step in model.steps[: found.step])] ^= 1
    again = first_divergence(model, sample, Trace(bytes(broken), golden.outputs), place="host", attachments=files)
    assert again is not None
    assert again.step == found.step
    assert run_reproducer(files[again.reproducer], tmp_path)[0] == 0


def test_reproducers_of_all_steps_pass(model: GeneratedModel, sample: Sample, tmp_path: Path) -> None:
    golden = Trace(*_as_golden(model, sample))
    at = 0
    seen = set()
    files: dict[str, bytes] = {}
    for step in model.steps:
        broken = bytearray(golden.log)
        broken[at] ^= 1
        at += step.bytes
        place = f"step {step.index}"
        found = first_divergence(model, sample, Trace(bytes(broken), golden.outputs), place=place, attachments=files)
        assert found is not None
        assert (found.step, found.node) == (step.index, step.node)
        assert bool(found.reproducer) == (not step.elided)
        if found.reproducer and step.operator not in seen:
            seen.add(step.operator)
            assert run_reproducer(files[found.reproducer], tmp_path)[0] == 0, step.operator
    assert len(seen) >= 15


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")
def test_reproducer_boots_on_a_chip(model: GeneratedModel, sample: Sample, tmp_path: Path) -> None:
    kernel_fault(model)
    found, files = diverge(model, sample)
    source = tmp_path / "reproducer.c"
    source.write_bytes(files[found.reproducer])
    board = board_for(model.target)
    assert board is not None
    for tool in arm_toolchains():
        elf = build_program_firmware([source], board, toolchain=tool)
        assert qemu.run_image(elf, board, tmp_path) == (1, "")


def test_an_output_that_is_overwritten_later(model: GeneratedModel, sample: Sample) -> None:
    log, outputs = _as_golden(model, sample)
    spoilt = bytes([outputs[-1][0] ^ 1]) + outputs[-1][1:]
    found = first_divergence(model, sample, Trace(log, (*outputs[:-1], spoilt)), place="host")
    assert found is not None
    assert found.tensor == model.outputs[-1].tensor
    assert found.contributions == (OVERWRITTEN,)
    assert found.accumulator is None


def test_a_folder_without_the_step_says_that_there_is_no_reproducer(model: GeneratedModel, sample: Sample) -> None:
    log, outputs = _as_golden(model, sample)
    broken = Trace(bytes([log[0] ^ 1]) + log[1:], outputs)
    source = model.folder / "model.c"
    source.write_text(source.read_text().replace("TRACE_MARK(0);", ""))
    files: dict[str, bytes] = {}
    found = first_divergence(model, sample, broken, place="host", attachments=files)
    assert found is not None
    assert (found.reproducer, files) == ("", {})
    assert "step 0 cannot be reproduced" in found.contributions[-1]


def test_lines_say_what_is_left_out() -> None:
    op = hybrid_graph().nodes[0].op
    data = np.full((9, 8, 3), 5, np.int8)
    explained = origin(op, [Source("image", data)], (4, 4, 0))
    lines = explained.lines()
    assert len(lines) == LINES + 1
    shown = sorted(explained.terms, key=lambda term: -abs(term.value))[LINES:]
    assert lines[-1] == f"and {len(shown)} more, {sum(term.value for term in shown)} together"


def _as_golden(model: GeneratedModel, sample: Sample) -> tuple[bytes, tuple[bytes, ...]]:
    log = b"".join(sample.golden[step.output].tobytes() for step in model.steps)
    return log, tuple(sample.golden[port.tensor].tobytes() for port in model.outputs)
