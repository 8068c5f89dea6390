"""What a normaliser sees of the node that it resolves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from codegen.onnx.network import Network, Op
from refsim.errors import UnsupportedError
from refsim.tensor import Shape

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What a normaliser sees of its node: inputs are names after all renaming; dtype is the first one's in the file."""

    network: Network
    node: onnx.NodeProto
    inputs: list[str]
    attributes: Attributes
    opset: int
    dtype: np.dtype[Any]

    @property
    def shape(self) -> Shape:
        """Of the first input."""
        return self.network.shapes[self.inputs[0]]

    @property
    def output(self) -> str:
        """The first output."""
        return str(self.node.output[0])

    @property
    def output_shape(self) -> Shape:
        """Of the first output."""
        return self.network.shapes[self.output]

    def emit(self, kind: str, inputs: list[str] | None = None, output: str | None = None, **attributes: Any) -> str:
        """Append an operator; returns its output."""
        taken = {op.name for op in self.network.ops}
        name, count = self.node.name, 1
        while name in taken:
            name, count = f"{self.node.name}_{count}", count + 1
        op = Op(name, kind, inputs or self.inputs[:1], output or self.output, attributes)
        self.network.ops.append(op)
        return op.output

    def new_tensor(self, suffix: str, shape: Shape) -> str:
        """A name for a tensor that the file lacks."""
        name = f"{self.output}/{suffix}"
        self.network.shapes[name] = shape
        return name

    def constant(self, position: int, attribute: str = "") -> np.ndarray[Any, Any] | None:
        """The constant at an input position, else the attribute of that name (older operator sets), else None."""
        if position < len(self.inputs) and self.inputs[position]:
            found = self.network.constants.get(self.inputs[position])
            if found is None:
                raise self.unsupported(f"input {self.inputs[position]!r} must be a constant")
            return np.asarray(found.real)
        if attribute in self.attributes:
            return np.asarray(self.attributes[attribute])
        return None

    def axis(self, axis: int) -> int:
        """An axis of the first input, counted from the front."""
        rank = len(self.shape)
        if not -rank <= axis < rank:
            raise self.unsupported(f"axis {axis} is none of the {rank} axes of its input")
        return axis % rank

    def unsupported(self, message: str) -> UnsupportedError:
        """An error that names the node."""
        return UnsupportedError(f"node {self.node.name!r} ({self.node.op_type}): {message}")


Normalizer = Callable[[Context], None]
"""Enters a node into the network as operators of its few kinds."""
