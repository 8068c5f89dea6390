"""Where a quantised model leaves its reference: error of every layer's output, and how it uses its int8 range."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.dataset import Batch, samples_at_once
from refsim.engine import quantize_input, run
from refsim.errors import DataError
from refsim.evaluation import Counter, Evaluation
from refsim.graph import Graph, Node
from refsim.numerics import Int8Array, Int64Array
from refsim.real import MOVES, RealArray
from refsim.reference import Reference
from refsim.tensor import TensorType

MOST = 64
"""Samples whose every tensor is in memory at a time, at most."""


@dataclass(frozen=True, eq=False)
class LayerComparison:
    """One operator's output in the quantised model and in the reference. Errors are in real units, quantised - real.

    What the quantised model computes carries the errors of all layers before it.

    Attributes:
        node, operator, tensor: names of the node, its operator and what it writes.
        reference: the reference's name of the tensor; None where it has none, and every error is then None.
        scale, zero_point: of the tensor.
        sqnr_db: signal to quantisation noise, 10 * log10(sum of real^2 / sum of error^2), dB; inf without error.
        lost_db: the smallest sqnr_db among the operator's inputs less its own: what is lost here.
        cosine: of the angle between the quantised and the real tensor; 1 where both are zero, 0 where one is.
        max_error, mean_error, rms_error: largest magnitude, mean (the bias) and root mean square.
        rms_steps: rms_error in steps of the scale; rounding alone gives about 0.29.
        real_range: smallest and largest real value.
        clipped: share of real values beyond the tensor's range by more than half a step, in [0, 1]; None where the
            reference ends there too.
        saturation: share of bytes at an end of the range that stands for another number than zero, in [0, 1].
        dead_channels: indices on the last axis whose bytes never change.
        channels: length of the last axis.
        histogram: int64 (256,), how often each byte from -128 occurs.
    """

    node: str
    operator: str
    tensor: str
    reference: str | None
    scale: float
    zero_point: int
    sqnr_db: float | None
    lost_db: float | None
    cosine: float | None
    max_error: float | None
    mean_error: float | None
    rms_error: float | None
    rms_steps: float | None
    real_range: tuple[float, float] | None
    clipped: float | None
    saturation: float
    dead_channels: tuple[int, ...]
    channels: int
    histogram: Int64Array

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest number that the tensor can hold."""
        return (-128 - self.zero_point) * self.scale, (127 - self.zero_point) * self.scale

    @property
    def levels(self) -> int:
        """How many of the 256 bytes occur."""
        return int(np.count_nonzero(self.histogram))

    def record(self) -> dict[str, Any]:
        """Every field but the histogram, with plain values."""
        low, high = self.range
        return {
            "node": self.node,
            "operator": self.operator,
            "tensor": self.tensor,
            "reference": self.reference,
            "scale": self.scale,
            "zero_point": self.zero_point,
            "sqnr_db": self.sqnr_db,
            "lost_db": self.lost_db,
            "cosine": self.cosine,
            "max_error": self.max_error,
            "mean_error": self.mean_error,
            "rms_error": self.rms_error,
            "rms_steps": self.rms_steps,
            "range_low": low,
            "range_high": high,
            "real_low": None if self.real_range is None else self.real_range[0],
            "real_high": None if self.real_range is None else self.real_range[1],
            "clipped": self.clipped,
            "saturation": self.saturation,
            "levels": self.levels,
            "channels": self.channels,
            "dead_channels": len(self.dead_channels),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """A quantised model beside its reference.

    Attributes:
        model: name of the graph.
        reference: name of the reference.
        samples: how many were run.
        layers: in execution order; operators that only move bytes are left out.
        quantized, real: accuracy of both, where the samples have labels and the output is a vector of scores.
        agreement: share of samples to which both give the same class, under the same conditions.
    """

    model: str
    reference: str
    samples: int
    layers: tuple[LayerComparison, ...]
    quantized: Evaluation | None
    real: Evaluation | None
    agreement: float | None

    @property
    def unmatched(self) -> tuple[LayerComparison, ...]:
        """The layers whose tensor the reference lacks."""
        return tuple(layer for layer in self.layers if layer.reference is None)

    def worst(self, count: int = 10) -> tuple[LayerComparison, ...]:
        """The layers that lose the most, by `lost_db`."""
        known = [layer for layer in self.layers if layer.lost_db is not None]
        return tuple(sorted(known, key=lambda layer: -(layer.lost_db or 0.0))[:count])

    def records(self) -> list[dict[str, Any]]:
        """One for each layer, with plain values: `pandas.DataFrame(comparison.records())`."""
        return [layer.record() for layer in self.layers]


class _Errors:
    """Sums over the batches of one tensor, beside the reference's."""

    def __init__(self, kind: TensorType) -> None:
        low, high = kind.dequantize(np.array([-128, 127], np.int8))
        self.ends = float(low) - kind.scale / 2, float(high) + kind.scale / 2
        self.count = self.outside = 0
        self.signal = self.noise = self.golden = self.dot = self.bias = self.largest = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, golden: RealArray, real: RealArray) -> None:
        error = golden - real
        self.count += error.size
        self.outside += int(np.count_nonzero((real < self.ends[0]) | (real > self.ends[1])))
        self.signal += float(np.vdot(real, real))
        self.noise += float(np.vdot(error, error))
        self.golden += float(np.vdot(golden, golden))
        self.dot += float(np.vdot(golden, real))
        self.bias += float(error.sum())
        self.largest = max(self.largest, float(np.abs(error).max()))
        self.low, self.high = min(self.low, float(real.min())), max(self.high, float(real.max()))

    @property
    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        if not self.signal and not self.golden:
            return 1.0
        size = math.sqrt(self.signal * self.golden)
        return self.dot / size if size else 0.0


class _Bytes:
    """How often each byte of one tensor occurs, and which channels change."""

    def __init__(self, channels: int) -> None:
        self.histogram = np.zeros(256, np.int64)
        self.low, self.high = np.full(channels, 127, np.int8), np.full(channels, -128, np.int8)

    def add(self, q: Int8Array) -> None:
        self.histogram += np.bincount(q.reshape(-1).view(np.uint8) ^ 128, minlength=256)
        rows = q.reshape(-1, self.low.size)
        self.low, self.high = np.minimum(self.low, rows.min(axis=0)), np.maximum(self.high, rows.max(axis=0))

    def saturation(self, kind: TensorType) -> float:
        ends = [index for index in (0, 255) if index - 128 != kind.zero_point]
        return float(self.histogram[ends].sum() / self.histogram.sum())


def batch_size(graph: Graph, most: int = MOST) -> int:
    """Samples whose every tensor may be in memory at a time, as int8 and as float64."""
    return samples_at_once(sum(kind.size for kind in graph.tensors.values()), most)


def decibels(signal: float, noise: float) -> float:
    """Signal over noise, both sums of squares, in dB; inf without noise, -inf without signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def compare(
    graph: Graph,
    reference: Reference,
    batches: Iterable[Batch],
    *,
    threads: int | None = None,
    count: Callable[[int], None] = lambda samples: None,
) -> Comparison:
    """Run the same samples through a graph and its reference and compare what every layer writes.

    Args:
        graph: the quantised model.
        reference: see `refsim.reference`.
        batches: samples, labelled or not; each is in memory with every tensor of the model.
        threads: as for `refsim.run`.
        count: called with the number of samples done since the last call.

    Raises:
        DataError: there are no samples, or labels that do not fit.
        ModelError: the reference cannot run.
    """
    layers = [node for node in graph.nodes if not isinstance(node.op, MOVES)]
    tensors = [port.tensor for port in graph.inputs] + [node.output for node in graph.nodes]
    errors = {tensor: _Errors(graph.tensors[tensor]) for tensor in tensors}
    use = {node.output: _Bytes((graph.tensors[node.output].shape or (1,))[-1]) for node in layers}
    classes = _Classes(graph)
    samples = 0
    for batch in batches:
        trace = run(
            graph,
            {port.tensor: quantize_input(graph, port, batch.inputs[port.name]) for port in graph.inputs},
            trace=True,
            threads=threads,
        )
        values = reference.run(batch.inputs, trace)
        for tensor, sums in errors.items():
            if tensor in values:
                sums.add(graph.tensors[tensor].dequantize(trace[tensor]).astype(np.float64), values[tensor])
        for tensor, counts in use.items():
            counts.add(trace[tensor])
        first = graph.outputs[0].tensor
        classes.add(graph.tensors[first].dequantize(trace[first]), values.get(first), batch.labels)
        samples += len(batch)
        count(len(batch))
    if not samples:
        raise DataError("the dataset holds no samples")
    sqnr = _sqnr_by_tensor(graph, errors)
    return Comparison(
        graph.name,
        reference.name,
        samples,
        tuple(_layer(graph, node, reference, errors[node.output], use[node.output], sqnr) for node in layers),
        *classes.result(),
    )


class _Classes:
    """Accuracy of both models where there are labels and scores."""

    def __init__(self, graph: Graph) -> None:
        self.vector = len(graph.tensors[graph.outputs[0].tensor].shape) == 1
        self.counters = (Counter("quantised model"), Counter("reference"))
        self.samples = self.same = 0

    def add(self, golden: NDArray[Any], real: RealArray | None, labels: NDArray[np.int64] | None) -> None:
        if not self.vector or real is None or labels is None:
            return
        for counter, scores in zip(self.counters, (golden, real), strict=True):
            counter.add(scores, labels)
        self.samples += len(labels)
        self.same += int((self.counters[0].classes == self.counters[1].classes).sum())

    def result(self) -> tuple[Evaluation | None, Evaluation | None, float | None]:
        if not self.samples:
            return None, None, None
        return self.counters[0].result(), self.counters[1].result(), self.same / self.samples


def _sqnr_by_tensor(graph: Graph, errors: dict[str, _Errors]) -> dict[str, float]:
    """Of every activation; what the reference does not know is as good as the worst that it is made of."""
    found: dict[str, float] = {}
    for tensor, sums in errors.items():
        node = graph.producer(tensor)
        if sums.count:
            found[tensor] = sums.sqnr_db
        elif node is not None:
            found[tensor] = min((found[name] for name in node.inputs if name in found), default=math.inf)
        else:
            found[tensor] = math.inf
    return found


def _layer(
    graph: Graph, node: Node, reference: Reference, sums: _Errors, use: _Bytes, sqnr: dict[str, float]
) -> LayerComparison:
    kind = graph.tensors[node.output]
    known = bool(sums.count)
    before = min((sqnr[name] for name in node.inputs if name in sqnr), default=math.inf)
    lost = before - sums.sqnr_db if known and math.isfinite(before) and math.isfinite(sums.sqnr_db) else None
    rms = math.sqrt(sums.noise / sums.count) if known else None
    return LayerComparison(
        node.name,
        node.op.name,
        node.output,
        reference.names.get(node.output) if known else None,
        kind.scale,
        kind.zero_point,
        sums.sqnr_db if known else None,
        lost,
        sums.cosine if known else None,
        sums.largest if known else None,
        sums.bias / sums.count if known else None,
        rms,
        rms / kind.scale if rms is not None else None,
        (sums.low, sums.high) if known else None,
        sums.outside / sums.count if known and not reference.bounded else None,
        use.saturation(kind),
        tuple(int(index) for index in np.flatnonzero(use.low == use.high)),
        use.low.size,
        use.histogram,
    )
