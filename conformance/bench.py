"""Figures of one run: the golden model's throughput beside ONNX Runtime's, and a sample's cost on emulated chips."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
from rich.table import Table

import refsim
from codegen.generate import GeneratedModel
from codegen.onnx import load
from codegen.samples import read_inputs
from conformance.models import CortexMModel, ModelUnderTest, compare_model, open_place, read_model
from conformance.timing.cycles import Timing
from refsim.errors import ConformanceError
from refsim.samples import Preprocessing

PACKAGES = ("tinyformer", "numpy", "numba", "onnx", "onnxruntime", "unicorn", "ziglang")

SETTLE = 0.05
"""Seconds before each turn, in which the other engine's idle threads stop spinning."""


@dataclass(frozen=True)
class Throughput:
    """Samples a second of two engines, timed in turns in one process.

    Attributes:
        batch: samples of one call.
        threads: of either engine.
        rounds: timed turns of each.
        refsim: median samples a second of the golden model.
        onnxruntime: the same of ONNX Runtime on the same QDQ file.
        ratio: median over the rounds of refsim's rate over ONNX Runtime's.
        ratios: of each round.
    """

    batch: int
    threads: int
    rounds: int
    refsim: float
    onnxruntime: float
    ratio: float
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Emulated:
    """One sample on an emulated chip.

    Attributes:
        target: its name.
        samples: how many were run.
        instructions: executed in one sample, exact.
        seconds: of emulation, counting on, one sample.
        macs: multiply-accumulates of one sample.
        speed: million instructions emulated in a second: "counting" them alone, and with the cycles of each timing
            that the target supports, by its name.
    """

    target: str
    samples: int
    instructions: float
    seconds: float
    macs: int
    speed: dict[str, float]


@dataclass(frozen=True)
class BenchReport:
    """What was measured, and with what."""

    model: str
    throughput: tuple[Throughput, ...]
    emulated: tuple[Emulated, ...]
    versions: dict[str, str]
    machine: str


def throughput(model: Path, data: Path, *, batch: int, threads: int = 2, rounds: int = 9) -> Throughput:
    """Time refsim and ONNX Runtime in turns on the same real inputs; quantising and dequantising are part of both.

    Args:
        model: QDQ ONNX.
        data: samples, .npz.
        batch: samples of one call; the file's samples are repeated where it has fewer.
        threads: for either engine.
        rounds: turns.

    Raises:
        ModelError: the model is unreadable or not supported.
        DataError: the samples do not fit.
    """
    graph = load(model)
    inputs = {
        name: array[[i % len(array) for i in range(batch)]]
        for name, array in read_inputs(data, model, Preprocessing()).items()
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    engines: tuple[Callable[[], object], ...] = (
        lambda: refsim.predict(graph, inputs, threads=threads),
        lambda: session.run(None, inputs),
    )
    for engine in engines:
        engine()
    seconds = [[_seconds(engine) for engine in engines] for _ in range(rounds)]
    ours, theirs = ([batch / turn[index] for turn in seconds] for index in (0, 1))
    ratios = tuple(a / b for a, b in zip(ours, theirs, strict=True))
    return Throughput(
        batch, threads, rounds, statistics.median(ours), statistics.median(theirs), statistics.median(ratios), ratios
    )


def emulated(model: Path, data: Path, target: str, samples: int) -> Emulated:
    """Run samples on an emulated chip with instructions counted, and check them against the golden model.

    Raises:
        ConformanceError: a byte differs; figures of a wrong computation are no figures.
    """
    under_test = read_model(model, data, samples)
    with TemporaryDirectory() as folder:
        chip = open_place(target, under_test.graph, Path(folder))
        outcome = compare_model(under_test, chip, target, samples)
        if outcome.mismatches:
            raise ConformanceError(f"{target}: {outcome.message}")
        timings = [None, Timing.ZERO_WAIT]
        timings += [Timing.MEMORY] * all(region.timing for region in chip.model.target.memory)
        speed = {(timing.value if timing else "counting"): _speed(chip.model, under_test, timing) for timing in timings}
    macs = sum(step.call.macs for step in chip.model.steps)
    return Emulated(target, samples, outcome.total_instructions, outcome.seconds / samples, macs, speed)


def _speed(model: GeneratedModel, under_test: ModelUnderTest, timing: Timing | None) -> float:
    """Million instructions a second, the best of three runs of code that was translated before."""
    place = CortexMModel(model, timing=timing)
    place.run({name: x[0] for name, x in under_test.samples.items()})
    machine = place.machine
    machine.call("tnf_trace_begin", 0)
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        result = machine.call(f"{model.prefix}_run", machine.arena[0])
        best = max(best, result.instructions / (time.perf_counter() - start) / 1e6)
    return best


def measure(
    model: Path,
    data: Path,
    *,
    targets: Sequence[str],
    batches: Sequence[int],
    threads: int = 2,
    rounds: int,
    samples: int,
    progress: Callable[[str], None] = lambda what: None,
) -> BenchReport:
    """Measure everything; see `throughput` and `emulated`.

    Args:
        model: QDQ ONNX.
        data: samples, .npz.
        targets: chips to emulate.
        batches: batch sizes for the throughput.
        threads: of either engine.
        rounds: turns of each engine.
        samples: run on each chip.
        progress: told what is measured next.
    """
    rates, chips = [], []
    for batch in batches:
        progress(f"throughput, batch {batch}")
        rates.append(throughput(model, data, batch=batch, threads=threads, rounds=rounds))
    for target in targets:
        progress(f"emulated {target}")
        chips.append(emulated(model, data, target, samples))
    return BenchReport(
        f"{model.parent.name}/{model.name}" if model.parent.name else model.name,
        tuple(rates),
        tuple(chips),
        {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        f"{platform.machine()}, {os.cpu_count()} threads",
    )


def as_json(report: BenchReport) -> str:
    """The report as JSON."""
    return json.dumps(asdict(report), indent=2) + "\n"


def bench_table(report: BenchReport) -> Table:
    """Throughput, one row for each batch size."""
    table = Table("samples a call", title=f"{report.model}: samples a second on {report.throughput[0].threads} threads")
    for column in ("refsim", "ONNX Runtime", "ratio", "lowest", "highest"):
        table.add_column(column, justify="right")
    for row in report.throughput:
        table.add_row(
            str(row.batch),
            f"{row.refsim:,.0f}",
            f"{row.onnxruntime:,.0f}",
            f"{row.ratio:.2f}",
            f"{min(row.ratios):.2f}",
            f"{max(row.ratios):.2f}",
        )
    return table


def emulated_table(report: BenchReport) -> Table:
    """The cost of a sample, one row for each chip."""
    table = Table("target", title=f"{report.model}: one sample on an emulated chip, every tensor checked")
    for column in ("instructions", "a MAC", "seconds"):
        table.add_column(column, justify="right")
    for row in report.emulated:
        table.add_row(
            row.target, f"{row.instructions:,.0f}", f"{row.instructions / row.macs:.2f}", f"{row.seconds:.3f}"
        )
    return table


def speed_table(report: BenchReport) -> Table:
    """How fast chips are emulated, one row for each."""
    table = Table("target", title="million instructions emulated in a second")
    columns = {"counting": "counting", Timing.ZERO_WAIT.value: "with cycles", Timing.MEMORY.value: "and memory"}
    for title in columns.values():
        table.add_column(title, justify="right")
    for row in report.emulated:
        table.add_row(row.target, *(f"{row.speed[key]:.0f}" if key in row.speed else "-" for key in columns))
    return table


def _seconds(engine: Callable[[], object]) -> float:
    time.sleep(SETTLE)
    start = time.perf_counter()
    engine()
    return time.perf_counter() - start
