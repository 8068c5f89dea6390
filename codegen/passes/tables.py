"""Merge chains of operators that map each byte on its own."""

from dataclasses import replace

import numpy as np

from codegen.passes.unused import drop_unused
from refsim import Graph, Node
from refsim.ops.lookup import Lookup
from refsim.ops.requantize import Requantize


def merge_tables(graph: Graph) -> Graph:
    """A lookup or requantisation of one that nobody else reads becomes a single lookup: tables compose exactly."""
    outputs = {port.tensor for port in graph.outputs}
    merged: dict[str, Node] = {}
    nodes: list[Node] = []
    for original in graph.nodes:
        node, before = original, merged.get(original.inputs[0])
        if isinstance(node.op, (Lookup, Requantize)):
            if before is not None and before.output not in outputs and len(graph.consumers(before.output)) == 1:
                every_byte = np.arange(-128, 128, dtype=np.int8)[None]
                table = node.op.run(before.op.run(every_byte))[0]
                node = Node(node.name, Lookup(table), before.inputs, node.output)
            merged[node.output] = node
        nodes.append(node)
    return drop_unused(replace(graph, nodes=tuple(nodes)))
