"""Byte for byte beside ONNX Runtime on the same QDQ model: each operator alone, and one after the other.

ONNX Runtime is no bit-exact reference: between the pairs it computes in float. Its bytes are those that the file's
QuantizeLinear operators write.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.dataset import Batch
from refsim.engine import quantize_input, run
from refsim.errors import DataError, ModelError
from refsim.float_model import ALIGNED_ON, OnnxSession, find_order, turn
from refsim.graph import Graph
from refsim.numerics import Int8Array


@dataclass(frozen=True)
class LayerAgreement:
    """One operator's bytes beside ONNX Runtime's.

    Attributes:
        node, operator, tensor: names of the node, its operator and what it writes.
        bytes: how many were compared.
        alone_equal: share of equal bytes where the operator gets ONNX Runtime's own bytes as inputs.
        alone_largest: largest difference of a byte, so.
        equal: share of equal bytes where refsim ran the whole model up to here.
        largest: largest difference of a byte, so.
    """

    node: str
    operator: str
    tensor: str
    bytes: int
    alone_equal: float
    alone_largest: int
    equal: float
    largest: int


@dataclass(frozen=True)
class Agreement:
    """Every layer that the file quantises.

    Attributes:
        samples: how many were run.
        layers: in execution order.
        unmatched: nodes whose output the file does not quantise, or not as the graph does.
        same_class: share of samples to which both give the same class; None if the first output is no vector.
    """

    samples: int
    layers: tuple[LayerAgreement, ...]
    unmatched: tuple[str, ...]
    same_class: float | None

    def records(self) -> list[dict[str, Any]]:
        """One for each layer, with plain values."""
        return [asdict(layer) for layer in self.layers]


class _Difference:
    """Counts of equal bytes over the batches."""

    def __init__(self) -> None:
        self.count = self.equal = self.largest = 0

    def add(self, ours: Int8Array, theirs: Int8Array) -> None:
        difference = np.abs(ours.astype(np.int16) - theirs)
        self.count += difference.size
        self.equal += int((difference == 0).sum())
        self.largest = max(self.largest, int(difference.max()))


class QuantizedFile:
    """A QDQ ONNX model in ONNX Runtime.

    Args:
        path: the file.
        graph: what `refsim.load` made of it.

    Raises:
        ModelError: the file is unreadable or not quantised.
    """

    def __init__(self, path: str | Path, graph: Graph) -> None:
        import onnx  # noqa: PLC0415 - slow to import, and needed for model files only

        self.session, self.graph = OnnxSession(path), graph
        proto = self.session.proto
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        self.names: dict[str, str] = {}
        for node in proto.graph.node:
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in constants:
                continue
            written = node.op_type == "QuantizeLinear"
            stored, real = (node.output[0], node.input[0]) if written else (node.input[0], node.output[0])
            scale = constants[node.input[1]]
            zero = constants.get(node.input[2]) if len(node.input) > 2 else np.uint8(0)
            if scale.size != 1 or zero is None or stored in constants:
                continue
            offset = 128 if zero.dtype == np.uint8 else 0
            for tensor in (real, stored):
                kind = graph.tensors.get(tensor)
                meant = (float(np.float32(scale.reshape(())[()])), int(np.asarray(zero).reshape(())[()]) - offset)
                if kind is not None and tensor not in graph.constants and (kind.scale, kind.zero_point) == meant:
                    self.names.setdefault(tensor, stored)
        if not self.names:
            raise ModelError(f"{path}: holds no QuantizeLinear that belongs to the graph: give a QDQ ONNX model")
        self._orders: dict[str, tuple[int, ...] | None] = {}

    def run(self, batch: Batch, trace: dict[str, Int8Array]) -> dict[str, Int8Array]:
        """The bytes that the file's QuantizeLinear operators write, (N, *shape) in the graph's layout, by tensor."""
        found = self.session.run(sorted(set(self.names.values())), batch.inputs)
        result: dict[str, Int8Array] = {}
        for tensor, name in self.names.items():
            theirs = _as_int8(found[name])
            if tensor not in self._orders:
                self._orders[tensor] = find_order(
                    theirs[:ALIGNED_ON].astype(np.float64), trace[tensor][:ALIGNED_ON].astype(np.float64)
                )
            order = self._orders[tensor]
            if order is not None:
                result[tensor] = np.ascontiguousarray(turn(theirs, order, self.graph.tensors[tensor].shape))
        return result


def _as_int8(stored: NDArray[Any]) -> Int8Array:
    return stored if stored.dtype == np.int8 else (stored.astype(np.int16) - 128).astype(np.int8)


def agreement(
    graph: Graph,
    path: str | Path,
    batches: Iterable[Batch],
    *,
    threads: int | None = None,
    count: Callable[[int], None] = lambda samples: None,
) -> Agreement:
    """Compare a graph's bytes with what ONNX Runtime makes of the same QDQ file.

    Args:
        graph: what `refsim.load` made of the file.
        path: the file.
        batches: samples; each is in memory with every tensor of the model.
        threads: as for `refsim.run`.
        count: called with the number of samples done since the last call.

    Raises:
        DataError: there are no samples.
        ModelError: the file is unreadable or not quantised, or ONNX Runtime refuses it.
    """
    file = QuantizedFile(path, graph)
    alone = {node.output: _Difference() for node in graph.nodes}
    chained = {node.output: _Difference() for node in graph.nodes}
    samples = same = 0
    first = graph.outputs[0].tensor
    for batch in batches:
        inputs = {port.tensor: quantize_input(graph, port, batch.inputs[port.name]) for port in graph.inputs}
        trace = run(graph, inputs, trace=True, threads=threads)
        theirs = file.run(batch, trace)
        values = {**inputs, **theirs}
        for name, data in graph.constants.items():
            values[name] = np.ascontiguousarray(np.broadcast_to(data, (len(batch), *data.shape)))
        for node in graph.nodes:
            ours = node.op.run(*(values[tensor] for tensor in node.inputs))
            if node.output in theirs:
                alone[node.output].add(ours, theirs[node.output])
                chained[node.output].add(trace[node.output], theirs[node.output])
            else:
                values[node.output] = ours
        if first in theirs and theirs[first].ndim == 2:
            same += int((theirs[first].argmax(axis=1) == trace[first].argmax(axis=1)).sum())
        samples += len(batch)
        count(len(batch))
    if not samples:
        raise DataError("the dataset holds no samples")
    layers = tuple(
        LayerAgreement(
            node.name,
            node.op.name,
            node.output,
            alone[node.output].count,
            alone[node.output].equal / alone[node.output].count,
            alone[node.output].largest,
            chained[node.output].equal / chained[node.output].count,
            chained[node.output].largest,
        )
        for node in graph.nodes
        if alone[node.output].count
    )
    unmatched = tuple(node.name for node in graph.nodes if not alone[node.output].count)
    vector = first in file.names and len(graph.tensors[first].shape) == 1
    return Agreement(samples, layers, unmatched, same / samples if vector else None)
