"""What an operator costs on a core, from its shape alone: a search asks thousands of times, too often to emulate.

An operator's cost is a sum over its kernel's loops: how often each is entered and repeated, times what that takes. The
counts follow from the loop nest of the C source and are exact; a function for each kernel gives them here, found by
the name in the `KernelCall`, so that `codegen.emit` stays the one place where kernels are chosen. What each count costs
is fitted on emulated runs by `tinyformer fit-predictor` and kept in `codegen/predictors/`, one file for each core, and
one for each target whose memories make the core wait. Costs are never negative: they are what a loop takes, and so
they hold beyond the shapes they were fitted on.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ckernels
from codegen.cache_counts import cache_counts
from codegen.emit import KernelCall, kernel_call
from codegen.emit.base import Params
from codegen.target import CORES, Target
from refsim.errors import DataError, TargetError, located
from refsim.graph import Graph
from refsim.numerics import Int8Array, Rounding
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


# ---- the loops of each kernel ----

Terms = dict[str, float]
"""How often something happens in one call, by name."""

Count = Callable[[Params, Sparsity | None], Terms]
"""Counts one call of a kernel, from its parameters and its weight's sparsity; the names are the same for every call."""

_KERNELS: dict[str, Count] = {}


def _kernel(name: str) -> Callable[[Count], Count]:
    """Register the counts of a kernel."""

    def register(count: Count) -> Count:
        _KERNELS[name] = count
        return count

    return register


def loop_counts(call: KernelCall, sparsity: Sparsity | None = None) -> Terms:
    """How often each loop of a kernel is entered and repeated in one call.

    Args:
        call: the kernel and its parameters.
        sparsity: of the weight, for a kernel that leaves zeros out; dense kernels ignore it.

    Raises:
        DataError: the kernel has no counts here.
    """
    if call.kernel not in _KERNELS:
        raise DataError(f"the predictor knows no kernel {call.kernel}; it knows {', '.join(sorted(_KERNELS))}")
    return {"calls": 1.0, **_KERNELS[call.kernel](call.params, sparsity)}


def _loop(name: str, lengths: Any, times: float = 1.0) -> Terms:
    """A loop that is entered `times` for each of `lengths`.

    Compilers run four elements a pass, which only a loop of at least four enters, and the rest one by one.
    """
    array = np.atleast_1d(np.asarray(lengths, np.int64))
    rests = {f"{name}: rest of {rest}": float((array % 4 == rest).sum() * times) for rest in (1, 2, 3)}
    return {
        f"{name}: short": float((array < 4).sum() * times),
        f"{name}: long": float((array >= 4).sum() * times),
        f"{name}: 4 elements": float((array // 4).sum() * times),
        **rests,
    }


def _requantized(p: Params, outputs: float) -> Terms:
    """Outputs by how the kernels requantise them: the shift decides, one a channel or one for all."""
    double = p["rounding"] == Rounding.DOUBLE
    short = float(np.mean(np.asarray(p["shift"]) < -1))
    return {
        "outputs: high word": 0.0 if double else outputs * short,
        "outputs: two words": 0.0 if double else outputs * (1 - short),
        "outputs: rounded twice": outputs if double else 0.0,
    }


def _windows(p: Params) -> tuple[NDArray[np.int64], NDArray[np.int64], Terms]:
    """How a window moves over an image.

    Returns:
        Positions inside the image, of each row and of each column of windows; how often windows are placed, and cut.
    """
    inside, before, after = [], [], []
    for axis, padding in (("h", "pad_top"), ("w", "pad_left")):
        starts = np.arange(_int(p, f"output_{axis}")) * _int(p, f"stride_{axis}") - _int(p, padding)
        dilation = _int(p, f"dilation_{axis}") if f"dilation_{axis}" in p else 1
        positions = starts[:, None] + np.arange(_int(p, f"kernel_{axis}")) * dilation
        inside.append(((positions >= 0) & (positions < _int(p, f"input_{axis}"))).sum(axis=1))
        before.append(int((starts < 0).sum()))
        after.append(int((positions[:, -1] >= _int(p, f"input_{axis}")).sum()))
    rows, columns = inside
    return (
        rows,
        columns,
        {
            "output rows": rows.size,
            "output positions": rows.size * columns.size,
            "windows cut before": before[0] + rows.size * before[1],
            "windows cut after": after[0] + rows.size * after[1],
        },
    )


def _walk(p: Params, dims: str = "dims") -> tuple[int, int, Terms]:
    """A walk over a shape row by row: length and number of the rows, and what stepping from row to row takes."""
    lengths = [int(n) for n in np.asarray(p[dims])]
    rows = math.prod(lengths[:-1])
    turns = sum(math.prod(lengths[:axis]) for axis in range(1, len(lengths) - 1))
    return lengths[-1], rows, {"axis turns": turns, **_loop("row: axes", len(lengths) - 1, rows)}


def _int(p: Params, name: str) -> int:
    return int(p[name])


@_kernel("tnf_linear")
def _linear(p: Params, sparsity: Sparsity | None) -> Terms:
    rows, n, outputs = _int(p, "rows"), _int(p, "input_c"), _int(p, "output_c")
    quads, singles = divmod(outputs, 4)
    return {
        "rows": rows,
        **_loop("four outputs", n, rows * quads),
        **_loop("one output", n, rows * singles),
        **_requantized(p, rows * outputs),
    }


@_kernel("tnf_matmul")
def _matmul(p: Params, sparsity: Sparsity | None) -> Terms:
    k, n, transposed = _int(p, "k"), _int(p, "n"), _int(p, "transpose_b")
    rows = _int(p, "batch") * _int(p, "m")
    quads, singles = divmod(n, 4)
    return {
        "matrices": _int(p, "batch"),
        "rows": rows,
        **_loop("row sum", k, rows * (p["b_zero_point"] != 0)),
        **_loop("four transposed columns", k, rows * quads * transposed),
        **_loop("one transposed column", k, rows * singles * transposed),
        **_loop("four columns", k - 1, rows * quads * (1 - transposed)),
        **_loop("one column", k, rows * singles * (1 - transposed)),
        **_requantized(p, rows * n),
    }


@_kernel("tnf_conv2d")
def _conv2d(p: Params, sparsity: Sparsity | None) -> Terms:
    groups = _int(p, "groups")
    group_in, group_out = _int(p, "input_c") // groups, _int(p, "output_c") // groups
    rows, taps, windows = _windows(p)
    merged = groups == 1 and p["dilation_w"] == 1
    runs = taps[taps > 0] * group_in if merged else np.full(taps.sum(), group_in)
    quads, singles = divmod(group_out, 4)
    positions = rows.size * taps.size
    image_rows = float(rows.sum() * (taps > 0).sum())
    return {
        **windows,
        "groups": positions * groups,
        "four channels": positions * groups * quads,
        "four channels: rows": image_rows * groups * quads,
        **_loop("four channels: run", runs, float(rows.sum()) * groups * quads),
        "one channel": positions * groups * singles,
        "one channel: rows": image_rows * groups * singles,
        **_loop("one channel: run", runs, float(rows.sum()) * groups * singles),
        **_requantized(p, positions * groups * group_out),
    }


@_kernel("tnf_depthwise_conv2d")
def _depthwise_conv2d(p: Params, sparsity: Sparsity | None) -> Terms:
    inputs, outputs = _int(p, "input_c"), _int(p, "output_c")
    rows, cols, windows = _windows(p)
    quads, singles = divmod(outputs, 4) if inputs == outputs else (0, outputs)
    positions = rows.size * cols.size
    cols = cols[cols > 0]
    return {
        **windows,
        "four channels": positions * quads,
        "four channels: rows": float(rows.sum() * cols.size) * quads,
        "four channels: taps": float(rows.sum() * cols.sum()) * quads,
        "input channels": positions * (inputs - 4 * quads),
        "one channel": positions * singles,
        **_loop("one channel: row", cols, float(rows.sum()) * singles),
        **_requantized(p, positions * outputs),
    }


def _pooling(p: Params, sparsity: Sparsity | None) -> Terms:
    rows, cols, windows = _windows(p)
    pairs = -(-_int(p, "channels") // 2)
    positions = rows.size * cols.size
    return {
        **windows,
        "two channels": positions * pairs,
        **_loop("two channels: row", cols, float(rows.sum()) * pairs),
    }


_kernel("tnf_max_pool2d")(_pooling)
_kernel("tnf_average_pool2d")(_pooling)


@_kernel("tnf_softmax")
def _softmax(p: Params, sparsity: Sparsity | None) -> Terms:
    rows, n = _int(p, "rows"), _int(p, "n")
    # An exponential is computed once for each difference to a row's maximum that occurs, with a product for each bit of
    # its integer part in quarters.
    occurs = 1 - (1 - _score_differences(n, rows > 1)) ** (rows * n)
    differences = np.arange(256)
    computed = occurs * (differences <= -_int(p, "diff_min"))
    quarters = differences * (_int(p, "multiplier") * 2.0 ** (_int(p, "shift") - 31 - 24))
    products = sum((quarters.astype(np.int64) >> bit) & 1 for bit in range(7))
    return {
        "rows": rows,
        **_loop("row", n, rows),
        "exponentials: looked for": float(occurs.sum()),
        "exponentials": float(computed.sum()),
        "exponentials: products": float((computed * products).sum()),
    }


def _score_differences(n: int, many: bool) -> NDArray[np.float64]:
    """Probability of each difference to the maximum of a row of `n`, where scores are normal and fill int8."""
    deviation = 36.0
    maximum = deviation * NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) if n > 1 else 0.0
    spread = math.hypot(deviation, deviation / 3) if many else deviation  # the maximum is another in each row
    density = np.exp(-0.5 * ((np.arange(256) - maximum) / spread) ** 2)
    probabilities: NDArray[np.float64] = density / density.sum()
    return probabilities


@_kernel("tnf_attention")
def _attention(p: Params, sparsity: Sparsity | None) -> Terms:
    """The counts of the three operators, each with the operator's name before it."""
    batch, m, n = (_int(p, name) for name in ("batch", "m", "n"))
    parts = {
        "scores": _matmul({**p, **_own(p, "scores")}, sparsity),
        "softmax": _softmax({"rows": batch * m, "n": n, **_own(p, "softmax")}, sparsity),
        "context": _matmul({**p, "k": n, "n": p["d"], **_own(p, "context")}, sparsity),
    }
    return {
        "tiles": batch * -(-m // _int(p, "tile_rows")),
        **{f"{part}: {name}": count for part, terms in parts.items() for name, count in terms.items()},
    }


def _own(p: Params, operator: str) -> Params:
    """The parameters of one of several operators that a kernel joins."""
    return {name.removeprefix(f"{operator}_"): value for name, value in p.items() if name.startswith(operator)}


@_kernel("tnf_layernorm")
def _layernorm(p: Params, sparsity: Sparsity | None) -> Terms:
    rows, n = _int(p, "rows"), _int(p, "n")
    return {"rows": rows, **_loop("row", n, rows), **_requantized(p, rows * n)}


@_kernel("tnf_add")
def _add(p: Params, sparsity: Sparsity | None) -> Terms:
    n, rows, walk = _walk(p)
    double = p["rounding"] == Rounding.DOUBLE
    # What add.c calls the usual case.
    strides = int(np.asarray(p["a_strides"])[-1]), int(np.asarray(p["b_strides"])[-1])
    shifts = _int(p, "a_shift") <= 0 and _int(p, "b_shift") <= 0 and _int(p, "output_shift") < -1
    usual = strides == (1, 1) and not double and shifts
    stages = [int(_int(p, f"{name}_shift") >= -1) for name in ("a", "b", "output")]
    return {
        **walk,
        **_loop("contiguous", n, rows * usual),
        **_loop("any stride", n, rows * (not usual)),
        "any stride: two words": 0.0 if usual or double else rows * n * sum(stages),
        "any stride: rounded twice": rows * n if double else 0.0,
    }


@_kernel("tnf_mul")
def _mul(p: Params, sparsity: Sparsity | None) -> Terms:
    n, rows, walk = _walk(p)
    return {**walk, **_loop("row", n, rows), **_requantized(p, rows * n)}


@_kernel("tnf_requantize")
def _requantize(p: Params, sparsity: Sparsity | None) -> Terms:
    return {**_loop("elements", _int(p, "size")), **_requantized(p, _int(p, "size"))}


@_kernel("tnf_mean")
def _mean(p: Params, sparsity: Sparsity | None) -> Terms:
    outputs = _int(p, "outer") * _int(p, "inner")
    return {"outer": _int(p, "outer"), **_loop("output", _int(p, "n"), outputs), **_requantized(p, outputs)}


@_kernel("tnf_lookup")
def _lookup(p: Params, sparsity: Sparsity | None) -> Terms:
    return _loop("elements", _int(p, "size"))


@_kernel("tnf_reshape")
def _reshape(p: Params, sparsity: Sparsity | None) -> Terms:
    return _loop("elements", _int(p, "size"))


@_kernel("tnf_transpose")
def _transpose(p: Params, sparsity: Sparsity | None) -> Terms:
    n, rows, walk = _walk(p)
    return {**walk, **_loop("row", n, rows)}


@_kernel("tnf_slice")
def _slice(p: Params, sparsity: Sparsity | None) -> Terms:
    n, rows, walk = _walk(p)
    contiguous = int(np.asarray(p["strides"])[-1]) == 1
    return {
        **walk,
        **_loop("contiguous", n, rows * contiguous),
        **_loop("strided", n, rows * (not contiguous)),
    }


@_kernel("tnf_pad")
def _pad(p: Params, sparsity: Sparsity | None) -> Terms:
    n, rows, walk = _walk(p, "output_dims")
    sizes, results, befores = (np.asarray(p[name]) for name in ("input_dims", "output_dims", "before"))
    inside = np.ones((1,) * max(len(sizes) - 1, 1), bool)
    for axis in range(len(sizes) - 1):
        at = np.arange(results[axis]) - befores[axis]
        inside = inside & ((at >= 0) & (at < sizes[axis])).reshape([-1 if i == axis else 1 for i in range(inside.ndim)])
    starts = np.arange(rows) * n
    copied, padding = starts[inside.ravel()], starts[~inside.ravel()]
    width, before = int(sizes[-1]), int(befores[-1])
    return {
        **walk,
        **_loop("copied", width, copied.size),
        **_filled("before", copied, before),
        **_filled("after", copied + before + width, n - before - width),
        **_filled("row", padding, n),
    }


def _filled(name: str, starts: NDArray[np.int64], length: int) -> Terms:
    """Bytes set to one value: words where the address allows it, in a tensor that begins at one of a word."""
    aligned, others = int((starts % 4 == 0).sum()), int((starts % 4 != 0).sum())
    return {
        f"{name}: filled": starts.size * (length > 0),
        f"{name}: 16 bytes": aligned * (length // 16),
        f"{name}: words": aligned * (length % 16 // 4),
        f"{name}: bytes": aligned * (length % 4) + others * length,
    }


@_kernel("tnf_concat")
def _concat(p: Params, sparsity: Sparsity | None) -> Terms:
    outer, chunks = _int(p, "outer"), np.asarray(p["chunk"])
    rescaled = np.asarray(p["rescale"]) != 0
    shifts, double = np.asarray(p["shift"])[rescaled], p["rounding"] == Rounding.DOUBLE
    elements = chunks[rescaled] * outer
    return {
        "outer": outer,
        "chunks": outer * chunks.size,
        **_loop("copied", chunks[~rescaled], outer),
        **_loop("rescaled", chunks[rescaled], outer),
        "rescaled: two words": 0.0 if double else float(elements[shifts >= -1].sum()),
        "rescaled: rounded twice": float(elements.sum()) if double else 0.0,
    }


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
        weight = getattr(op, "weight", None)
        if sparsity is None and weight is not None:
            sparsity = Sparsity.of(weight)
        activations = sum(map(math.prod, (*shapes, op.output_shape(*shapes))))
        return self.predict_call(kernel_call(op, shapes), activations, sparsity)

    def predict_call(self, call: KernelCall, activations: int, sparsity: Sparsity | None = None) -> Prediction:
        """What one call of a kernel costs, whose inputs and output have so many bytes; see `predict`."""
        counts = loop_counts(call, sparsity)
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
                # The planner lays a view over its input, so that it runs no code.
                view = kernel_call(node.op, shapes).view
                nodes[node.name] = _NOTHING if view else self.predict(node.op, shapes)
        return GraphPrediction(nodes)


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


def predict(
    op: Operator, shapes: tuple[Shape, ...], target: Target | str, *, sparsity: Sparsity | None = None
) -> Prediction:
    """What an operator costs, without emulation.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        target: a target, or a core's name for zero wait states alone.
        sparsity: of the weight; the share of elements of `op.weight` that are not zero by default. Dense kernels, and
            there are no others as yet, compute zeros too and ignore it.

    Raises:
        TargetError: there is no predictor for the core.
        DataError: it was fitted for other kernels, or for memories of another speed.
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
