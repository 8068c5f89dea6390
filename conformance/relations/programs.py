"""A graph run kernel by kernel in an arena at a place: any kernels, any legal plan, and no C generated or compiled."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from codegen.emit import KernelCall, kernel_calls
from codegen.placement import ALIGNMENT, extent
from codegen.planner import ArenaPlan, check_plan, plan_arena
from conformance.layout import Layout, Span
from conformance.places import Place
from refsim import Graph
from refsim.numerics import Int8Array

_SLACK = 64
"""Bytes by which a random plan may leave holes above everything placed before."""


def random_calls(graph: Graph, dsp: bool, random: Random) -> list[KernelCall]:
    """For each node one of the kernel calls that it may become."""
    return [
        random.choice(kernel_calls(node.op, tuple(graph.tensors[name].shape for name in node.inputs), dsp=dsp))
        for node in graph.nodes
    ]


def random_plan(graph: Graph, calls: Sequence[KernelCall], random: Random) -> ArenaPlan:
    """A legal memory plan, of any size: every buffer somewhere where none lies that is in use at the same time.

    Raises:
        PlanError: it is not legal, a defect of this function or of the planner's buffers.
    """
    plan = plan_arena(graph, calls)
    buffers, offsets = plan.buffers, dict[int, int]()
    for index in random.sample(range(len(buffers)), len(buffers)):
        size = buffers[index].bytes
        taken = [(at, at + buffers[i].bytes) for i, at in offsets.items() if buffers[i].meets(buffers[index])]
        top = max((end for _, end in taken), default=0)
        free = [
            start
            for start in range(0, top + _SLACK + 1, ALIGNMENT)
            if all(start + size <= low or start >= high for low, high in taken)
        ]
        offsets[index] = random.choice(free)
    placed = list(enumerate(buffers))
    result = replace(
        plan,
        strategy="random",
        arena_bytes=extent(buffers, [offsets[index] for index, _ in placed]),
        tensor_offsets={name: offsets[index] for index, buffer in placed for name in buffer.tensors},
        scratch_offsets={buffer.first: offsets[index] for index, buffer in placed if not buffer.tensors},
    )
    check_plan(graph, calls, result)
    return result


def run_program(
    place: Place, graph: Graph, calls: Sequence[KernelCall], plan: ArenaPlan, sample: Mapping[str, Int8Array]
) -> dict[str, Int8Array]:
    """Run one sample.

    Args:
        place: where.
        graph: the model.
        calls: of its nodes.
        plan: of the arena.
        sample: int8 of each input's shape, by tensor name.

    Returns:
        What each node wrote, as it was when its step ended, and the graph's outputs as they were at the end.

    Raises:
        ConformanceError: a kernel crashed or wrote where it must not.
        EmulationError: it strayed, faulted or did not end.
    """
    spans, end = (
        {name: Span(at, graph.tensors[name].size) for name, at in plan.tensor_offsets.items()},
        plan.arena_bytes,
    )
    for name, data in graph.constants.items():  # behind the arena, where no kernel may write
        spans[name] = Span(end, data.size)
        end += -(-data.size // ALIGNMENT) * ALIGNMENT
    image = np.full(-(-end // 16) * 16, 0xA5, np.uint8)
    for name, data in (*graph.constants.items(), *sample.items()):
        image[spans[name].start : spans[name].end] = data.ravel().view(np.uint8)
    after, found = image.tobytes(), dict[str, Int8Array]()
    for step, (node, call) in enumerate(zip(graph.nodes, calls, strict=True)):
        scratch = Span(plan.scratch_offsets[step], call.scratch_bytes) if call.scratch_bytes else None
        layout = Layout(after, tuple(spans[name] for name in node.inputs), spans[node.output], scratch)
        after = place.run(call, layout)
        found[node.output] = _tensor(graph, node.output, layout.collect(after))
    for port in graph.outputs:
        span = spans[port.tensor]
        found[port.tensor] = _tensor(graph, port.tensor, after[span.start : span.end])
    return found


def _tensor(graph: Graph, name: str, data: bytes) -> Int8Array:
    return np.frombuffer(data, np.int8).reshape(graph.tensors[name].shape)
