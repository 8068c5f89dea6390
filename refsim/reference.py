"""What a quantised model is held against: its float model in ONNX Runtime, or its own graph without roundings.

The float model is `refsim.float_model.FloatModel`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from refsim.graph import Graph, Node
from refsim.numerics import Int8Array
from refsim.real import RealArray, run_real

Inputs = Mapping[str, NDArray[np.float32]]
Values = dict[str, RealArray]
"""Real numbers (N, *shape) in the graph's layout, by the graph's tensor."""


class Reference(Protocol):
    """The real-valued model.

    Attributes:
        name: what it is, for reports.
        names: the reference's name of each graph tensor that it knows.
        bounded: whether its values end where the int8 ranges do.
    """

    name: str
    bounded: bool
    names: Mapping[str, str]

    def run(self, inputs: Inputs, trace: Mapping[str, Int8Array]) -> Values:
        """Every tensor that the reference knows.

        Args:
            inputs: float32 (N, *shape) in the model file's layout, by input name.
            trace: every int8 tensor of the graph on the same samples.
        """
        ...

    def resume(self, inputs: Inputs, values: Values, tensor: str, value: RealArray) -> Values:
        """The graph's outputs where one tensor takes another value, and all that follows from it changes.

        Args:
            inputs: as `run` takes them.
            values: as `run` gives them for these inputs.
            tensor: one of `names`.
            value: what it is now.
        """
        ...


@dataclass(eq=False)
class UnroundedGraph:
    """The graph itself with its int8 weights, but no activation rounded (`refsim.real`)."""

    graph: Graph
    name: str = "the dequantised graph"
    bounded: bool = True
    names: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {name: name for name in self.graph.tensors if name not in self.graph.constants}

    def run(self, inputs: Inputs, trace: Mapping[str, Int8Array]) -> Values:
        """See `Reference`."""
        values: Values = {}
        for port in self.graph.inputs:
            x = np.asarray(inputs[port.name], np.float64)
            values[port.tensor] = x.transpose(0, *(a + 1 for a in port.permutation)) if port.permutation else x
        return self._continue(values)

    def resume(self, inputs: Inputs, values: Values, tensor: str, value: RealArray) -> Values:
        """See `Reference`."""
        changed = self._continue(dict(values), {tensor: value})
        return {port.tensor: changed[port.tensor] for port in self.graph.outputs}

    def _continue(self, values: Values, given: Values | None = None) -> Values:
        """Complete the values; where some are given, only what depends on them."""
        changed = set(given or ())
        values |= given or {}
        for node in self.graph.nodes:
            if given is None or (node.output not in given and changed & set(node.inputs)):
                values[node.output] = real_node(self.graph, node, values)
                changed.add(node.output)
        return values


def real_node(graph: Graph, node: Node, values: Values) -> RealArray:
    """One node without rounding, from real inputs to its real output."""
    size = len(next(iter(values.values())))
    steps = []
    for tensor in node.inputs:
        kind = graph.tensors[tensor]
        if tensor in graph.constants:
            data = graph.constants[tensor].astype(np.float64)
            steps.append(np.broadcast_to(data, (size, *data.shape)))
        else:
            steps.append(values[tensor] / kind.scale + kind.zero_point)
    kind = graph.tensors[node.output]
    return (run_real(node.op, *steps) - kind.zero_point) * kind.scale
