"""The order in which operators run, where a graph leaves a choice: the one whose arena is smallest.

How much is alive after some operators have run depends on which have run, not on their order. So one search over sets
of operators, layer by layer, finds the order with the smallest peak. It is exact while a layer has at most `_WIDTH`
sets; of more it keeps the most promising ones (a beam search).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from codegen.emit import KernelCall
from codegen.placement import aligned
from codegen.planner import plan_arena
from refsim.graph import Graph

_WIDTH = 100
"""Sets of operators that a layer of the search keeps."""


def order_nodes(graph: Graph, calls: Sequence[KernelCall]) -> Graph:
    """The same graph, its nodes in the order found that needs the smallest arena.

    Outputs stay the same byte for byte. The graph's own order is kept unless another one is strictly better.

    Args:
        graph: the model.
        calls: its nodes' kernel calls.

    Raises:
        UnsupportedError: a graph output is a constant.
    """
    order = search_order(graph, calls).nodes
    if order == tuple(range(len(graph.nodes))):
        return graph
    ordered = replace(graph, nodes=tuple(graph.nodes[i] for i in order))
    arena = plan_arena(ordered, [calls[i] for i in order]).arena_bytes
    return ordered if arena < plan_arena(graph, calls).arena_bytes else graph


@dataclass(frozen=True, order=True)
class Order:
    """Operators in the order in which they run; the smaller of two is the better one.

    Attributes:
        peak: bytes in use in the fullest step, which is the lower bound of the arena.
        live: bytes in use after the last step.
        nodes: indices of the operators.
    """

    peak: int
    live: int
    nodes: tuple[int, ...]


def search_order(graph: Graph, calls: Sequence[KernelCall]) -> Order:
    """The order with the smallest peak that is found; the graph's own one unless another has a smaller peak."""
    memory = _Memory(graph, calls)
    given = memory.start
    for node in range(len(calls)):
        given = memory.run(given, (1 << node) - 1, node)
    if given.peak == memory.least:
        return given
    layer = {0: memory.start}  # the best order of each set of operators; a set is the mask of their indices
    for _ in calls:
        grown: dict[int, Order] = {}
        for ran, order in layer.items():
            for node, needs in enumerate(memory.needs):
                if ran >> node & 1 or needs & ~ran:
                    continue
                longer, key = memory.run(order, ran, node), ran | 1 << node
                if longer.peak < given.peak and (key not in grown or longer < grown[key]):
                    grown[key] = longer
        layer = dict(sorted(grown.items(), key=lambda item: item[1])[:_WIDTH])
    return next(iter(layer.values()), given)


class _Memory:
    """What is in use while a graph's operators run in any order, by the planner's rules for sharing memory.

    A block is an activation with its views. It is in use from the step that writes it until all its readers have run.

    Attributes:
        needs: of each operator, a mask of those that must run before it.
        start: before the first operator.
        least: no order has a smaller peak.
    """

    def __init__(self, graph: Graph, calls: Sequence[KernelCall]) -> None:
        self._bytes: list[int] = []  # of each block
        self._readers: list[int] = []  # of each block, a mask; the top bit is the caller, who reads the outputs
        self._read: list[frozenset[int]] = []  # blocks that an operator reads
        self._overwritable: list[frozenset[int]] = []  # of these, those that it may write over
        self._written: list[int | None] = []  # the block that it starts; None for a view
        self._scratch = [aligned(call.scratch_bytes) for call in calls]
        block_of: dict[str, int] = {}
        writers = {node.output: 1 << index for index, node in enumerate(graph.nodes)}
        self.needs = [sum({writers.get(tensor, 0) for tensor in node.inputs}) for node in graph.nodes]

        def start_block(tensor: str) -> int:
            self._bytes.append(aligned(graph.tensors[tensor].size))
            self._readers.append(0)
            return len(self._bytes) - 1

        for port in graph.inputs:
            if port.tensor not in block_of:
                block_of[port.tensor] = start_block(port.tensor)
        inputs = range(len(self._bytes))
        for index, (node, call) in enumerate(zip(graph.nodes, calls, strict=True)):
            blocks = {i: block_of[tensor] for i, tensor in enumerate(node.inputs) if tensor in block_of}
            for block in blocks.values():
                self._readers[block] |= 1 << index
            in_place = [blocks[i] for i in call.in_place if i in blocks]
            elsewhere = {block for i, block in blocks.items() if i not in call.in_place}
            written = None if call.view and in_place else start_block(node.output)
            block_of[node.output] = in_place[0] if written is None else written
            self._read.append(frozenset(blocks.values()))
            self._overwritable.append(frozenset(in_place) - elsewhere)
            self._written.append(written)
        for port in graph.outputs:
            if port.tensor in block_of:
                self._readers[block_of[port.tensor]] |= 1 << len(calls)
        self._unread = sum(self._bytes[block] for block in inputs if not self._readers[block])  # inputs
        self.start = Order(0, sum(self._bytes[block] for block in inputs) - self._unread, ())
        self.least = max(
            (
                sum(self._bytes[block] for block in self._read[node])
                + self._growth(node, self._overwritable[node])
                + self._scratch[node]
                for node in range(len(calls))
            ),
            default=0,
        )

    def _growth(self, node: int, overwritable: frozenset[int]) -> int:
        """Bytes that an operator adds to those in use when it may write over some blocks."""
        written = self._written[node]
        return 0 if written is None or overwritable else self._bytes[written]

    def run(self, order: Order, ran: int, node: int) -> Order:
        """An order, the mask of whose operators is `ran`, with one more operator."""
        after = ran | 1 << node
        done = frozenset(block for block in self._read[node] if not self._readers[block] & ~after)
        used = order.live + self._growth(node, self._overwritable[node] & done) + self._scratch[node]
        used += 0 if ran else self._unread  # inputs lie in the arena in the first step, read or not
        written = self._written[node]
        kept = self._bytes[written] if written is not None and self._readers[written] else 0
        live = order.live - sum(self._bytes[block] for block in done) + kept
        return Order(max(order.peak, used), live, (*order.nodes, node))
