"""Parts of a validation: samples that reach extremes, the bound of the stack, sanitizers, rules of the emulator."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from codegen.generate import GeneratedModel, generate
from codegen.program import build_program
from codegen.target import load_target
from conformance.emulator import CortexM
from conformance.models import random_samples
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware, host_toolchains, stack_usage
from conformance.verify.folder import read_folder
from conformance.verify.memory import memory_use, used_bytes
from conformance.verify.samples import adversarial_inputs, extremes, samples
from conformance.verify.stack import stack_bound
from conformance.verify.undefined import run_sanitized
from refsim.errors import DataError, EmulationError
from refsim.ops.base import Operator
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from tests.codegen.graphs import hybrid_graph
from tests.conformance.test_verify_defects import DEFECTS, GRAPH

TARGET = load_target("rp2040")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    return generate(GRAPH, TARGET, tmp_path_factory.mktemp("parts") / "out")


def test_samples_are_the_users_first_and_then_adversarial() -> None:
    real = random_samples(GRAPH, 2)
    found = samples(GRAPH, real, seed=3)
    assert [sample.name for sample in found[:3]] == ["0 (data)", "1 (data)", "2 (all -128)"]
    assert (found[1].inputs["x"] == real["x"][1]).all()
    assert {tuple(np.unique(x["x"])) for _, x in adversarial_inputs(GRAPH, 0)} >= {(-128,), (127,), (-128, 127)}
    assert found[0].golden.keys() == GRAPH.tensors.keys()


def largest_sums(op: Operator, x: np.ndarray) -> np.ndarray:
    """The largest sum over the positions of each output channel, as far from what it could be at most."""
    if isinstance(op, Linear):
        sums = x.reshape(-1, x.shape[-1]).astype(int) @ op.weight.astype(int).T
        bound = np.where(op.weight > 0, 127 * op.weight.astype(int), -128 * op.weight.astype(int)).sum(axis=1)
        return bound - sums.max(axis=0)
    raise AssertionError(op)


def test_every_row_of_a_linear_layer_drives_another_channel_to_its_bound() -> None:
    program = build_program(GRAPH)
    for run in extremes(program, seed=0):
        if run.name == "extreme: largest sums":
            for node, inputs in zip(program.graph.nodes, run.inputs, strict=True):
                if isinstance(node.op, Linear):
                    assert (largest_sums(node.op, inputs[0]) == 0).sum() >= min(3, len(node.op.weight))


@pytest.mark.parametrize("kind", [Conv2D, DepthwiseConv2D])
def test_windows_drive_convolutions_to_their_bound(kind: type[Conv2D] | type[DepthwiseConv2D]) -> None:
    node = next(node for node in hybrid_graph().nodes if type(node.op) is kind and node.name != "block/expand")
    op = node.op
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    program = build_program(hybrid_graph())
    step = next(step for step in program.steps if step.node == node.name)
    (run,) = [run for run in extremes(program, seed=0) if run.name == "extreme: largest sums"]
    x = run.inputs[step.index][0].astype(int)
    weight = op.weight.astype(int)
    # Some window is aligned, tap by tap, with the weights of a channel.
    kernels = list(weight) if kind is Conv2D else [weight]
    height, width = kernels[0].shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    aligned = [np.where(kernel > 0, 127, -128) for kernel in kernels]
    assert any((windows == signs).all(axis=(2, 3, 4)).any() for signs in aligned)


def test_extremes_are_what_the_golden_operators_make_of_the_bytes_in_the_arena() -> None:
    program = build_program(hybrid_graph())
    for run in extremes(program, seed=1):
        for node, inputs, golden in zip(program.graph.nodes, run.inputs, run.golden, strict=True):
            assert (node.op.run(*(x[None] for x in inputs))[0] == golden).all()


SOURCE = """
int leaf(int *p);
int recursive(int n);
int by_pointer(int n);
int chain(int n);
int dynamic(int n);
static int hidden(int n) { volatile int room[50]; room[n & 1] = n; return room[0]; }
int (*const table[])(int) = {hidden};
int leaf(int *p) { volatile int room[20]; room[p[0] & 1] = 1; return room[0]; }
__attribute__((noinline)) int recursive(int n) { volatile int kept = n; return n ? recursive(n - 1) + kept : 0; }
int by_pointer(int n) { return table[n & 0](n) + 1; }
int chain(int n) { volatile int room[10]; room[0] = n; return leaf((int *)room) + 1; }
"""


@pytest.mark.parametrize("toolchain", arm_toolchains(), ids=lambda tool: tool.name)
@pytest.mark.parametrize("core", ["rp2040", "stm32f746"])
def test_the_bound_of_the_stack(toolchain: Toolchain, core: str, tmp_path: Path) -> None:
    target, source = load_target(core), tmp_path / "chains.c"
    source.write_text(SOURCE)
    entries = ["leaf", "recursive", "by_pointer", "chain"]
    flags = ("-fno-inline", "-fno-optimize-sibling-calls", "-Wno-unknown-warning-option")
    elf = build_firmware([source], target, entries, toolchain=toolchain, extra_flags=flags)
    machine = CortexM(target, elf)
    for usage in (stack_usage([source], target, toolchain=toolchain, extra_flags=flags), {}):
        leaf, chain, pointer = (stack_bound(elf, machine, name, usage) for name in ("leaf", "chain", "by_pointer"))
        assert leaf.bytes is not None and leaf.bytes >= 80
        assert chain.bytes is not None and chain.bytes >= leaf.bytes + 40
        assert chain.chain == ("chain", "leaf")
        assert pointer.bytes is not None and pointer.bytes >= 200
        seen = machine.call("chain", 1).stack_bytes
        assert seen <= chain.bytes <= seen + 16
        assert (leaf.accounted, leaf.functions) == (1 if usage else 0, 1)
        recursive = stack_bound(elf, machine, "recursive", usage)
        assert recursive.bytes is None
        assert "recursive is recursive" in recursive.reason


@pytest.mark.parametrize("toolchain", host_toolchains(), ids=lambda tool: tool.name)
def test_sanitizers_of_every_compiler_find_an_overflow(
    toolchain: Toolchain, model: GeneratedModel, tmp_path: Path
) -> None:
    given = [*samples(GRAPH, random_samples(GRAPH, 1), 0), *extremes(model.program, 0)]
    whole = run_sanitized(model, given, toolchain)
    assert (whole.message, whole.mismatch, whole.runs) == ("", None, len(given))
    assert "undefined" in whole.sanitizers
    (defect,) = [defect for defect in DEFECTS if defect.name == "accumulator overflow"]
    folder = tmp_path / "out"
    shutil.copytree(model.folder, folder)
    (folder / "model.c").write_text(defect.edit((folder / "model.c").read_text()))
    found = run_sanitized(read_folder(folder, GRAPH, TARGET), given, toolchain)
    assert re.search(defect.says, found.message)


def test_the_memory_of_an_image(model: GeneratedModel) -> None:
    elf = build_firmware(
        model.sources, TARGET, ["model_run"], include_dirs=model.include_dirs, arena_bytes=model.arena_bytes
    )
    uses = {use.name: use for use in memory_use(elf, TARGET, arena_bytes=model.arena_bytes, stack_bytes=4096)}
    flash, sram = uses[TARGET.code_region], uses[TARGET.data_region]
    constants = next(part.bytes for part in flash.parts if part.name == "constants")
    assert constants >= model.program.constant_bytes - 4 * 64  # words of parameter structs that are merged or smaller
    assert {part.name: part.bytes for part in sram.parts} == {"stack": 4096, "arena": model.arena_bytes}
    assert used_bytes(flash) < 16384


def test_a_folder_is_read_as_it_is(model: GeneratedModel, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(model.folder, folder)
    found = read_folder(folder, GRAPH, TARGET)
    assert (found.prefix, found.arena_bytes, found.inputs, found.outputs) == (
        "model",
        model.arena_bytes,
        model.inputs,
        model.outputs,
    )
    assert {path.name for path in found.sources} == {path.name for path in model.sources}
    header = folder / "model.h"
    header.write_text(header.read_text().replace(f"BYTES {model.arena_bytes}", "BYTES 9999"))
    assert read_folder(folder, GRAPH, TARGET).arena_bytes == 9999
    header.write_text(header.read_text().replace("ARENA_BYTES", "ARENA"))
    with pytest.raises(DataError, match="how large its arena is"):
        read_folder(folder, GRAPH, TARGET)


def test_another_pattern_in_ram(model: GeneratedModel) -> None:
    elf = build_firmware(model.sources, TARGET, ["model_run"], include_dirs=model.include_dirs, arena_bytes=512)
    machine = CortexM(TARGET, elf, pattern=0x5A)
    assert machine.read(machine.arena[0], 64) == bytes([0x5A]) * 64
    assert machine.call("model_run", machine.arena[0]).stack_bytes > 0
    with pytest.raises(EmulationError):
        machine.call("model_run", machine.arena[1])
