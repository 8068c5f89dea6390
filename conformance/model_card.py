"""What a model's card says it takes on a chip, measured: weights, memory of the linked image, emulated time."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from codegen.code_size import code_bytes
from codegen.generate import generate
from codegen.predictor import kernels_hash
from codegen.program import build_program
from codegen.target import Target, load_target
from conformance import profile
from conformance.models import ModelUnderTest, random_samples
from conformance.timing.cycles import Timing
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware, image_usage
from refsim import Graph
from refsim.errors import TargetError
from refsim.evaluation import Evaluation
from refsim.model_zoo import Card, Measured
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear

TARGET = "stm32f746"
"""The paper's microcontroller, which cards are for."""

OPT = "-O2"

MARGIN = 0.05
"""Part by which flash, RAM and cycles may differ under another version of the compiler."""

_EXACT = ("target", "fits", "weights", "nonzero_weights", "macs", "constant_bytes", "arena_bytes")
_COMPILED = ("flash_bytes", "ram_bytes", "cycles")


def measure(
    graph: Graph, target: str = TARGET, *, toolchain: Toolchain | None = None, seed: int = 0
) -> tuple[Measured, profile.Profile | None]:
    """Generate, link and emulate a model, every tensor of one random image equal to the golden model's.

    Args:
        graph: the model.
        target: the microcontroller.
        toolchain: the compiler; the preferred one by default.
        seed: of the image.

    Returns:
        What the model takes, and its profile; None where it does not fit.

    Raises:
        ConformanceError: a byte differs.
        TargetError: there is no such target.
        ToolchainError: the model cannot be built.
    """
    chip, tool = load_target(target), toolchain or arm_toolchains()[0]
    program = build_program(graph, chip)
    weights = [
        op.weight for op in (node.op for node in graph.nodes) if isinstance(op, Conv2D | DepthwiseConv2D | Linear)
    ]
    sizes = Measured(
        target=chip.name,
        compiler=f"{tool.name} {tool.version} {OPT}",
        kernels=kernels_hash(),
        fits=False,
        weights=sum(weight.size for weight in weights),
        nonzero_weights=sum(int(np.count_nonzero(weight)) for weight in weights),
        macs=program.macs,
        constant_bytes=program.constant_bytes,
        flash_bytes=program.constant_bytes + code_bytes(program, chip),
        arena_bytes=program.plan.arena_bytes,
        ram_bytes=program.plan.arena_bytes + chip.stack_bytes,
    )
    try:
        flash, ram = _linked(graph, chip, tool)
        samples = ModelUnderTest(graph, random_samples(graph, 1, seed))
        found = profile.measure(samples, target, timing=Timing.MEMORY, seed=seed, toolchain=tool, opt=OPT)
    except TargetError:
        return sizes, None
    cycles = round(found.counts.cycles)
    measured = replace(
        sizes,
        fits=True,
        flash_bytes=flash,
        ram_bytes=ram,
        cycles=cycles,
        latency_ms=round(1e3 * found.seconds(cycles), 2),
        band_percent=found.band.percent if found.band else None,
    )
    return measured, found


def differences(card: Card, measured: Measured, evaluation: Evaluation | None = None) -> list[str]:
    """What a card says otherwise than what was measured, a line each.

    Args:
        card: of the model.
        measured: now.
        evaluation: of the model now; None where it was not classified with.
    """
    if card.measured is None:
        return ["the card has no [measured]; `tinyformer zoo NAME --update` writes it"]
    told, found = (_figures(each) for each in (card.measured, measured))
    lines = [f"{key}: card {told[key]}, found {found[key]}" for key in _EXACT if told[key] != found[key]]
    for key in _COMPILED:
        before, now = told[key], found[key]
        same = card.measured.compiler == measured.compiler and card.measured.kernels == measured.kernels
        margin = 0.0 if same else MARGIN
        if (before is None) != (now is None) or (before and now and abs(now / before - 1) > margin):
            lines.append(f"{key}: card {before}, found {now}")
    if evaluation is not None:
        told_of = (card.accuracy.images, card.accuracy.int8)
        if told_of != (evaluation.samples, evaluation.accuracy):
            lines.append(
                f"int8 accuracy: card {card.accuracy.int8:.2%} of {card.accuracy.images} images, "
                f"found {evaluation.accuracy:.2%} of {evaluation.samples}"
            )
    return lines


def _figures(measured: Measured) -> Mapping[str, Any]:
    return {key: getattr(measured, key) for key in (*_EXACT, *_COMPILED)}


def _linked(graph: Graph, target: Target, toolchain: Toolchain) -> tuple[int, int]:
    """Flash and RAM of the image that would be flashed.

    Raises:
        TargetError: it does not fit.
    """
    with TemporaryDirectory() as folder:
        model = generate(graph, target, Path(folder) / "model")
        elf = build_firmware(
            model.sources,
            target,
            [f"{model.prefix}_run"],
            include_dirs=model.include_dirs,
            toolchain=toolchain,
            opt=OPT,
            arena_bytes=model.arena_bytes,
            name=model.prefix,
        )
        return image_usage(elf, target)
