"""Relations between graphs: what passes, order, memory plans and schedules must not change."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np

import refsim
from codegen import passes
from codegen.choose import Optimise, estimated
from codegen.emit import KernelCall
from codegen.planner import ArenaPlan, plan_arena
from codegen.schedule import make_schedule
from conformance.relations.base import GRAPHS, Pair, register, relation
from conformance.relations.engine import Engine, Kernels
from conformance.relations.programs import random_calls, random_plan, run_program
from refsim import Graph
from refsim.numerics import Int8Array


def _inputs(graph: Graph, random: Random, samples: int = 1) -> dict[str, Int8Array]:
    """Random bytes by tensor name, int8 (samples, *shape): the same ones in the file's layout, whatever the graph's."""
    found = {}
    for port in graph.inputs:
        shape = port.file_shape(graph.tensors[port.tensor].shape)
        data = np.frombuffer(random.randbytes(samples * int(np.prod(shape))), np.int8).reshape(samples, *shape)
        order = port.permutation or range(len(shape))
        found[port.tensor] = np.ascontiguousarray(data.transpose(0, *(axis + 1 for axis in order)))
    return found


def _outputs(graph: Graph, found: dict[str, Int8Array]) -> dict[str, Int8Array]:
    """Outputs (samples, *shape) by port, in the file's layout."""
    outputs = {}
    for port in graph.outputs:
        y = found[port.tensor]
        order = port.permutation or tuple(range(y.ndim - 1))
        outputs[port.name] = y.transpose(0, *(order.index(axis) + 1 for axis in range(len(order))))
    return outputs


def _run(graph: Graph, engine: Engine, seed: int, kernels: int = 0) -> dict[str, Int8Array]:
    """A graph's outputs for inputs that hang on the seed; at a place by kernels and a plan that `kernels` decides."""
    inputs = _inputs(graph, Random(seed))  # noqa: S311 - test data
    if not isinstance(engine, Kernels):
        return _outputs(graph, refsim.run(graph, inputs, threads=1))
    random = Random(kernels)  # noqa: S311 - test data
    calls = random_calls(graph, engine.place.dsp[-1], random)
    return _placed(graph, engine, calls, random_plan(graph, calls, random), inputs)


def _placed(
    graph: Graph, engine: Kernels, calls: list[KernelCall], plan: ArenaPlan, inputs: dict[str, Int8Array]
) -> dict[str, Int8Array]:
    sample = {name: x[0] for name, x in inputs.items()}
    found = run_program(engine.place, graph, calls, plan, sample)
    return _outputs(graph, {name: y[None] for name, y in found.items()})


def _equal(before: dict[str, Int8Array], after: dict[str, Int8Array]) -> Iterator[Pair]:
    yield from ((before[name], after[name]) for name in before)


def _pass(of: Callable[[Graph], Graph], graph: Graph, engine: Engine, random: Random) -> Iterator[Pair]:
    seed = random.getrandbits(32)
    changed = of(graph)
    if changed.nodes:
        yield from _equal(_run(graph, engine, seed), _run(changed, engine, seed))


@relation(GRAPHS)
def any_order(graph: Graph, engine: Engine, random: Random) -> Iterator[Pair]:
    """Nodes may run in any order in which each reads what was written before."""
    known, left, order = {port.tensor for port in graph.inputs} | set(graph.constants), list(graph.nodes), []
    while left:
        node = random.choice([node for node in left if known.issuperset(node.inputs)])
        left.remove(node)
        order.append(node)
        known.add(node.output)
    seed = random.getrandbits(32)
    yield from _equal(_run(graph, engine, seed), _run(replace(graph, nodes=tuple(order)), engine, seed))


@relation(GRAPHS)
def any_kernels_and_plan(graph: Graph, engine: Engine, random: Random) -> Iterator[Pair]:
    """Any kernels for each node and any legal plan of the arena give the same bytes (at places)."""
    if isinstance(engine, Kernels):
        seed, calls = random.getrandbits(32), random_calls(graph, engine.place.dsp[0], random)
        inputs = _inputs(graph, Random(seed))  # noqa: S311 - test data
        planned = _placed(graph, engine, calls, plan_arena(graph, calls), inputs)
        for _ in range(2):
            yield from _equal(planned, _run(graph, engine, seed, random.getrandbits(32)))


@relation(GRAPHS)
def every_tensor(graph: Graph, engine: Engine, random: Random) -> Iterator[Pair]:
    """Kernels write what the golden model does into every tensor (at places)."""
    if isinstance(engine, Kernels):
        inputs = _inputs(graph, random)
        golden = refsim.run(graph, inputs, trace=True, threads=1)
        calls = random_calls(graph, engine.place.dsp[-1], random)
        sample = {name: x[0] for name, x in inputs.items()}
        found = run_program(engine.place, graph, calls, random_plan(graph, calls, random), sample)
        yield from ((golden[name][0], y) for name, y in found.items())


@relation(GRAPHS)
def any_schedule(graph: Graph, engine: Engine, random: Random) -> Iterator[Pair]:
    """What kernels are chosen for, with which order, fusion and plan, changes no byte."""
    seed, dsp = random.getrandbits(32), random.random() < 0.5
    dsp = engine.place.dsp[-1] and dsp if isinstance(engine, Kernels) else dsp
    before = _run(graph, engine, seed)
    for optimise in Optimise:
        schedule = make_schedule(graph, estimated(dsp, "a relation"), optimise, dsp=dsp)
        if isinstance(engine, Kernels):
            inputs = _inputs(schedule.graph, Random(seed))  # noqa: S311 - test data
            after = _placed(schedule.graph, engine, list(schedule.calls), schedule.plan, inputs)
        else:
            after = _run(schedule.graph, engine, seed)
        yield from _equal(before, after)


@relation(GRAPHS)
def any_batch(graph: Graph, engine: Engine, random: Random) -> Iterator[Pair]:
    """A batch gives what its samples give one by one, with any number of threads (the golden model)."""
    if not isinstance(engine, Kernels):
        inputs = _inputs(graph, random, samples=3)
        whole = refsim.run(graph, inputs, threads=2)
        alone = [refsim.run(graph, {name: x[i : i + 1] for name, x in inputs.items()}, threads=1) for i in range(3)]
        yield from ((whole[name], np.concatenate([one[name] for one in alone])) for name in whole)


_PASSES: dict[str, Callable[[Graph], Graph]] = {
    **{name.replace("_", "-"): getattr(passes, name) for name in passes.__all__},
    "merge-transposes": partial(passes.sink_transposes, through=False),
    "sink-transposes-both-ways": partial(passes.sink_transposes, both_ways=True),
}

for _name, _of in _PASSES.items():
    register(f"pass-{_name}", f"Pass {_name} changes no output.", (GRAPHS,), partial(_pass, _of))
