"""Images flattened for a linear layer: move the transpose before the flattening into the layer's weights."""

import math
from dataclasses import replace

import numpy as np

from codegen.passes.unused import drop_unused
from refsim import Graph, Node
from refsim.ops.linear import Linear
from refsim.ops.reshape import Reshape
from refsim.ops.transpose import Transpose


def permute_flattened_weights(graph: Graph) -> Graph:
    """Transpose, reshape, linear: reorder the weight's columns instead of transposing.

    Possible where the transpose permutes only the axes that the reshape merges into the layer's rows.
    """
    nodes = {node.output: node for node in graph.nodes}
    tensors = dict(graph.tensors)
    outputs = {port.tensor for port in graph.outputs}
    for reshape in graph.nodes:
        readers = graph.consumers(reshape.output)
        transpose = graph.producer(reshape.inputs[0])
        if not isinstance(reshape.op, Reshape) or transpose is None or not isinstance(transpose.op, Transpose):
            continue
        if reshape.output in outputs or not readers or not all(isinstance(node.op, Linear) for node in readers):
            continue
        order = _column_order(tensors[transpose.inputs[0]].shape, transpose.op.permutation, reshape.op.shape)
        if order is None:
            continue
        nodes[reshape.output] = replace(reshape, inputs=transpose.inputs)
        for node in readers:
            assert isinstance(node.op, Linear)
            weight = np.empty_like(node.op.weight)
            weight[:, order] = node.op.weight
            nodes[node.output] = Node(node.name, replace(node.op, weight=weight), node.inputs, node.output)
    return drop_unused(replace(graph, nodes=tuple(nodes[node.output] for node in graph.nodes)))


def _column_order(shape: tuple[int, ...], permutation: tuple[int, ...], target: tuple[int, ...]) -> np.ndarray | None:
    """Each column's position in the untransposed row; None if the transpose reaches beyond rows."""
    for first in range(len(shape)):
        whole = math.prod(shape[first:]) == target[-1] and permutation[:first] == tuple(range(first))
        if whole and shape[:first] == target[:-1]:
            positions = np.arange(target[-1]).reshape(shape[first:])
            return positions.transpose([axis - first for axis in permutation[first:]]).reshape(-1)
    return None
