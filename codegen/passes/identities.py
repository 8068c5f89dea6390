"""Remove operators that copy their input, and merge reshapes of reshapes."""

from dataclasses import replace

import numpy as np

from codegen.passes.unused import drop_unused
from refsim import Graph, Node
from refsim.ops import Operator
from refsim.ops.concat import Concat
from refsim.ops.lookup import Lookup
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.transpose import Transpose
from refsim.tensor import TensorType


def drop_identities(graph: Graph) -> Graph:
    """The graph without reshapes, transposes, slices, pads and requantisations that change no byte and no shape.

    A reshape of a reshape becomes one; a transpose that moves axes of one element only becomes a reshape.
    """
    source: dict[str, str] = {}
    reshaped: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(source.get(name, name) for name in node.inputs)
        types = [graph.tensors[name] for name in inputs]
        output = graph.tensors[node.output]
        if _copies(node.op, types, output):
            source[node.output] = inputs[0]
            continue
        operator = node.op
        if isinstance(operator, Transpose) and _moves_ones_only(operator, types[0].shape):
            operator = Reshape(output.shape)
        if isinstance(operator, Reshape):
            origin = reshaped.get(inputs[0], inputs[0])
            if graph.tensors[origin].shape == output.shape:
                source[node.output] = origin
                continue
            reshaped[node.output] = origin
            inputs = (origin,)
        nodes.append(Node(node.name, operator, inputs, node.output))
    ports = tuple(replace(port, tensor=source.get(port.tensor, port.tensor)) for port in graph.outputs)
    return drop_unused(replace(graph, nodes=tuple(nodes), outputs=ports))


def _copies(operator: Operator, inputs: list[TensorType], output: TensorType) -> bool:
    if len(inputs) != 1 or inputs[0] != output:
        return False
    if isinstance(operator, Transpose):
        return operator.permutation == tuple(range(len(output.shape)))
    if isinstance(operator, Concat):
        return operator.rescale == (None,)
    if isinstance(operator, (Requantize, Lookup)):
        every_byte = np.arange(-128, 128, dtype=np.int8)[None]
        return bool((operator.run(every_byte) == every_byte).all())
    return isinstance(operator, (Reshape, Slice, Pad))


def _moves_ones_only(operator: Transpose, shape: tuple[int, ...]) -> bool:
    order = [axis for axis in operator.permutation if shape[axis] > 1]
    return order == sorted(order)
