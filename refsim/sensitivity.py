"""Which layer's quantisation costs most: one layer as the engine computes it, all others in real numbers."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.comparison import decibels
from refsim.dataset import Batch
from refsim.engine import quantize_input, run
from refsim.errors import DataError, ModelError
from refsim.graph import Graph, Node
from refsim.real import MOVES, RealArray
from refsim.reference import Reference, Values, real_node

MOST = 16
"""Samples that run together, at most: the fewer, the more often progress is seen."""

SAMPLES = 128
"""Samples that are enough to rank layers: the effect is averaged over every element of the output."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer's quantisation does to the model's outputs, by itself.

    Attributes:
        node, operator, tensor: names of the node, its operator and what it writes.
        sqnr_db: of the outputs, in dB; the lower, the more the layer costs; inf if they do not change.
        changed: share of samples to which the model gives another class; None if its output is no vector of scores.
        accuracy_change: accuracy less the reference's, in [-1, 1]; None without labels.
    """

    node: str
    operator: str
    tensor: str
    sqnr_db: float
    changed: float | None
    accuracy_change: float | None


@dataclass(frozen=True)
class Sensitivity:
    """Every layer's, the costliest first.

    Attributes:
        reference: name of the reference.
        samples: how many were run.
        layers: sorted by `sqnr_db`; operators that only move bytes, and tensors that the reference lacks, are left out.
    """

    reference: str
    samples: int
    layers: tuple[LayerSensitivity, ...]

    def records(self) -> list[dict[str, Any]]:
        """One for each layer, with plain values."""
        return [asdict(layer) for layer in self.layers]


class _Effect:
    """Sums over the batches of what one layer does to the outputs."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        self.samples = self.changed = self.labelled = self.right = self.right_before = 0

    def add(self, true: Values, changed: Values, first: str, labels: NDArray[np.int64] | None) -> None:
        """Outputs of the reference, and with the layer quantised; `first` is the output that holds scores."""
        for name, x in true.items():
            self.signal += float(np.square(x).sum())
            self.noise += float(np.square(changed[name] - x).sum())
        if first not in true or true[first].ndim != 2:
            return
        before, after = true[first].argmax(axis=1), changed[first].argmax(axis=1)
        self.samples += len(before)
        self.changed += int((before != after).sum())
        if labels is not None:
            self.labelled += len(labels)
            self.right_before += int((before == labels).sum())
            self.right += int((after == labels).sum())

    def result(self, node: Node) -> LayerSensitivity:
        return LayerSensitivity(
            node.name,
            node.op.name,
            node.output,
            decibels(self.signal, self.noise),
            self.changed / self.samples if self.samples else None,
            (self.right - self.right_before) / self.labelled if self.labelled else None,
        )


def sensitivity(
    graph: Graph,
    reference: Reference,
    batches: Iterable[Batch],
    *,
    threads: int | None = None,
    count: Callable[[int], None] = lambda samples: None,
) -> Sensitivity:
    """Quantise one layer at a time.

    The layer gets the reference's inputs, rounded to int8, and runs in integers with its own int8 weights; the rest of
    the model then runs in real numbers from what it wrote.

    Args:
        graph: the quantised model.
        reference: see `refsim.reference`.
        batches: samples, labelled or not; each is in memory with every tensor of the model.
        threads: as for `refsim.run`.
        count: called with the number of samples done since the last call.

    Raises:
        DataError: there are no samples.
        ModelError: the reference cannot run, or has none of the graph's outputs.
    """
    effects: dict[str, _Effect] = {}
    first = graph.outputs[0].tensor
    samples = 0
    for batch in batches:
        inputs = {port.tensor: quantize_input(graph, port, batch.inputs[port.name]) for port in graph.inputs}
        values = reference.run(batch.inputs, run(graph, inputs, trace=True, threads=threads))
        complete = _completed(graph, values)
        true = {port.tensor: values[port.tensor] for port in graph.outputs if port.tensor in values}
        if not true:
            names = ", ".join(repr(port.name) for port in graph.outputs)
            raise ModelError(f"{reference.name} lacks the outputs {names}, on which the effect of a layer is measured")
        for node in _layers(graph):
            if node.output in reference.names:
                changed = reference.resume(batch.inputs, values, node.output, _quantized(graph, node, complete))
                effects.setdefault(node.name, _Effect()).add(true, changed, first, batch.labels)
        samples += len(batch)
        count(len(batch))
    if not samples:
        raise DataError("the dataset holds no samples")
    found = [effects[node.name].result(node) for node in _layers(graph) if node.name in effects]
    return Sensitivity(reference.name, samples, tuple(sorted(found, key=lambda layer: layer.sqnr_db)))


def _layers(graph: Graph) -> list[Node]:
    """The nodes that compute."""
    return [node for node in graph.nodes if not isinstance(node.op, MOVES)]


def _completed(graph: Graph, values: Values) -> Values:
    """The reference's values, with those of the graph's own tensors that it lacks computed from them."""
    complete = dict(values)
    for node in graph.nodes:
        if node.output not in complete:
            complete[node.output] = real_node(graph, node, complete)
    return complete


def _quantized(graph: Graph, node: Node, values: Values) -> RealArray:
    """What the node writes in integers, from real inputs."""
    size = len(next(iter(values.values())))
    inputs = []
    for tensor in node.inputs:
        data = graph.constants.get(tensor)
        if data is None:
            inputs.append(graph.tensors[tensor].quantize(values[tensor]))
        else:
            inputs.append(np.ascontiguousarray(np.broadcast_to(data, (size, *data.shape))))
    return graph.tensors[node.output].dequantize(node.op.run(*inputs)).astype(np.float64)
