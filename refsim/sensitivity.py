"""Which layer's quantisation costs most: one layer as the engine computes it, all others in real numbers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from refsim.comparison import decibels
from refsim.dataset import Batch
from refsim.engine import quantize_input, run
from refsim.graph import Graph, Node
from refsim.real import MOVES, RealArray
from refsim.reference import Reference, Values, real_node

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


def sensitivity(
    graph: Graph,
    reference: Reference,
    batch: Batch,
    *,
    threads: int | None = None,
    count: Callable[[int], None] = lambda layers: None,
) -> Sensitivity:
    """Quantise one layer at a time.

    The layer gets the reference's inputs, rounded to int8, and runs in integers with its own int8 weights; the rest of
    the model then runs in real numbers from what it wrote.

    Args:
        graph: the quantised model.
        reference: see `refsim.reference`.
        batch: samples, all in memory; labelled or not.
        threads: as for `refsim.run`.
        count: called with the number of layers done since the last call.

    Raises:
        ModelError: the reference cannot run.
    """
    inputs = {port.tensor: quantize_input(graph, port, batch.inputs[port.name]) for port in graph.inputs}
    values = reference.run(batch.inputs, run(graph, inputs, trace=True, threads=threads))
    complete = _completed(graph, values)
    true = {port.tensor: values[port.tensor] for port in graph.outputs if port.tensor in values}
    found = []
    for node in layers(graph):
        if node.output in reference.names:
            changed = reference.resume(batch.inputs, values, node.output, _quantized(graph, node, complete))
            found.append(_effect(graph, node, true, changed, batch))
        count(1)
    found.sort(key=lambda layer: layer.sqnr_db)
    return Sensitivity(reference.name, len(batch), tuple(found))


def layers(graph: Graph) -> list[Node]:
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


def _effect(graph: Graph, node: Node, true: Values, changed: Values, batch: Batch) -> LayerSensitivity:
    signal = sum(float(np.square(x).sum()) for x in true.values())
    noise = sum(float(np.square(changed[name] - x).sum()) for name, x in true.items())
    other = accuracy = None
    first = graph.outputs[0].tensor
    if first in true and true[first].ndim == 2:
        before, after = true[first].argmax(axis=1), changed[first].argmax(axis=1)
        other = float((before != after).mean())
        if batch.labels is not None:
            accuracy = float((after == batch.labels).mean() - (before == batch.labels).mean())
    return LayerSensitivity(node.name, node.op.name, node.output, decibels(signal, noise), other, accuracy)
