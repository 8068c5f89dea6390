"""What runs, in which order, and where its memory lies: the choices that depend on each other.

Which attention is fused, the order of the operators, the kernel call of each and the arena. Memory decides: first
everything is planned with the calls that need the least of it, which gives an arena that the model needs in any case;
then each operator's call is chosen anew, and memory costs only what goes beyond that arena. So an attention gets the
tallest tile for which there is room beside the tensors that are alive, and a depthwise convolution works in place where
its output would make the arena larger.

`Optimise.BALANCED` weighs the arena, the constants and the time of the whole model against each other: of the sizes
that some call asks for it takes the one at which their product is least. So an arena that is larger by a hundredth has
to save a hundredth of the model's time or of its constants in flash, however much quicker a single operator becomes.
"""

from dataclasses import dataclass
from functools import partial

from codegen.choose import Candidate, Choice, Costs, Optimise, choose
from codegen.emit import KernelCall, kernel_calls
from codegen.order import order_nodes
from codegen.passes import fuse_attention
from codegen.placement import aligned
from codegen.planner import ArenaPlan, plan_arena
from refsim.errors import located
from refsim.graph import Graph, Node
from refsim.ops.attention import Attention
from refsim.ops.matmul import MatMul


@dataclass(frozen=True, eq=False)
class Schedule:
    """A graph as it runs.

    Attributes:
        graph: its nodes in execution order.
        choices: the kernel call of each node.
        plan: where everything lies.
    """

    graph: Graph
    choices: tuple[Choice, ...]
    plan: ArenaPlan

    @property
    def calls(self) -> tuple[KernelCall, ...]:
        """The kernel call of each node."""
        return tuple(choice.call for choice in self.choices)

    @property
    def _cost(self) -> tuple[int, float]:
        return self.plan.arena_bytes, sum(choice.time for choice in self.choices)


def make_schedule(graph: Graph, costs: Costs, optimise: Optimise, *, dsp: bool, reorder: bool = True) -> Schedule:
    """Choose the kernel calls and the order of the nodes, and plan the arena.

    Each attention is fused unless three operators need no larger arena, and no more time where the arena is the same.

    Args:
        graph: the model.
        costs: how long a kernel call takes.
        optimise: what kernel calls are chosen for.
        dsp: the core has the DSP extension.
        reorder: run the operators in another order than the graph's where that makes the arena smaller.

    Raises:
        UnsupportedError: naming the node, something that no kernel does; or a graph output is a constant.
    """
    candidates = _Candidates(costs, dsp)

    def made(one: Graph) -> Schedule:
        return _planned(one, [candidates.of(one, node) for node in one.nodes], optimise, reorder)

    best = made(fuse_attention(graph))
    apart: set[str] = set()
    for name in [node.name for node in graph.nodes if isinstance(node.op, MatMul)]:
        if name in {node.name for node in best.graph.nodes if isinstance(node.op, Attention)}:
            trial = made(fuse_attention(graph, {*apart, name}))
            if trial._cost <= best._cost:
                best = trial
                apart.add(name)
    return best


class _Candidates:
    """The kernel calls that nodes can have, found once for each node."""

    def __init__(self, costs: Costs, dsp: bool) -> None:
        self._costs = costs
        self._dsp = dsp
        self._known: dict[tuple[str, str], list[Candidate]] = {}

    def of(self, graph: Graph, node: Node) -> list[Candidate]:
        """Of a node of a graph, which may be the same node in several graphs."""
        key = node.name, node.op.name
        if key not in self._known:
            with located(f"node {node.name!r} ({node.op.name})"):
                shapes = tuple(graph.tensors[tensor].shape for tensor in node.inputs)
                calls = kernel_calls(node.op, shapes, dsp=self._dsp)
                activations = sum(graph.tensors[tensor].size for tensor in (*node.inputs, node.output))
                self._known[key] = [Candidate(call, self._costs.time(call, activations)) for call in calls]
        return self._known[key]


def _memory(graph: Graph, node: Node, call: KernelCall) -> int:
    """What a call needs beside the node's inputs: scratch, and room for its output unless that lies over an input."""
    over = any(graph.consumers(node.inputs[index]) == (node,) for index in call.in_place)
    return call.scratch_bytes + (0 if over else graph.tensors[node.output].size)


def _planned(graph: Graph, candidates: list[list[Candidate]], optimise: Optimise, reorder: bool) -> Schedule:
    """A graph with its nodes in execution order, their kernel calls and its memory plan."""
    of_node = {node.name: found for node, found in zip(graph.nodes, candidates, strict=True)}
    least = {}
    for node in graph.nodes:
        memory = partial(_memory, graph, node)
        least[node.name] = min((candidate.call for candidate in of_node[node.name]), key=memory)
    if reorder:
        graph = order_nodes(graph, tuple(least.values()))
    calls = [least[node.name] for node in graph.nodes]
    plan = plan_arena(graph, calls)
    beside = [plan.tensor_bytes_in(step) for step in range(len(calls))]
    arena = plan.arena_bytes

    def needed(step: int, call: KernelCall) -> int:
        node = graph.nodes[step]
        over = any(plan.tensor_offsets.get(t) == plan.tensor_offsets[node.output] for t in node.inputs)
        apart = aligned(graph.tensors[node.output].size) if over and not call.in_place else 0
        return beside[step] + aligned(call.scratch_bytes) + apart

    def chosen(limit: float) -> tuple[float, list[Choice]]:
        """The choices in an arena of at most so many bytes, and the product of arena, constants and time."""
        fitting = [[c for c in of_node[n.name] if needed(i, c.call) <= limit] for i, n in enumerate(graph.nodes)]
        reached = arena
        choices: list[Choice] = []
        before: list[Choice] | None = None
        while choices != before:  # once something has made the arena larger, there is more room for others
            before, choices = choices, []
            for step, found in enumerate(fitting):
                choice = choose(found, optimise, lambda call: max(0, needed(step, call) - reached))  # noqa: B023 - called at once
                choices.append(choice)
                reached = max(reached, needed(step, choice.call))
        constants = sum(choice.call.constant_bytes for choice in choices)
        return reached * max(1, constants) * sum(choice.time for choice in choices), choices

    if optimise is Optimise.BALANCED:
        least_time = sum(min(candidate.time for candidate in found) for found in candidates)
        least_constants = sum(min(candidate.call.constant_bytes for candidate in found) for found in candidates)
        cost, choices = chosen(arena)
        sizes = {needed(i, c.call) for i, node in enumerate(graph.nodes) for c in of_node[node.name]}
        for limit in sorted(size for size in sizes if size > arena):
            if limit * max(1, least_constants) * least_time >= cost:  # no larger arena can pay any more
                break
            cost, choices = min((cost, choices), chosen(limit), key=lambda one: one[0])
    else:
        _, choices = chosen(float("inf"))
    return Schedule(graph, tuple(choices), plan_arena(graph, [choice.call for choice in choices]))
