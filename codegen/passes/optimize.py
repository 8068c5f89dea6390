"""All passes, in the order that pays."""

from codegen.passes.constants import fold_constants
from codegen.passes.flatten import permute_flattened_weights
from codegen.passes.identities import drop_identities
from codegen.passes.ports import absorb_input_transposes
from codegen.passes.tables import merge_tables
from codegen.passes.transposes import sink_transposes
from refsim import Graph
from refsim.ops.transpose import Transpose


def optimize(graph: Graph) -> Graph:
    """An equal graph with as few bytes transposed as the passes find, and no operator that does nothing."""
    graph = fold_constants(graph)
    while True:
        candidates = [graph]
        for through, both_ways in ((False, False), (True, False), (True, True)):
            moved = absorb_input_transposes(sink_transposes(graph, through=through, both_ways=both_ways))
            candidates.append(drop_identities(permute_flattened_weights(moved)))
        best = min(candidates[1:], key=_cost)
        if _cost(best) >= _cost(graph):
            return merge_tables(drop_identities(graph))
        graph = best


def _cost(graph: Graph) -> tuple[int, int]:
    """Bytes that transposes move, then the number of nodes."""
    moved = sum(graph.tensors[node.output].size for node in graph.nodes if isinstance(node.op, Transpose))
    return moved, len(graph.nodes)
