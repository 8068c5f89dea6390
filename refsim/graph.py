"""The integer graph: named int8 tensors and the operators between them, in the order they run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from refsim.errors import ModelError, ShapeError, located
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True)
class Node:
    """One operator at work.

    Attributes:
        name: unique; the model file's name of the node it came from, where there is one.
        op: the operator.
        inputs: names of the tensors it reads.
        output: name of the tensor it writes.
    """

    name: str
    op: Operator
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Port:
    """An input or output of the graph, and how the model file names and lays it out.

    Attributes:
        tensor: the graph's tensor.
        name: the model file's name for it.
        permutation: axis i of the graph's tensor is axis permutation[i] of the file's, both for one sample;
            empty where the layouts are the same.
    """

    tensor: str
    name: str
    permutation: tuple[int, ...] = ()

    def file_shape(self, shape: Shape) -> Shape:
        """The file's shape of one sample, from the graph's."""
        if not self.permutation:
            return shape
        return tuple(shape[self.permutation.index(axis)] for axis in range(len(shape)))


@dataclass(frozen=True)
class Graph:
    """A model as integer operators; checks itself when built.

    Attributes:
        name: of the model.
        inputs, outputs: the graph's ports.
        tensors: type of every tensor by name, constants included.
        nodes: in execution order; each tensor is written once, before it is read.
        constants: bytes of the tensors that are known beforehand, int8 of the tensor's shape.

    Raises:
        ModelError: names are missing, doubled or used before they exist; also, with the node's name, whatever an
            operator finds wrong with its tensors (`ShapeError`, `QuantizationError`).
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: Mapping[str, TensorType]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Int8Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))
        known: set[str] = set()
        for port in self.inputs:
            self._define(port.tensor, known, "graph input")
        for name, data in self.constants.items():
            self._define(name, known, "constant")
            if data.dtype != np.int8 or data.shape != self.tensors[name].shape:
                raise ShapeError(
                    f"constant {name!r} must be int8 of shape {self.tensors[name].shape}, "
                    f"found {data.dtype} {data.shape}"
                )
        seen: set[str] = set()
        for node in self.nodes:
            where = f"node {node.name!r} ({node.op.name})"
            if node.name in seen:
                raise ModelError(f"{where}: a node of this name exists already")
            seen.add(node.name)
            for tensor in node.inputs:
                if tensor not in known:
                    raise ModelError(f"{where}: reads tensor {tensor!r} before anything has written it")
            self._define(node.output, known, where)
            with located(where):
                node.op.check([self.tensors[t] for t in node.inputs], self.tensors[node.output])
        for port in self.outputs:
            if port.tensor not in known:
                raise ModelError(f"graph output {port.tensor!r} is never written")
        for port in (*self.inputs, *self.outputs):
            shape = self.tensors[port.tensor].shape
            if port.permutation and sorted(port.permutation) != list(range(len(shape))):
                raise ShapeError(f"port {port.name!r}: {port.permutation} is no permutation of the axes of {shape}")

    def _define(self, tensor: str, known: set[str], where: str) -> None:
        if tensor in known:
            raise ModelError(f"{where}: tensor {tensor!r} is written twice")
        if tensor not in self.tensors:
            raise ModelError(f"{where}: tensor {tensor!r} has no type")
        known.add(tensor)

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """Shape of one sample of every input as the model file lays it out, by the file's name."""
        return {port.name: port.file_shape(self.tensors[port.tensor].shape) for port in self.inputs}

    def producer(self, tensor: str) -> Node | None:
        """The node that writes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read a tensor."""
        return tuple(node for node in self.nodes if tensor in node.inputs)
