"""Fuse attention, so that the whole matrix of scores never exists."""

from collections.abc import Collection
from dataclasses import replace

from codegen.passes.unused import drop_unused
from refsim import Graph, Node
from refsim.ops.attention import Attention
from refsim.ops.matmul import MatMul
from refsim.ops.softmax import Softmax


def fuse_attention(graph: Graph, apart: Collection[str] = ()) -> Graph:
    """Matmul, softmax, matmul become one attention where nobody else reads scores or probabilities.

    Where there is none, the graph stays as it is.

    Args:
        graph: the model.
        apart: names of the nodes that end an attention which stays three operators.
    """
    ends = [node for node in graph.nodes if node.name not in apart]
    fused = {node.name: attention for node in ends if (attention := _fused(graph, node))}
    if not fused:
        return graph
    return drop_unused(replace(graph, nodes=tuple(fused.get(node.name, node) for node in graph.nodes)))


def _fused(graph: Graph, context: Node) -> Node | None:
    """The attention that ends in a node; None where none does."""
    if not isinstance(context.op, MatMul):
        return None
    softmax = _only_for(graph, context, context.inputs[0])
    if softmax is None or not isinstance(softmax.op, Softmax) or context.inputs[1] == softmax.output:
        return None
    scores = _only_for(graph, softmax, softmax.inputs[0])
    if scores is None or not isinstance(scores.op, MatMul):
        return None
    operator = Attention(scores.op, softmax.op, context.op)
    return Node(context.name, operator, (*scores.inputs, context.inputs[1]), context.output)


def _only_for(graph: Graph, reader: Node, tensor: str) -> Node | None:
    """The node that writes a tensor which only `reader` reads."""
    kept = any(port.tensor == tensor for port in graph.outputs)
    return None if kept or graph.consumers(tensor) != (reader,) else graph.producer(tensor)
