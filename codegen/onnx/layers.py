"""The convolutions and linear layers of a float model: where their weights and biases are, and how to change them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from codegen.onnx.build import build_network
from codegen.onnx.fusion import fuse
from codegen.onnx.network import Network, Op
from codegen.onnx.reader import ModelFile

Place = tuple[str, int]
"""A node's name and the position of one of its inputs."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer with a weight.

    Attributes:
        op: in the fused network.
        node: in the model file; it writes the sums, before an activation.
        weight: float64, as the file lays it out.
        axis: of the weight that counts output channels.
        bias_at: which input of which node is the bias; None where several constants make it up, or there is none.
        has_bias: whether there is one.
    """

    op: Op
    node: onnx.NodeProto
    weight: NDArray[np.float64]
    axis: int
    bias_at: Place | None
    has_bias: bool

    @property
    def channels(self) -> int:
        """Output channels."""
        return int(self.weight.shape[self.axis])

    @property
    def weight_name(self) -> str:
        """The weight's tensor in the file."""
        return str(self.node.input[1])

    def by_channel(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """One value an output channel, shaped to meet the weight."""
        shape = [1] * self.weight.ndim
        shape[self.axis] = -1
        return row.reshape(shape)


def fused(file: ModelFile) -> Network:
    """The file's network with its patterns recognised."""
    network = build_network(file, "")
    fuse(network)
    return network


def float_layers(file: ModelFile, network: Network) -> list[Layer]:
    """In execution order; a batch normalisation that became a convolution is none of them."""
    nodes = {node.name: node for node in file.proto.graph.node}
    found = []
    for op in network.ops:
        node = nodes.get(op.name)
        if op.kind not in ("Conv", "Linear") or node is None or node.op_type == "BatchNormalization":
            continue
        weight = np.asarray(file.values[node.input[1]], np.float64)
        axis = 0 if op.kind == "Conv" or op.attributes["transposed"] else weight.ndim - 1
        has_bias = any(op.inputs[2:])
        found.append(Layer(op, node, weight, axis, op.attributes["bias_at"] if has_bias else None, has_bias))
    return found


def with_constants(
    proto: onnx.ModelProto, constants: Mapping[Place, NDArray[np.float64]], suffix: str
) -> onnx.ModelProto:
    """A copy of the model in which these inputs of nodes are other constants, of names that end in the suffix."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    nodes = {node.name: node for node in changed.graph.node}
    for (name, position), data in constants.items():
        node = nodes[name]
        inputs = [*node.input, ""][: max(len(node.input), position + 1)]
        inputs[position] = f"{name}/{position}/{suffix}"
        del node.input[:]
        node.input.extend(inputs)
        changed.graph.initializer.append(numpy_helper.from_array(data.astype(np.float32), inputs[position]))
    return changed
