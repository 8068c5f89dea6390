"""ResourceEval against what is generated and linked."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from codegen.code_size import code_bytes
from codegen.generate import generate
from codegen.program import build_program
from codegen.target import Target, load_target
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware, image_usage
from nas.layers import describe
from nas.resources import Limits, ResourceEval, Resources, integer_graph
from nas.sampling import random_architecture
from nas.space import Architecture, load_space
from nas.writer import random_weights
from refsim.errors import ModelError, TargetError

SMALL_RESOURCES = Resources(
    parameters=10,
    kept_parameters=8,
    constant_bytes=600,
    code_bytes=400,
    arena_bytes=200,
    unfused_arena_bytes=300,
    stack_bytes=100,
    macs=1,
    cycles=2e6,
    latency_ms=10.0,
)


def draw(space: str, seed: int) -> Architecture:
    return random_architecture(load_space(space), np.random.default_rng(seed))


def without_timing(target: Target) -> Target:
    """The target as one whose memory may have any size: its kernels are chosen by its core alone."""
    regions = (target.region(target.code_region), target.region(target.data_region))
    memory = tuple(dataclasses.replace(region, timing=()) for region in regions)
    return dataclasses.replace(target, name=f"{target.name}-cut", memory=memory, caches=())


def no_larger_than(target: Target, resources: Resources) -> Target:
    """The target with no more memory than a model takes, in whole kilobytes."""
    sizes = (resources.flash_bytes, resources.ram_bytes)
    memory = tuple(
        dataclasses.replace(region, size=-(-size // 1024) * 1024)
        for region, size in zip(target.memory, sizes, strict=True)
    )
    return dataclasses.replace(target, memory=memory)


FIRST, LAST = arm_toolchains()[0], arm_toolchains()[-1]
CASES = (
    ("tiny", 0, "rp2040", FIRST),
    ("tiny", 1, "stm32f103", FIRST),
    ("tiny", 2, "stm32f407", FIRST),
    ("tiny", 3, "stm32u575", LAST),
    ("small", 6, "stm32f746", FIRST),
    ("normal", 6, "stm32f746", FIRST),
)


@pytest.mark.parametrize(("space", "seed", "name", "tool"), CASES, ids=lambda case: getattr(case, "name", case))
def test_a_model_that_is_accepted_fits_when_it_is_linked(
    tmp_path: Path, space: str, seed: int, name: str, tool: Toolchain
) -> None:
    """On a chip that has no more memory than the evaluation says, the image links and its constants are exact."""
    whole = without_timing(load_target(name))
    architecture = draw(space, seed)
    resources = ResourceEval(whole)(architecture)
    chip = no_larger_than(whole, resources)
    assert not Limits.of(chip).exceeded(resources)
    network = describe(architecture)
    graph = integer_graph(network, random_weights(network, np.random.default_rng(0)))
    model = generate(graph, chip, tmp_path / "model")
    assert model.arena_bytes == resources.arena_bytes
    assert model.program.constant_bytes == resources.constant_bytes
    elf = build_firmware(
        model.sources,
        chip,
        ["model_run"],
        include_dirs=model.include_dirs,
        toolchain=tool,
        arena_bytes=model.arena_bytes,
    )
    flash, _ = image_usage(elf, chip)
    assert resources.constant_bytes < flash <= resources.flash_bytes
    assert flash - resources.constant_bytes > 0.4 * resources.code_bytes, "the bound on the code is far too high"


def test_an_architecture_is_evaluated_once_and_with_its_weights_each_time() -> None:
    architecture = draw("tiny", 5)
    evaluate = ResourceEval(load_target("stm32f746"))
    first = evaluate(architecture)
    assert evaluate(architecture) is first
    network = describe(architecture)
    dense = {name: np.abs(w) + 1 for name, w in random_weights(network, np.random.default_rng(1)).items()}
    assert evaluate(architecture, dense).constant_bytes > first.constant_bytes
    assert evaluate(architecture) is first
    assert (first.parameters, first.kept_parameters) == (network.parameter_count, network.kept_parameter_count)


def test_weights_of_another_architecture_are_refused() -> None:
    evaluate = ResourceEval(load_target("stm32f746"))
    with pytest.raises(ModelError, match="is missing"):
        evaluate(draw("tiny", 5), {})


def test_pruning_saves_flash_and_fused_attention_saves_ram() -> None:
    architecture = draw("small", 1)
    path = architecture.path
    stages = tuple(
        dataclasses.replace(
            stage,
            downsample_pruning=dataclasses.replace(stage.downsample_pruning, sparsity=0.0),
            mobilenet_pruning=tuple(dataclasses.replace(p, sparsity=0.0) for p in stage.mobilenet_pruning),
            transformer_pruning=tuple(dataclasses.replace(p, sparsity=0.0) for p in stage.transformer_pruning),
        )
        for stage in path.stages
    )
    dense = dataclasses.replace(architecture, path=dataclasses.replace(path, stages=stages))
    evaluate = ResourceEval(load_target("stm32f746"))
    pruned, full = evaluate(architecture), evaluate(dense)
    assert pruned.parameters == full.parameters
    assert pruned.constant_bytes < full.constant_bytes
    for found in (pruned, full):
        assert found.kept_parameters <= found.constant_bytes
        # 256 tokens: the scores of one head alone are 64 KB
        assert found.arena_bytes < found.unfused_arena_bytes
        assert found.unfused_arena_bytes >= architecture.supernet.heads * 256 * 256
        assert found.macs > found.parameters
        if found.cycles is not None:
            assert found.latency_ms == 1000 * found.cycles / load_target("stm32f746").clock_hz


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (Limits(1000, 300, 10.0), ()),
        (Limits(999, 300, 10.0), ("flash: 1000 of 999 bytes",)),
        (Limits(1000, 299), ("RAM: 300 of 299 bytes",)),
        (Limits(1, 1, 9.5), ("flash: 1000 of 1 bytes", "RAM: 300 of 1 bytes", "latency: 10.0 of 9.5 ms")),
    ],
)
def test_limits_say_what_they_refuse(limits: Limits, found: tuple[str, ...]) -> None:
    assert limits.exceeded(SMALL_RESOURCES) == found


def test_a_limit_for_a_latency_that_nothing_predicts_is_an_error() -> None:
    unknown = dataclasses.replace(SMALL_RESOURCES, cycles=None, latency_ms=None)
    assert not Limits(1000, 300).exceeded(unknown)
    with pytest.raises(TargetError, match="no predictor"):
        Limits(1000, 300, 10.0).exceeded(unknown)


def test_what_is_surely_too_large_is_too_large() -> None:
    architecture = draw("tiny", 7)
    network = describe(architecture)
    resources = ResourceEval(load_target("stm32f746"))(architecture)
    assert Limits(network.kept_parameter_count - 1, 10**6).surely_exceeded(network)
    assert not Limits(network.kept_parameter_count, 10**6).surely_exceeded(network)
    assert resources.constant_bytes > network.kept_parameter_count


def test_code_sizes_are_known_for_every_kernel_of_every_core() -> None:
    network = describe(draw("tiny", 0))
    graph = integer_graph(network, random_weights(network, np.random.default_rng(0)))
    for name in ("rp2040", "stm32f103", "stm32f407", "stm32f746", "stm32u575"):
        target = load_target(name)
        assert 5_000 < code_bytes(build_program(graph, dsp=target.dsp), target) < 80_000
