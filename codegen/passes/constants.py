"""Compute beforehand what hangs on constants alone."""

from dataclasses import replace

import numpy as np

from codegen.passes.unused import drop_unused
from refsim import Graph


def fold_constants(graph: Graph) -> Graph:
    """Run every node all of whose inputs are constants, and store what it writes."""
    constants = dict(graph.constants)
    nodes = []
    for node in graph.nodes:
        if all(name in constants for name in node.inputs):
            inputs = (np.ascontiguousarray(constants[name])[None] for name in node.inputs)
            constants[node.output] = node.op.run(*inputs)[0]
        else:
            nodes.append(node)
    return drop_unused(replace(graph, nodes=tuple(nodes), constants=constants))
