"""Let the graph's inputs take the layout that the graph wants."""

from dataclasses import replace

from codegen.passes.unused import drop_unused
from refsim import Graph, Node
from refsim.ops.transpose import Transpose


def absorb_input_transposes(graph: Graph) -> Graph:
    """An input read only through one transpose enters transposed; its port notes the permutation."""
    tensors, nodes, ports = dict(graph.tensors), list(graph.nodes), []
    outputs = {port.tensor for port in graph.outputs}
    for port in graph.inputs:
        readers = graph.consumers(port.tensor)
        permutations = {node.op.permutation if isinstance(node.op, Transpose) else None for node in readers}
        permutation = next(iter(permutations), None)
        if (
            len(permutations) != 1
            or permutation is None
            or port.tensor in outputs
            or outputs & {n.output for n in readers}
        ):
            ports.append(port)
            continue
        copies = {node.output for node in readers}
        nodes = [
            Node(
                node.name, node.op, tuple(port.tensor if name in copies else name for name in node.inputs), node.output
            )
            for node in nodes
            if node.output not in copies
        ]
        tensors[port.tensor] = tensors[readers[0].output]
        file_axes = port.permutation or tuple(range(len(permutation)))
        ports.append(replace(port, permutation=_normal(tuple(file_axes[axis] for axis in permutation))))
    return drop_unused(replace(graph, inputs=tuple(ports), tensors=tensors, nodes=tuple(nodes)))


def _normal(permutation: tuple[int, ...]) -> tuple[int, ...]:
    return () if permutation == tuple(range(len(permutation))) else permutation
