"""The arena planner: where each activation and each kernel's scratch lies in one block of memory.

Tensors that share memory (a reshape and its input, an operator that works in place) become one buffer, alive from its
first write to its last read. `codegen.placement` places the buffers by several strategies; the smallest arena wins.

In which order the operators run is decided before, by `codegen.order`.

Every plan can be checked by `check_plan`, which plays the program through on a memory of labelled bytes and shares
nothing with the planner but the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from codegen.emit import KernelCall
from codegen.placement import ALIGNMENT, STRATEGIES, Buffer, aligned, extent, in_use
from refsim.errors import TinyFormerError, UnsupportedError
from refsim.graph import Graph


class PlanError(TinyFormerError):
    """An arena plan would let one tensor overwrite another: a defect of the planner, never of the model."""


@dataclass(frozen=True)
class ArenaPlan:
    """Offsets of everything in the arena.

    Attributes:
        strategy: name of the strategy that won, a key of `peaks`.
        arena_bytes: size of the arena.
        tensor_offsets: byte offset of each activation that is not a constant, by name.
        scratch_offsets: byte offset of each scratch memory, by step.
        peaks: arena size of each strategy, bytes.
        lower_bound: largest sum of buffers in use in one step, scratch included: no plan can be smaller.
        fullest_step: the first step in which that sum is reached.
        live_tensors: names of the tensors whose buffers are in use then, largest first.
        tensor_bytes: largest sum of tensors in use in one step, scratch left out.
        scratch_bytes: largest scratch.
        buffers: everything that has a place in the arena, in the order in which it comes into use.
    """

    strategy: str
    arena_bytes: int
    tensor_offsets: Mapping[str, int]
    scratch_offsets: Mapping[int, int]
    peaks: Mapping[str, int]
    lower_bound: int
    fullest_step: int
    live_tensors: tuple[str, ...]
    tensor_bytes: int
    scratch_bytes: int
    buffers: tuple[Buffer, ...]

    def offset(self, buffer: Buffer) -> int:
        """Where one of `buffers` lies in the arena, bytes."""
        return self.tensor_offsets[buffer.tensors[0]] if buffer.tensors else self.scratch_offsets[buffer.first]

    def tensor_bytes_in(self, step: int) -> int:
        """Sum of the tensors in use in a step, scratch left out."""
        return in_use([buffer for buffer in self.buffers if buffer.tensors], step)


def plan_arena(graph: Graph, calls: Sequence[KernelCall]) -> ArenaPlan:
    """Plan the memory of a graph; `calls` are its nodes' kernel calls.

    Graph inputs are in use from step 0, graph outputs until the last step; constants stay in flash.

    Raises:
        UnsupportedError: a graph output is a constant.
    """
    for port in graph.outputs:
        if port.tensor in graph.constants:
            raise UnsupportedError(f"graph output {port.name!r} does not depend on any input; remove it from the model")
    buffers = _buffers(graph, calls)
    placements = {name: place(buffers) for name, place in STRATEGIES.items()}
    peaks = {name: extent(buffers, offsets) for name, offsets in placements.items()}
    strategy = min(peaks, key=lambda name: peaks[name])
    offsets = placements[strategy]
    steps = range(max(len(calls), 1))
    fullest = max(steps, key=lambda step: in_use(buffers, step))
    live = [b for b in sorted(buffers, key=lambda b: -b.bytes) if b.first <= fullest <= b.last and b.tensors]
    tensors = [b for b in buffers if b.tensors]
    return ArenaPlan(
        strategy=strategy,
        arena_bytes=peaks[strategy],
        tensor_offsets=MappingProxyType(
            {name: at for b, at in zip(buffers, offsets, strict=True) for name in b.tensors}
        ),
        scratch_offsets=MappingProxyType(
            {b.first: at for b, at in zip(buffers, offsets, strict=True) if not b.tensors}
        ),
        peaks=MappingProxyType(peaks),
        lower_bound=in_use(buffers, fullest),
        fullest_step=fullest,
        live_tensors=tuple(b.tensors[-1] for b in live),
        tensor_bytes=max(in_use(tensors, step) for step in steps),
        scratch_bytes=max((b.bytes for b in buffers if not b.tensors), default=0),
        buffers=buffers,
    )


def check_plan(graph: Graph, calls: Sequence[KernelCall], plan: ArenaPlan) -> None:
    """Play the graph through on an arena whose every byte knows whose value it holds.

    Raises:
        PlanError: something lies outside the arena or is misaligned, a kernel's output overlaps an input or scratch
            that it must not, or a value is gone before it is read.
    """
    arena = np.full(plan.arena_bytes, -1, np.int64)
    values: dict[str, int] = {}  # what a tensor's bytes must be labelled with; a view shares its input's label

    def span(what: str, start: int, size: int) -> slice:
        if start % ALIGNMENT or start < 0 or start + size > plan.arena_bytes:
            raise PlanError(f"{what} at {start} of {size} bytes does not fit an arena of {plan.arena_bytes} bytes")
        return slice(start, start + size)

    def tensor_span(tensor: str) -> slice:
        if tensor not in plan.tensor_offsets:
            raise PlanError(f"tensor {tensor!r} has no place in the arena")
        return span(f"tensor {tensor!r}", plan.tensor_offsets[tensor], graph.tensors[tensor].size)

    def expect(tensor: str, when: str) -> None:
        if not (arena[tensor_span(tensor)] == values[tensor]).all():
            raise PlanError(f"tensor {tensor!r} is overwritten before {when}")

    for label, port in enumerate(graph.inputs):
        values[port.tensor] = label
        arena[tensor_span(port.tensor)] = label
    for port in graph.inputs:
        expect(port.tensor, "the first step")
    for step, (node, call) in enumerate(zip(graph.nodes, calls, strict=True)):
        output = tensor_span(node.output)
        label = len(graph.inputs) + step
        activations = [(i, t) for i, t in enumerate(node.inputs) if t not in graph.constants]
        for _, tensor in activations:
            expect(tensor, f"node {node.name!r} reads it")
        if call.scratch_bytes:
            scratch = span(f"scratch of {node.name!r}", plan.scratch_offsets.get(step, -1), call.scratch_bytes)
            for tensor in (node.output, *(t for _, t in activations)):
                if _overlap(scratch, tensor_span(tensor)):
                    raise PlanError(f"scratch of node {node.name!r} overlaps tensor {tensor!r}")
            arena[scratch] = -1
        for index, tensor in activations:
            source = tensor_span(tensor)
            if _overlap(output, source):
                if output != source or index not in call.in_place:
                    raise PlanError(f"node {node.name!r} writes {node.output!r} over its input {tensor!r}")
                if call.view:
                    label = values[tensor]
        values[node.output] = label
        arena[output] = label
    for port in graph.outputs:
        expect(port.tensor, "the end")


def _overlap(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)


def _buffers(graph: Graph, calls: Sequence[KernelCall]) -> tuple[Buffer, ...]:
    """The buffers in the order in which they come into use."""
    end = max(len(calls) - 1, 0)
    last_use = {port.tensor: 0 for port in graph.inputs} | {node.output: i for i, node in enumerate(graph.nodes)}
    for step, node in enumerate(graph.nodes):
        last_use |= {tensor: step for tensor in node.inputs if tensor not in graph.constants}
    kept = {port.tensor for port in graph.outputs}
    last_use |= dict.fromkeys(kept, end)

    members = [[tensor] for tensor in dict.fromkeys(port.tensor for port in graph.inputs)]
    first = [0] * len(members)
    sources: list[tuple[int, ...]] = [()] * len(members)
    sizes = [aligned(graph.tensors[group[0]].size) for group in members]
    group_of = {group[0]: index for index, group in enumerate(members)}

    def may_overwrite(step: int, index: int) -> bool:
        """Whether nobody needs the buffer of input `index` once this step has written to it."""
        inputs, call = graph.nodes[step].inputs, calls[step]
        group = group_of[inputs[index]]
        shared = [i for i, tensor in enumerate(inputs) if group_of.get(tensor) == group]
        unread = all(last_use[t] <= step and t not in kept for t in members[group])
        return unread and all(i in call.in_place for i in shared)

    for step, (node, call) in enumerate(zip(graph.nodes, calls, strict=True)):
        home = next(
            (
                group_of[node.inputs[i]]
                for i in call.in_place
                if node.inputs[i] in group_of and (call.view or may_overwrite(step, i))
            ),
            None,
        )
        read = tuple(dict.fromkeys(group_of[t] for t in node.inputs if t in group_of))
        if home is None:
            home = len(members)
            members.append([])
            first.append(step)
            sources.append(read)
            sizes.append(aligned(graph.tensors[node.output].size))
        members[home].append(node.output)
        group_of[node.output] = home
        if call.scratch_bytes:
            members.append([])
            first.append(step)
            sources.append(tuple(dict.fromkeys((*read, home))))
            sizes.append(aligned(call.scratch_bytes))
    return tuple(
        Buffer(tuple(group), size, start, max((last_use[t] for t in group), default=start), reads)
        for group, size, start, reads in zip(members, sizes, first, sources, strict=True)
    )
