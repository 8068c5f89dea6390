"""What a whole network costs by the sparsity of its weights: storage, cycles, latency (paper, Fig. 10).

The network has the paper's size (`conformance.networks`). The peer's cycles are those of the same dense network, summed
from the figures of its kernels in `conformance.kernel_bench`: each operator at the figure of the nearest case.
"""

import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from rich.table import Table

import refsim
from codegen.choose import Optimise
from codegen.onnx import load, quantize
from codegen.predictor import kernels_hash
from codegen.target import load_target
from conformance.chip_cost import ChipCost, measure_cost
from conformance.kernel_bench import CASES, ELEMENT, PACKAGES, BenchCase
from conformance.line_chart import Chart, render_charts
from conformance.models import ModelUnderTest
from conformance.networks import IMAGE, STAGES, Stage, tinyformer
from conformance.predictor_samples import Space
from conformance.toolchain import Toolchain, arm_toolchains
from refsim import Graph
from refsim.ops.base import Operator
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from refsim.ops.matmul import MatMul
from refsim.tensor import Shape

CALIBRATION_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class NetworkCost(ChipCost):
    """The network at one sparsity on one chip.

    Attributes:
        sparsity: per cent of the blocks that are zero.
        peer_cycles: of the dense network by the peer's kernels, memory that never waits; None where there are none
            for the core.
    """

    sparsity: int
    peer_cycles: float | None

    @property
    def speedup(self) -> float | None:
        """How many times the cycles the dense network takes by the peer's kernels."""
        return self.peer_cycles / self.cycles if self.peer_cycles and self.cycles else None


@dataclass(frozen=True)
class NetworkBenchReport:
    """What was measured, and with what.

    Attributes:
        costs: each sparsity on each chip.
        block: weights of a pruned block.
        optimise: what weights are encoded for.
        seed: of weights and samples.
        compiler: name, version and optimisation.
        kernels: hash of the kernels' sources and headers.
        versions: of packages, by name.
    """

    costs: tuple[NetworkCost, ...]
    block: int
    optimise: str
    seed: int
    compiler: str
    kernels: str
    versions: dict[str, str]


def measure(
    targets: Sequence[str],
    sparsities: Sequence[int],
    *,
    block: int = 4,
    optimise: Optimise = Optimise.BALANCED,
    seed: int = 0,
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    stages: tuple[Stage, ...] = STAGES,
    progress: Callable[[str], None] = lambda what: None,
) -> NetworkBenchReport:
    """Generate, emulate and check the network at every sparsity on every chip.

    Args:
        targets: chips to emulate.
        sparsities: per cent of the blocks of weights that are zero.
        block: weights of a block.
        optimise: what weights are encoded for.
        seed: of weights and samples.
        toolchain: the compiler; the preferred one by default.
        opt: its optimisation flag.
        stages: of the network.
        progress: told what is measured next.

    Raises:
        TargetError: no such chip.
        ToolchainError: the network cannot be built.
        ConformanceError: a byte differs; figures of a wrong computation are no figures.
    """
    toolchain = toolchain or arm_toolchains()[0]
    chips = [load_target(name) for name in targets]
    costs = []
    for sparsity in sparsities:
        under_test = network(sparsity, block, seed, stages)
        for chip in chips:
            progress(f"{sparsity} % on {chip.name}")
            cost = measure_cost(under_test, f"{sparsity} %", chip, optimise, toolchain, opt)
            peer = peer_cycles(under_test.graph, chip.core)
            costs.append(NetworkCost(**asdict(cost), sparsity=sparsity, peer_cycles=peer))
    return NetworkBenchReport(
        tuple(costs),
        block,
        optimise.value,
        seed,
        f"{toolchain.name} {toolchain.version} {opt}",
        kernels_hash(),
        {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    )


def network(sparsity: int, block: int = 4, seed: int = 0, stages: tuple[Stage, ...] = STAGES) -> ModelUnderTest:
    """The network, quantised on random images, and one of them; see `measure`."""
    images = np.random.default_rng(seed).standard_normal((CALIBRATION_SAMPLES, *IMAGE)).astype(np.float32)
    with TemporaryDirectory() as folder:
        floats, quantized = Path(folder, "float.onnx"), Path(folder, "tinyformer.onnx")
        onnx.save(tinyformer(sparsity / 100, block, seed, stages), floats)
        onnx.save(quantize(floats, images), quantized)
        graph = load(quantized)
    port = graph.inputs[0]
    return ModelUnderTest(graph, {port.tensor: refsim.quantize_input(graph, port, images[:1])})


def peer_cycles(graph: Graph, core: str) -> float | None:
    """Cycles that a dense graph takes by the peer's kernels; None where they were not measured on the core."""
    by_operator = peer_cycles_by_operator(graph, core)
    return sum(by_operator.values()) if by_operator else None


def peer_cycles_by_operator(graph: Graph, core: str) -> dict[str, float]:
    """Cycles that a dense graph takes by the peer's kernels, by operator; empty where they were not measured.

    Each operator costs what the nearest of `kernel_bench.CASES` costs a multiplication or element: the same operator,
    kernels of more than one position or not, and the most similar number of products in a sum. What no case resembles
    (moving data, pooling) is free.
    """
    known: dict[tuple[str, bool], list[tuple[int, BenchCase, float]]] = {}
    for case in CASES:
        baseline = case.baselines.get(core)
        if baseline is not None and baseline.cycles is not None:
            kind, products = _kind(*case.build(Space(np.random.default_rng(0), in_search=True)))
            known.setdefault(kind, []).append((products, case, baseline.cycles))
    total: dict[str, float] = {}
    for node in graph.nodes:
        shapes = tuple(graph.tensors[name].shape for name in node.inputs)
        kind, products = _kind(node.op, shapes)
        if kind in known:
            _, case, cycles = min(known[kind], key=lambda row: abs(math.log(row[0] / products)))
            elements = graph.tensors[node.output].size
            spent = cycles * elements * (1 if case.unit == ELEMENT else products)
            total[node.op.name] = total.get(node.op.name, 0.0) + spent
    return total


def _kind(op: Operator, shapes: tuple[Shape, ...]) -> tuple[tuple[str, bool], int]:
    """The operator's name, whether its kernel has more than one position, and the products of one sum."""
    match op:
        case Conv2D():
            _, height, width, channels = op.weight.shape
            return (op.name, height * width > 1), height * width * channels
        case DepthwiseConv2D():
            return (op.name, True), op.weight.shape[0] * op.weight.shape[1]
        case Linear() | MatMul():
            return (op.name, False), shapes[0][-1]
    return (op.name, False), 1


def as_json(report: NetworkBenchReport) -> str:
    """The report as JSON."""
    return json.dumps(asdict(report), indent=2) + "\n"


def table(report: NetworkBenchReport) -> Table:
    """A row for each sparsity on each chip; "peer /" is how many times the cycles the peer's dense network takes."""
    title = f"TinyFormer of the paper's size, blocks of {report.block}, {report.optimise}, {report.compiler}"
    made = Table(title=title)
    made.add_column("zeros", justify="right", no_wrap=True)
    made.add_column("chip", no_wrap=True)
    for column in ("constants", "saved", "arena", "M instr.", "M cycles", "peer /", "ms"):
        made.add_column(column, justify="right", no_wrap=True)
    dense = {cost.target: cost.constant_bytes for cost in report.costs if cost.sparsity == 0}
    for cost in report.costs:
        saved = f"{1 - cost.constant_bytes / dense[cost.target]:.0%}" if cost.target in dense else "-"
        made.add_row(
            f"{cost.sparsity} %",
            cost.target,
            f"{cost.constant_bytes:,}",
            saved,
            f"{cost.arena_bytes:,}",
            *("-" if count is None else f"{count / 1e6:.1f}" for count in (cost.instructions, cost.cycles)),
            "-" if cost.speedup is None else f"{cost.speedup:.2f}",
            "no room" if cost.cycles is None else "-" if cost.milliseconds is None else f"{cost.milliseconds:.0f}",
        )
    return made


def plot(report: NetworkBenchReport) -> str:
    """Latency and storage against sparsity as SVG, as the paper's Fig. 10 has them."""
    sparsities = sorted({cost.sparsity for cost in report.costs})
    latency: dict[str, list[tuple[float, float]]] = {}
    storage: dict[str, list[tuple[float, float]]] = {}
    for cost in report.costs:
        if cost.milliseconds is not None:
            latency.setdefault(cost.target, []).append((cost.sparsity, cost.milliseconds))
        if cost.peer_cycles is not None:
            at_clock = 1e3 * cost.peer_cycles / load_target(cost.target).clock_hz
            latency.setdefault(f"{cost.target}, peer, dense", []).append((cost.sparsity, at_clock))
        storage.setdefault(cost.target, []).append((cost.sparsity, cost.constant_bytes / 1024))
    dense = {cost.target: cost.constant_bytes for cost in report.costs if cost.sparsity == 0}
    for target, size in dense.items():
        storage[f"{target}, dense"] = [(sparsity, size / 1024) for sparsity in sparsities]
    zeros = "blocks of weights that are zero, %"
    charts = [Chart("Latency", zeros, "ms an image", latency), Chart("Storage", zeros, "KB of constants", storage)]
    return render_charts(charts)
