"""Remove nodes, constants and tensors that no output needs."""

from dataclasses import replace

from refsim import Graph


def drop_unused(graph: Graph) -> Graph:
    """The graph without what its outputs do not need; its inputs stay."""
    live = {port.tensor for port in graph.outputs}
    nodes = []
    for node in reversed(graph.nodes):
        if node.output in live:
            live.update(node.inputs)
            nodes.append(node)
    live.update(port.tensor for port in graph.inputs)
    return replace(
        graph,
        tensors={name: kind for name, kind in graph.tensors.items() if name in live},
        nodes=tuple(nodes[::-1]),
        constants={name: data for name, data in graph.constants.items() if name in live},
    )
