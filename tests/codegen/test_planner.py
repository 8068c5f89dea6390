"""Arena plans: legal for any graph, never below the lower bound, and refused by the checker when tampered with."""

import itertools
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refsim
from codegen import placement, planner
from codegen.emit import KernelCall, kernel_call
from codegen.onnx import load
from codegen.placement import ALIGNMENT, STRATEGIES, Buffer, extent, lower_bound
from codegen.planner import ArenaPlan, PlanError, check_plan, plan_arena
from codegen.program import build_program
from refsim import Graph, TensorType
from refsim.errors import UnsupportedError
from refsim.numerics import Int8Array
from refsim.ops.add import Add
from refsim.ops.lookup import Lookup
from refsim.ops.pad import Pad
from refsim.ops.reshape import Reshape
from refsim.ops.softmax import Softmax
from tests.codegen.graphs import Builder, hybrid_graph, random_graphs

Y = TensorType((), 1 / 256, -128)
EXAMPLE = Path(__file__).parents[2] / "examples" / "tinyformer_cifar10" / "model.onnx"
IDENTITY = Lookup(np.arange(-128, 128).astype(np.int8))


def calls_of(graph: Graph) -> list[KernelCall]:
    return [kernel_call(n.op, tuple(graph.tensors[t].shape for t in n.inputs)) for n in graph.nodes]


def planned(graph: Graph) -> ArenaPlan:
    plan = plan_arena(graph, calls_of(graph))
    check_plan(graph, calls_of(graph), plan)
    return plan


@settings(max_examples=150, deadline=None)
@given(random_graphs())
def test_every_plan_is_legal_and_above_the_lower_bound(graph: Graph) -> None:
    plan = planned(graph)
    assert plan.arena_bytes == min(plan.peaks.values()) == plan.peaks[plan.strategy]
    assert plan.arena_bytes >= plan.lower_bound >= plan.tensor_bytes
    assert plan.arena_bytes % ALIGNMENT == 0
    assert set(plan.tensor_offsets) == set(graph.tensors) - set(graph.constants)


@settings(max_examples=60, deadline=None)
@given(random_graphs())
def test_every_strategy_is_legal(graph: Graph) -> None:
    calls = calls_of(graph)
    best = plan_arena(graph, calls)
    buffers = planner._buffers(graph, calls)
    for name, place in STRATEGIES.items():
        offsets = place(buffers)
        plan = replace(
            best,
            arena_bytes=best.peaks[name],
            tensor_offsets={t: at for b, at in zip(buffers, offsets, strict=True) for t in b.tensors},
            scratch_offsets={b.first: at for b, at in zip(buffers, offsets, strict=True) if not b.tensors},
        )
        check_plan(graph, calls, plan)


def tiling(random: Random, steps: int, height: int, cuts: int) -> list[Buffer]:
    """A full arena of so many steps, cut at random into buffers: some plan reaches the lower bound, with no gap."""
    parts = [(0, steps - 1, 0, height)]  # first and last step, offset, bytes
    for _ in range(cuts):
        first, last, offset, size = parts.pop(random.randrange(len(parts)))
        if last > first and random.random() < 0.5:
            middle = random.randrange(first, last)
            parts += [(first, middle, offset, size), (middle + 1, last, offset, size)]
        elif size > ALIGNMENT:
            lower = ALIGNMENT * random.randrange(1, size // ALIGNMENT)
            parts += [(first, last, offset, lower), (first, last, offset + lower, size - lower)]
        else:
            parts.append((first, last, offset, size))
    return [Buffer((f"t{i}",), size, first, last) for i, (first, last, _, size) in enumerate(sorted(parts))]


@pytest.mark.parametrize("name", ["local search", "branch and bound"])
@pytest.mark.parametrize("seed", range(20))
def test_a_search_is_near_the_optimum_where_nothing_may_be_wasted(seed: int, name: str) -> None:
    height = 8000
    buffers = tiling(Random(seed), steps=15, height=height, cuts=20)
    offsets = STRATEGIES[name](buffers)
    for (i, a), (j, b) in itertools.combinations(enumerate(buffers), 2):
        assert not a.meets(b) or offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]
    assert lower_bound(buffers) == height <= extent(buffers, offsets) <= 1.03 * height
    assert STRATEGIES[name](buffers) == offsets


def test_searches_beat_the_others_where_their_order_misleads_them() -> None:
    strategies = dict.fromkeys(STRATEGIES, 0)
    for seed in range(20):
        buffers = tiling(Random(seed), steps=15, height=8000, cuts=20)
        for name, place in STRATEGIES.items():
            strategies[name] += extent(buffers, place(buffers))
    searches = strategies.pop("local search"), strategies.pop("branch and bound")
    assert searches[1] == 20 * 8000 <= searches[0] < min(strategies.values())


@pytest.mark.parametrize("seed", range(8))
def test_more_buffers_than_any_example_has_stay_within_the_goal(seed: int) -> None:
    buffers = tiling(Random(seed), steps=50, height=8000, cuts=80)
    assert min(extent(buffers, place(buffers)) for place in STRATEGIES.values()) <= 1.03 * 8000


@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_a_few_buffers_is_better_than_branch_and_bound(seed: int) -> None:
    random = Random(seed)
    lives = [sorted(random.randrange(7) for _ in range(2)) for _ in range(7)]
    buffers = [Buffer((f"t{i}",), 8 * random.randrange(1, 9), *life) for i, life in enumerate(lives)]
    rivals = placement._rivals(buffers)
    least = min(
        extent(buffers, placement._lowest_fit(buffers, rivals, order)) for order in itertools.permutations(range(7))
    )
    assert extent(buffers, STRATEGIES["branch and bound"](buffers)) == least


@pytest.mark.parametrize("dsp", [False, True])
def test_the_example_network_needs_no_more_than_the_lower_bound(dsp: bool) -> None:
    program = build_program(load(EXAMPLE), dsp=dsp)
    assert program.plan.arena_bytes == program.plan.lower_bound
    assert program.plan.arena_bytes == max(program.plan.peaks.values())


def test_buffers_of_a_plan_are_its_tensors_and_scratch() -> None:
    graph = hybrid_graph()
    calls = calls_of(graph)
    plan = plan_arena(graph, calls)
    tensors = [tensor for buffer in plan.buffers for tensor in buffer.tensors]
    assert sorted(tensors) == sorted(plan.tensor_offsets)
    assert {b.first: plan.offset(b) for b in plan.buffers if not b.tensors} == plan.scratch_offsets
    assert max(plan.offset(b) + b.bytes for b in plan.buffers) == plan.arena_bytes


@settings(max_examples=40, deadline=None)
@given(random_graphs(), st.integers(0, 2**32 - 1))
def test_running_in_the_arena_gives_the_golden_bytes(graph: Graph, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = planned(graph)
    arena = rng.integers(-128, 128, plan.arena_bytes).astype(np.int8)

    def view(tensor: str) -> Int8Array:
        if tensor in graph.constants:
            return graph.constants[tensor]
        kind, start = graph.tensors[tensor], plan.tensor_offsets[tensor]
        return arena[start : start + kind.size].reshape(kind.shape)

    inputs = {
        port.tensor: rng.integers(-128, 128, (1, *view(port.tensor).shape)).astype(np.int8) for port in graph.inputs
    }
    for tensor, data in inputs.items():
        view(tensor)[...] = data[0]
    for step, (node, call) in enumerate(zip(graph.nodes, calls_of(graph), strict=True)):
        result = node.op.run(*(np.ascontiguousarray(view(t))[None] for t in node.inputs))[0].copy()
        if call.scratch_bytes:
            start = plan.scratch_offsets[step]
            arena[start : start + call.scratch_bytes] = rng.integers(-128, 128, call.scratch_bytes)
        view(node.output)[...] = result
    for tensor, data in refsim.run(graph, inputs).items():
        np.testing.assert_array_equal(view(tensor), data[0])


def chain(*sizes: int) -> Graph:
    b = Builder("chain")
    tensor = b.input("x", (sizes[0],), Y.scale, Y.zero_point)
    for i, size in enumerate(sizes[1:]):
        tensor = b.add(f"n{i}", Pad((0,), (size - b.tensors[tensor].size,), 0), tensor)
    return b.graph(tensor)


def test_head_tail_alternation_reaches_the_lower_bound_of_a_chain() -> None:
    plan = planned(chain(8, 16, 24, 40, 48))
    assert plan.peaks["head-tail alternation"] == plan.lower_bound == 88
    ends = [plan.tensor_offsets[t] for t in ("x", "n0", "n1", "n2", "n3")]
    if plan.strategy == "head-tail alternation":
        assert [at == 0 for at in ends] == [True, False, True, False, True]


def test_in_place_operators_and_views_share_memory() -> None:
    b = Builder("shared")
    x = b.input("x", (16,), Y.scale, Y.zero_point)
    reshaped = b.add("reshape", Reshape((4, 4)), x)
    mapped = b.add("lookup", IDENTITY, reshaped)
    plan = planned(b.graph(mapped))
    assert plan.arena_bytes == 16
    assert set(plan.tensor_offsets.values()) == {0}


def test_a_view_is_shared_but_not_overwritten_while_its_source_is_needed() -> None:
    b = Builder("kept")
    x = b.input("x", (16,), Y.scale, Y.zero_point)
    reshaped = b.add("reshape", Reshape((4, 4)), x)
    mapped = b.add("lookup", IDENTITY, reshaped)  # reads the view; x is read again below
    back = b.add("back", Reshape((16,)), mapped)
    total = b.add("add", Add.from_types(Y, Y, Y), x, back)
    plan = planned(b.graph(total))
    offsets = plan.tensor_offsets
    assert offsets["reshape"] == offsets["x"] != offsets["lookup"] == offsets["back"]
    assert plan.arena_bytes == plan.lower_bound == 32


def test_an_output_is_never_overwritten_in_place() -> None:
    b = Builder("outputs")
    x = b.input("x", (16,), Y.scale, Y.zero_point)
    first = b.add("first", IDENTITY, x)
    second = b.add("second", IDENTITY, first)
    plan = planned(b.graph(first, second))
    assert plan.tensor_offsets["first"] != plan.tensor_offsets["second"]


def test_constants_take_no_memory_and_cannot_be_outputs() -> None:
    b = Builder("constant")
    b.input("x", (4,), Y.scale, Y.zero_point)
    b.constant("c", np.zeros(4, np.int8), Y.scale, Y.zero_point)
    mapped = b.add("lookup", IDENTITY, "c")
    plan = planned(b.graph(mapped))
    assert "c" not in plan.tensor_offsets
    with pytest.raises(UnsupportedError, match="'c_out' does not depend on any input"):
        plan_arena(b.graph("c"), calls_of(b.graph("c")))


def test_scratch_is_planned_for_its_step_only() -> None:
    b = Builder("scratch")
    x = b.input("x", (64,), Y.scale, Y.zero_point)
    probable = b.add("softmax", Softmax.from_scale(Y.scale), x)
    big = b.add("big", Pad((0,), (1000,), 0), probable)
    plan = planned(b.graph(big))
    assert plan.scratch_bytes == 1056
    assert plan.arena_bytes == plan.lower_bound == 64 + 1064
    assert plan.tensor_bytes == 64 + 1064


def test_hybrid_network() -> None:
    graph = hybrid_graph()
    plan = planned(graph)
    assert plan.arena_bytes <= 1.1 * plan.lower_bound
    assert plan.tensor_offsets["tokens"] == plan.tensor_offsets["AveragePool"]


def tampered(plan: ArenaPlan, tensor: str, offset: int) -> ArenaPlan:
    return replace(plan, tensor_offsets={**plan.tensor_offsets, tensor: offset})


@pytest.mark.parametrize(
    ("tensor", "offset", "message"),
    [
        ("n1", 1000, "does not fit"),
        ("n1", -8, "does not fit"),
        ("n1", 4, "does not fit"),
        ("n1", None, "over its input 'n0'"),
    ],
)
def test_checker_refuses_bad_offsets(tensor: str, offset: int | None, message: str) -> None:
    graph = chain(8, 16, 24, 40)
    plan = replace(plan_arena(graph, calls_of(graph)), arena_bytes=200)
    with pytest.raises(PlanError, match=message):
        check_plan(
            graph, calls_of(graph), tampered(plan, tensor, plan.tensor_offsets["n0"] if offset is None else offset)
        )


def residual_graph() -> Graph:
    b = Builder("residual")
    x = b.input("x", (64,), Y.scale, Y.zero_point)
    long = b.add("long", Pad((0,), (0,), 0), x)
    a = b.add("a", Softmax.from_scale(Y.scale), long)
    total = b.add("total", Add.from_types(Y, Y, Y), x, a)
    return b.graph(total)


def test_checker_refuses_a_value_overwritten_before_its_last_use() -> None:
    graph = residual_graph()
    calls = calls_of(graph)
    plan = plan_arena(graph, calls)
    check_plan(graph, calls, plan)
    bad = replace(plan, scratch_offsets={1: plan.tensor_offsets["x"]}, arena_bytes=4096)
    with pytest.raises(PlanError, match="'x' is overwritten before node 'total' reads it"):
        check_plan(graph, calls, bad)


def test_checker_refuses_scratch_over_an_operand() -> None:
    graph = residual_graph()
    calls = calls_of(graph)
    plan = plan_arena(graph, calls)
    bad = replace(plan, scratch_offsets={1: plan.tensor_offsets["a"]}, arena_bytes=4096)
    with pytest.raises(PlanError, match="scratch of node 'a' overlaps"):
        check_plan(graph, calls, bad)
    with pytest.raises(PlanError, match="scratch of 'a'"):
        check_plan(graph, calls, replace(plan, scratch_offsets={}))


def test_checker_refuses_overlapping_inputs_and_lost_outputs() -> None:
    b = Builder("ports")
    x = b.input("x", (16,), Y.scale, Y.zero_point)
    other = b.input("other", (16,), Y.scale, Y.zero_point)
    first = b.add("first", Pad((0,), (0,), 0), x)
    graph = b.graph(first, b.add("second", Pad((0,), (0,), 0), other))
    calls = calls_of(graph)
    plan = plan_arena(graph, calls)
    check_plan(graph, calls, plan)
    with pytest.raises(PlanError, match="'x' is overwritten before the first step"):
        check_plan(graph, calls, tampered(plan, "other", plan.tensor_offsets["x"]))
    with pytest.raises(PlanError, match="'first' is overwritten before the end"):
        check_plan(graph, calls, tampered(plan, "second", plan.tensor_offsets["first"]))
