"""What whole models cost on emulated chips, beside what other engines publish or take for the same networks.

Two baselines of a network are cycles of an emulated core whose memory never waits, and are held against our cycles in
the same timing; one was measured on a board, flash and caches included, and is held against our cycles with memories.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rich.table import Table

from codegen.choose import Optimise
from codegen.predictor import kernels_hash
from codegen.target import load_target
from conformance.chip_cost import ChipCost, measure_cost
from conformance.kernel_bench import CMSIS_NN, PACKAGES
from conformance.models import model_name, read_model
from conformance.toolchain import Toolchain, arm_toolchains
from refsim.errors import TinyFormerError

BOARD = "X-CUBE-AI 8.0, MLPerf Tiny v1.1, NUCLEO-L4R5ZI and NUCLEO-H7A3ZI-Q"


@dataclass(frozen=True)
class NetworkBaseline:
    """What there is to beat for a network on a core, in cycles of one run.

    Attributes:
        goal: to reach, memory that never waits.
        peer: of CMSIS-NN (`kernel_bench.CMSIS_NN`), likewise.
        board: measured on a board (`BOARD`).
    """

    goal: float
    peer: float
    board: float


BASELINES: Mapping[str, Mapping[str, NetworkBaseline]] = {
    "resnet8": {
        "cortex-m4": NetworkBaseline(24e6, 38.4e6, 26.6e6),
        "cortex-m7": NetworkBaseline(14e6, 22.6e6, 15.4e6),
    },
    "dscnn": {
        "cortex-m4": NetworkBaseline(7e6, 9.35e6, 8.72e6),
        "cortex-m7": NetworkBaseline(3.9e6, 5.48e6, 4.59e6),
    },
}
"""The image classification and the keyword spotting network of MLPerf Tiny, by core."""

NONE = "none"
"""Names no baseline."""


@dataclass(frozen=True, kw_only=True)
class ModelCost(ChipCost):
    """A model on one chip.

    Attributes:
        model: its name.
        baseline: name of the network that it is held against, or "none".
        goal, peer_cycles, board_cycles: see `NetworkBaseline`; None where there is no baseline for the core.
    """

    model: str
    baseline: str
    goal: float | None
    peer_cycles: float | None
    board_cycles: float | None


@dataclass(frozen=True)
class ModelBenchReport:
    """What was measured, and with what.

    Attributes:
        costs: each model on each chip.
        optimise: what kernels were chosen for.
        seed: of the sample, random bytes.
        compiler: name, version and optimisation.
        kernels: hash of the kernels' sources and headers.
        peer, board: who was measured for the baselines.
        versions: of packages, by name.
    """

    costs: tuple[ModelCost, ...]
    optimise: str
    seed: int
    compiler: str
    kernels: str
    peer: str
    board: str
    versions: dict[str, str]


def baseline_of(path: Path) -> str:
    """The baseline that a file's name holds, as "resnet8_cifar10_int8.tflite" holds "resnet8"; else "none"."""
    plain = "".join(c for c in model_name(path).lower() if c.isalnum())
    return next((name for name in BASELINES if name in plain), NONE)


def measure(
    models: Sequence[Path],
    targets: Sequence[str],
    *,
    baselines: Sequence[str] = (),
    optimise: Optimise = Optimise.BALANCED,
    numerics: Literal["litert", "cmsis-nn"] = "litert",
    seed: int = 0,
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    progress: Callable[[str], None] = lambda what: None,
) -> ModelBenchReport:
    """Generate, emulate and check every model on every chip, on one sample of random bytes.

    Args:
        models: QDQ ONNX or .tflite.
        targets: chips to emulate.
        baselines: names from `BASELINES`, or "none", one for each model; by default the files' names tell.
        optimise: what kernels are chosen for.
        numerics: whose bytes .tflite models give.
        seed: of the sample.
        toolchain: the compiler; the preferred one by default.
        opt: its optimisation flag.
        progress: told what is measured next.

    Raises:
        TinyFormerError: a baseline has no such name, or there are not as many as models.
        ModelError: a model is unreadable or not supported.
        TargetError: no such chip.
        ToolchainError: a model cannot be built.
        ConformanceError: a byte differs; figures of a wrong computation are no figures.
    """
    names = list(baselines) or [baseline_of(path) for path in models]
    if len(names) != len(models):
        raise TinyFormerError(f"{len(names)} baselines for {len(models)} models: name one for each, in their order")
    if unknown := [name for name in names if name not in (*BASELINES, NONE)]:
        raise TinyFormerError(f"baseline {unknown[0]!r} is unknown; there are {', '.join(BASELINES)}, and {NONE}")
    tool = toolchain or arm_toolchains()[0]
    chips = [load_target(name) for name in targets]
    costs = []
    for path, name in zip(models, names, strict=True):
        under_test = read_model(path, None, 1, seed=seed, numerics=numerics)
        for chip in chips:
            progress(f"{model_name(path)} on {chip.name}")
            cost = measure_cost(under_test, str(path), chip, optimise, tool, opt)
            known = BASELINES.get(name, {}).get(chip.core)
            costs.append(
                ModelCost(
                    **asdict(cost),
                    model=model_name(path),
                    baseline=name,
                    goal=known.goal if known else None,
                    peer_cycles=known.peer if known else None,
                    board_cycles=known.board if known else None,
                )
            )
    return ModelBenchReport(
        tuple(costs),
        optimise.value,
        seed,
        f"{tool.name} {tool.version} {opt}",
        kernels_hash(),
        CMSIS_NN,
        BOARD,
        {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    )


def as_json(report: ModelBenchReport) -> str:
    """The report as JSON."""
    return json.dumps(asdict(report), indent=2) + "\n"


def tables(report: ModelBenchReport) -> tuple[Table, Table]:
    """A row for each model on each chip, cycles in millions: with memory that never waits, and with the chip's own."""
    built = f"{report.optimise}, {report.compiler}"
    ideal = Table(title=f"whole models, million cycles, memory that never waits, {built}")
    waiting = Table(title=f"whole models, million cycles with flash and caches, {built}")
    for made, columns in (
        (ideal, ("constants", "arena", "instructions", "cycles", "a MAC", "goal", "peer", "peer / cycles")),
        (waiting, ("cycles", "ms", "board", "board / cycles")),
    ):
        made.add_column("model", no_wrap=True)
        made.add_column("chip", no_wrap=True)
        for column in columns:
            made.add_column(column, justify="right")
    for cost in report.costs:
        ideal.add_row(
            cost.model,
            cost.target,
            f"{cost.constant_bytes:,}",
            f"{cost.arena_bytes:,}",
            _millions(cost.instructions),
            "does not fit" if cost.cycles is None else _millions(cost.cycles),
            "-" if cost.cycles is None or not cost.macs else f"{cost.cycles / cost.macs:.2f}",
            _goal(cost),
            *_against(cost.peer_cycles, cost.cycles),
        )
        milliseconds = "-" if cost.milliseconds is None else f"{cost.milliseconds:.1f}"
        theirs = _against(cost.board_cycles, cost.memory_cycles)
        waiting.add_row(cost.model, cost.target, _millions(cost.memory_cycles), milliseconds, *theirs)
    return ideal, waiting


def _goal(cost: ModelCost) -> str:
    """The goal, green where it is reached."""
    if cost.goal is None or cost.cycles is None:
        return _millions(cost.goal)
    return f"[{'green' if cost.cycles <= cost.goal else 'red'}]{_millions(cost.goal)}[/]"


def _against(theirs: float | None, ours: float | None) -> list[str]:
    """Their cycles, and how many times ours they are."""
    return [_millions(theirs), "-" if theirs is None or ours is None else f"{theirs / ours:.2f}"]


def _millions(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f}"
