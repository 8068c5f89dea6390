"""What an operator costs on a core, from its shape alone: a search asks thousands of times, too often to emulate.

An operator's cost is a sum over its kernel's loops: how often each is entered and repeated, times what that takes. The
counts come from `codegen.loop_counts`. What each count costs is fitted on emulated runs by `tinyformer fit-predictor`
and kept in `codegen/predictors/`, one file for each core, and one for each target whose memories make the core wait.
Costs are never negative: they are what a loop takes, and so they hold beyond the shapes they were fitted on.
"""

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import ckernels
from codegen.cache_counts import cache_counts
from codegen.choose import Candidate, Costs, Optimise, choose, estimated
from codegen.emit import KernelCall, kernel_calls
from codegen.loop_counts import loop_counts
from codegen.target import CORES, DSP_CORES, Target
from refsim.errors import DataError, TargetError, located
from refsim.graph import Graph
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.tensor import Shape

BUILT_IN = Path(__file__).parent / "predictors"
"""Folder of the fitted data that comes with the package."""

REFIT = "run `tinyformer fit-predictor`"


# ---- sparsity ----


@dataclass(frozen=True)
class Sparsity:
    """How a weight is pruned. A block is so many neighbouring elements of the weight's last axis.

    Attributes:
        block_size: elements of a block.
        blocks: all of them; a block cut short by the end of the axis counts.
        nonzero: those with an element that is not zero.
    """

    block_size: int
    blocks: int
    nonzero: int

    @classmethod
    def of(cls, weight: Int8Array, block_size: int = 1) -> "Sparsity":
        """The sparsity that a weight has."""
        rows = weight.reshape(-1, weight.shape[-1]) != 0
        blocks = rows[:, ::block_size].copy()
        for offset in range(1, min(block_size, rows.shape[1])):
            part = rows[:, offset::block_size]
            blocks[:, : part.shape[1]] |= part
        return cls(block_size, blocks.size, int(np.count_nonzero(blocks)))


# ---- predictions ----


@dataclass(frozen=True)
class Prediction:
    """What one run of an operator, or of a model, costs.

    Attributes:
        cycles: at zero wait states.
        instructions: executed.
        waits: cycles more for which the core waits for the target's memories; None where no fit knows them.
    """

    cycles: float
    instructions: float
    waits: float | None = None


@dataclass(frozen=True)
class GraphPrediction:
    """What one run of a model costs.

    Attributes:
        nodes: by the node's name, in execution order.
    """

    nodes: Mapping[str, Prediction]

    @property
    def total(self) -> Prediction:
        """The sum over the nodes."""
        nodes = self.nodes.values()
        waits = [node.waits for node in nodes if node.waits is not None]
        return Prediction(
            sum(node.cycles for node in nodes),
            sum(node.instructions for node in nodes),
            sum(waits) if len(waits) == len(nodes) else None,
        )


@dataclass(frozen=True)
class HeldOutError:
    """Relative errors on shapes that a fit has not seen, as fractions.

    Attributes:
        samples: how many.
        median, percentile90, worst: of the errors' magnitudes.
    """

    samples: int
    median: float
    percentile90: float
    worst: float


@dataclass(frozen=True)
class Fit:
    """What each count costs: of a core at zero wait states, or what a target's memories add.

    Attributes:
        name: of the core or target.
        compiler: that built the kernels, with its version and options.
        kernels: hash of the kernels' sources, see `kernels_hash`.
        memories: hash of how fast the target's memories are, see `memories_hash`; empty for a core.
        seed: of the samples.
        costs: metric -> kernel -> cost of each count: of `loop_counts`, and of `cache_counts` too for a target.
        errors: metric -> kernel -> error on shapes held out; that of "waits" is of all cycles.
    """

    name: str
    compiler: str
    kernels: str
    memories: str
    seed: int
    costs: Mapping[str, Mapping[str, Mapping[str, float]]]
    errors: Mapping[str, Mapping[str, HeldOutError]]

    def cost(self, metric: str, kernel: str, counts: Mapping[str, float]) -> float:
        """What counts of a kernel cost.

        Raises:
            DataError: the fit does not know the kernel, or knows other counts of it.
        """
        costs = self.costs[metric].get(kernel)
        if costs is None or costs.keys() != counts.keys():
            raise DataError(f"the predictor of {self.name} was fitted without {kernel} as it is now: {REFIT}")
        return sum(costs[name] * count for name, count in counts.items())

    def as_json(self) -> str:
        """The contents of its file."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Predictor:
    """Predicts what operators and models cost.

    Attributes:
        core: fit of the core.
        waits: fit of the target's memories, or None.
        target: whose memories; None where `waits` is.
    """

    core: Fit
    waits: Fit | None = None
    target: Target | None = None

    def predict(self, op: Operator, shapes: tuple[Shape, ...], sparsity: Sparsity | None = None) -> Prediction:
        """See `predict`."""
        call = self._kernel_call(op if sparsity is None else _pruned(op, sparsity), shapes)
        return self.predict_call(call, _activations(op, shapes))

    def predict_call(self, call: KernelCall, activations: int) -> Prediction:
        """What one call of a kernel costs, whose inputs and output have so many bytes; see `predict`."""
        counts = loop_counts(call)
        cycles, instructions = (self.core.cost(metric, call.kernel, counts) for metric in ("cycles", "instructions"))
        waits = None
        if self.waits is not None and self.target is not None:
            waits = self.waits.cost("waits", call.kernel, counts | cache_counts(call, counts, activations, self.target))
        return Prediction(cycles, instructions, waits)

    def predict_graph(self, graph: Graph) -> GraphPrediction:
        """See `predict_graph`."""
        nodes = {}
        for node in graph.nodes:
            with located(f"node {node.name!r} ({node.op.name})"):
                shapes = tuple(graph.tensors[tensor].shape for tensor in node.inputs)
                call = self._kernel_call(node.op, shapes)
                # The planner lays a view over its input, so that it runs no code.
                activations = _activations(node.op, shapes)
                nodes[node.name] = _NOTHING if call.view else self.predict_call(call, activations)
        return GraphPrediction(nodes)

    def time(self, call: KernelCall, activations: int) -> float:
        """Cycles of one call of a kernel, waiting included where it is known; see `predict_call`."""
        found = self.predict_call(call, activations)
        return found.cycles + (found.waits or 0.0)

    def _kernel_call(self, op: Operator, shapes: tuple[Shape, ...]) -> KernelCall:
        """The call that is generated for the core, where scratch does not make the arena larger."""
        calls = kernel_calls(op, shapes, dsp=self.core.name in DSP_CORES)
        activations = _activations(op, shapes)
        return choose([Candidate(call, self.time(call, activations)) for call in calls], Optimise.BALANCED).call


def _activations(op: Operator, shapes: tuple[Shape, ...]) -> int:
    """Bytes of an operator's inputs and output."""
    return sum(map(math.prod, (*shapes, op.output_shape(*shapes))))


def _pruned(op: Operator, sparsity: Sparsity) -> Operator:
    """The operator with its weight pruned as told; as it is where it has none.

    Raises:
        DataError: the weight has another number of blocks.
    """
    if not hasattr(op, "weight"):
        return op
    weighted: Any = op
    weight: Int8Array = weighted.weight
    size = sparsity.block_size
    rows = math.prod(weight.shape[:-1])
    blocks = -(-weight.shape[-1] // size)
    if rows * blocks != sparsity.blocks:
        raise DataError(
            f"the sparsity is of {sparsity.blocks} blocks; weight {weight.shape} has {rows * blocks} of {size}"
        )
    kept = np.arange(sparsity.blocks) < sparsity.nonzero
    np.random.default_rng(0).shuffle(kept)
    mask = np.repeat(kept.reshape(rows, blocks), size, axis=1)[:, : weight.shape[-1]]
    pruned: Operator = replace(weighted, weight=mask.reshape(weight.shape).astype(np.int8))
    return pruned


_NOTHING = Prediction(0.0, 0.0, 0.0)


def read_fit(path: Path) -> Fit:
    """Read a fit and check that it is one of the kernels as they are.

    Raises:
        DataError: the file is unreadable, malformed, or was fitted for other kernels.
    """
    with located(str(path)):
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            table["errors"] = {
                metric: {kernel: HeldOutError(**error) for kernel, error in kernels.items()}
                for metric, kernels in table["errors"].items()
            }
            fit = Fit(**table)
        except OSError as error:
            raise DataError(f"this fit of the predictor cannot be read ({error.strerror}): {REFIT}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"this is no fit of the predictor ({error}): {REFIT}") from error
        if fit.kernels != kernels_hash():
            raise DataError(f"the predictor of {fit.name} was fitted for other kernels: {REFIT}")
    return fit


@functools.cache
def load_predictor(target: Target | str) -> Predictor:
    """The predictor for a target, or for a core at zero wait states, from the fits that come with the package.

    Args:
        target: a target, or a core's name.

    Raises:
        TargetError: there is no fit of the core.
        DataError: a fit is of other kernels or of other memories, or is malformed.
    """
    core = target if isinstance(target, str) else target.core
    known = [name for name in CORES if (BUILT_IN / f"{name}.json").exists()]
    if core not in known:
        raise TargetError(f"there is no predictor for {core!r}; there is one for {', '.join(known) or 'no core'}")
    fit = read_fit(BUILT_IN / f"{core}.json")
    path = BUILT_IN / f"{getattr(target, 'name', None)}.json"
    if isinstance(target, str) or not path.exists():
        return Predictor(fit)
    waits = read_fit(path)
    if waits.memories != memories_hash(target):
        raise DataError(f"{path}: the predictor of {target.name} was fitted for memories of another speed: {REFIT}")
    return Predictor(fit, waits, target)


def costs(target: Target | None, *, dsp: bool = False) -> Costs:
    """How long kernel calls take on a target: predicted, or estimated where there is no fit of the kernels as they are.

    Args:
        target: the target, or None.
        dsp: without a target, the core has the DSP extension.
    """
    if target is None:
        return estimated(dsp, "no target is given")
    try:
        predictor = load_predictor(target)
    except TargetError:
        return estimated(target.dsp, f"there is no predictor for {target.core}")
    except DataError:
        return estimated(target.dsp, f"the predictor of {target.core} is of other kernels or memories: {REFIT}")
    known = target.name if predictor.waits is not None else f"{target.core}, without waiting for memories"
    return Costs(f"predicted for {known}", target.dsp, predictor.time)


def predict(
    op: Operator, shapes: tuple[Shape, ...], target: Target | str, *, sparsity: Sparsity | None = None
) -> Prediction:
    """What an operator costs, without emulation.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        target: a target, or a core's name for zero wait states alone.
        sparsity: to which the weight is taken to be pruned, its blocks at random; `op.weight` as it is by default.
            It decides whether the weight is encoded as sparse, and what that costs; operators without one ignore it.

    Raises:
        TargetError: there is no predictor for the core.
        DataError: it was fitted for other kernels, or for memories of another speed; or the weight has not as many
            blocks as the sparsity.
        UnsupportedError: no kernel runs the operator.
    """
    return load_predictor(target).predict(op, shapes, sparsity)


def predict_graph(graph: Graph, target: Target | str) -> GraphPrediction:
    """What a model costs, node by node; what calls the kernels, some twenty cycles a node, is left out.

    Args:
        graph: the model.
        target: a target, or a core's name for zero wait states alone.

    Raises:
        TargetError: there is no predictor for the core.
        DataError: it was fitted for other kernels, or for memories of another speed.
        UnsupportedError: naming the node that no kernel runs.
    """
    return load_predictor(target).predict_graph(graph)


@functools.cache
def kernels_hash() -> str:
    """SHA-256 over the kernels' sources and headers, hexadecimal: fits are for these."""
    digest = hashlib.sha256()
    for path in (*ckernels.headers(), *ckernels.sources().values()):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def memories_hash(target: Target) -> str:
    """SHA-256 over how fast a target's memories are, hexadecimal."""
    caches = [replace(cache, source="") for cache in target.caches]
    parts = [replace(part, source="") for part in target.memory_timing]
    return hashlib.sha256(repr((caches, parts)).encode()).hexdigest()
