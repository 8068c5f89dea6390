"""Steps with a copy of their kernel: chosen where they save time, equal to the golden model, free of warnings."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refsim
from codegen import program
from codegen.choose import Choice, Optimise
from codegen.emit import kernel_calls
from codegen.generate import GeneratedModel, generate
from codegen.render import marked_files
from codegen.specialise import CONVOLUTION, CONVOLUTION_BYTES, COPIES, LEAST, specialised_steps
from codegen.target import load_target
from conformance.models import CortexMModel, ModelUnderTest, compare_model, random_samples
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware, build_shared_library, host_toolchains
from conformance.verify.folder import read_folder
from conformance.verify.reproducer import render_reproducer
from tests.codegen.graphs import hybrid_graph
from tests.codegen.test_generate import WARNINGS, contents, run_traced

TARGET = load_target("stm32f746")
ABLE = {*COPIES, CONVOLUTION}
"""Kernels of which there can be copies."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    """Every step that can be is specialised."""

    def all_able(graph, choices, optimise):
        slow = [replace(choice, time=1e9 if choice.call.kernel in ABLE else 1.0) for choice in choices]
        return specialised_steps(graph, slow, optimise)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "specialised_steps", all_able)
        folder = tmp_path_factory.mktemp("specialised") / "out"
        return generate(hybrid_graph(), TARGET, folder, optimise=Optimise.SPEED)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    return generate(hybrid_graph(), TARGET, tmp_path_factory.mktemp("plain") / "out", optimise=Optimise.SIZE)


def choices_of(graph, time):
    """The kernel call of each node for the DSP extension; `time` of those that can have copies, 1 of the others."""
    calls = [
        kernel_calls(node.op, tuple(graph.tensors[t].shape for t in node.inputs), dsp=True)[0] for node in graph.nodes
    ]
    return [Choice(call, time if call.kernel in ABLE else 1.0, "") for call in calls]


def test_copies_are_for_speed_alone():
    graph = hybrid_graph()
    choices = choices_of(graph, 1e6)
    assert specialised_steps(graph, choices, Optimise.BALANCED) == specialised_steps(graph, choices, Optimise.SIZE)
    assert specialised_steps(graph, choices, Optimise.SIZE) == frozenset()
    chosen = specialised_steps(graph, choices, Optimise.SPEED)
    assert {choices[index].call.kernel for index in chosen} == ABLE & {choice.call.kernel for choice in choices}


def test_a_copy_has_to_save_its_bytes():
    graph = hybrid_graph()
    choices = choices_of(graph, 1.0)
    stem = next(i for i, choice in enumerate(choices) if choice.call.kernel == CONVOLUTION)
    channels = choices[stem].call.params["output_c"]
    rest = sum(choice.time for choice in choices) - 1.0
    part = channels * LEAST * CONVOLUTION_BYTES / 1000  # of the model's time that the step takes where it just pays
    for factor, pays in ((1.01, True), (0.99, False)):
        time = rest * part * factor / (1 - part * factor)
        choices[stem] = replace(choices[stem], time=time)
        assert (stem in specialised_steps(graph, choices, Optimise.SPEED)) == pays


def test_every_tensor_equals_the_golden_model(model: GeneratedModel, tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(-128, 128, (16, 9, 8, 3)).astype(np.int8)
    expected = refsim.run(model.program.graph, images, trace=True)
    for name, tensor in run_traced(model, tmp_path, {"image": images}).items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_a_copy_executes_fewer_instructions(model: GeneratedModel, plain: GeneratedModel) -> None:
    graph = hybrid_graph()
    under_test = ModelUnderTest(graph, random_samples(graph, 2))
    counts = []
    for generated in (model, plain):
        outcome = compare_model(under_test, CortexMModel(generated), "stm32f746", 2)
        assert not outcome.mismatches, outcome.message
        counts.append({s.node: n for s, n in zip(generated.steps, outcome.instructions, strict=True)})
    copied = [step.node for step in model.steps if step.specialised]
    assert len(copied) >= 5
    assert sum(counts[0][node] for node in copied) < 0.9 * sum(counts[1][node] for node in copied)


@pytest.mark.parametrize("toolchain", host_toolchains(), ids=lambda tool: tool.name)
def test_host_builds_are_free_of_warnings(model: GeneratedModel, toolchain: Toolchain) -> None:
    build_shared_library(
        list(model.sources), include_dirs=model.include_dirs, toolchain=toolchain, extra_flags=WARNINGS
    )


@pytest.mark.parametrize("toolchain", arm_toolchains(), ids=lambda tool: tool.name)
def test_cortex_m_builds_are_free_of_warnings(model: GeneratedModel, toolchain: Toolchain) -> None:
    build_firmware(
        model.sources,
        TARGET,
        ["model_run"],
        include_dirs=model.include_dirs,
        toolchain=toolchain,
        extra_flags=WARNINGS[1:],
        arena_bytes=model.arena_bytes,
    )


def test_the_folder_lists_and_says_which_steps(model: GeneratedModel, plain: GeneratedModel) -> None:
    files = contents(model.folder)
    copied = [step for step in model.steps if step.specialised]
    assert sorted(name for name in files if name.startswith("steps/")) == sorted(
        f"steps/model_step{step.index:02d}_{step.operator}.c" for step in copied
    )
    assert marked_files(files["README.md"].decode()) == tuple(sorted(files))
    listed = re.findall(r"^  (\S+\.c)$", files["CMakeLists.txt"].decode(), re.MULTILINE)
    assert sorted(listed) == sorted(name for name in files if name.endswith(".c"))
    assert sorted(p.relative_to(model.folder).as_posix() for p in model.sources) == sorted(listed)
    told = f"once more for each of these steps alone: {', '.join(str(step.index) for step in copied)}."
    assert told in files["README.md"].decode() and "steps/*.c" in files["README.md"].decode()
    assert not (plain.folder / "steps").exists() and "steps" not in (plain.folder / "README.md").read_text()[:2000]


def test_a_folder_found_again_has_the_same_sources(model: GeneratedModel) -> None:
    assert sorted(read_folder(model.folder, hybrid_graph(), TARGET).sources) == sorted(model.sources)


def test_a_copied_step_can_be_reproduced_by_itself(model: GeneratedModel, tmp_path: Path) -> None:
    image = np.random.default_rng(6).integers(-128, 128, (1, 9, 8, 3)).astype(np.int8)
    tensors = {name: x[0] for name, x in refsim.run(model.program.graph, image, trace=True).items()}
    tensors |= {"image": image[0]}
    tool = host_toolchains()[0]
    for operator in ("conv2d", "transpose"):
        step = next(step for step in model.steps if step.specialised and step.operator == operator)
        text = render_reproducer(model, step, [tensors[name] for name in step.inputs], tensors[step.output])
        source, built = tmp_path / f"{operator}.c", tmp_path / operator
        source.write_text(text)
        subprocess.run([*tool.command, "-std=c99", "-O1", str(source), "-o", str(built)], check=True)
        assert subprocess.run([str(built)], check=False, capture_output=True).returncode == 0
