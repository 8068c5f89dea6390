"""Orders of operators: the same bytes, never a larger arena, the smallest peak where every order can be tried."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refsim
from codegen import order as order_module
from codegen.emit import KernelCall, kernel_call
from codegen.order import order_nodes, search_order
from codegen.planner import check_plan, plan_arena
from codegen.program import build_program, graph_hash
from refsim import Graph
from refsim.errors import UnsupportedError
from refsim.ops.pad import Pad
from refsim.ops.slice import Slice
from tests.codegen.graphs import Builder, hybrid_graph, random_graphs, two_branches

ORDERS = 500
"""Orders that are tried one by one."""


def calls_of(graph: Graph) -> list[KernelCall]:
    return [kernel_call(n.op, tuple(graph.tensors[t].shape for t in n.inputs)) for n in graph.nodes]


def in_order(graph: Graph, order: tuple[int, ...]) -> Graph:
    return replace(graph, nodes=tuple(graph.nodes[i] for i in order))


def peak(graph: Graph) -> int:
    return plan_arena(graph, calls_of(graph)).lower_bound


def every_order(graph: Graph) -> Iterator[tuple[int, ...]]:
    writer = {node.output: index for index, node in enumerate(graph.nodes)}
    needs = [{writer[t] for t in node.inputs if t in writer} for node in graph.nodes]

    def longer(order: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(order) == len(needs):
            yield order
        for node, before in enumerate(needs):
            if node not in order and before <= set(order):
                yield from longer((*order, node))

    return longer(())


def test_one_branch_after_the_other_needs_less() -> None:
    graph = two_branches()
    ordered = order_nodes(graph, calls_of(graph))
    assert [node.name for node in ordered.nodes] == ["wide0", "narrow0", "wide1", "narrow1", "sum"]
    assert plan_arena(graph, calls_of(graph)).arena_bytes == 2048 + 64
    assert plan_arena(ordered, calls_of(ordered)).arena_bytes == 1024 + 64 + 64


@settings(max_examples=100, deadline=None)
@given(random_graphs(), st.integers(0, 2**32 - 1))
def test_an_order_keeps_every_byte_and_never_raises_the_arena(graph: Graph, seed: int) -> None:
    ordered = order_nodes(graph, calls_of(graph))
    assert sorted(n.name for n in ordered.nodes) == sorted(n.name for n in graph.nodes)
    plan, given_plan = (plan_arena(g, calls_of(g)) for g in (ordered, graph))
    check_plan(ordered, calls_of(ordered), plan)
    assert plan.arena_bytes < given_plan.arena_bytes or ordered is graph
    rng = np.random.default_rng(seed)
    inputs = {
        p.tensor: rng.integers(-128, 128, (2, *graph.tensors[p.tensor].shape)).astype(np.int8) for p in graph.inputs
    }
    expected = refsim.run(graph, inputs, trace=True)
    for name, data in refsim.run(ordered, inputs, trace=True).items():
        np.testing.assert_array_equal(data, expected[name], err_msg=name)


@settings(max_examples=150, deadline=None)
@given(random_graphs(), st.sampled_from([1, 2, 100]))
def test_the_search_counts_as_the_planner_does(graph: Graph, width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "_WIDTH", width)
        found = search_order(graph, calls_of(graph))
    assert found.peak == peak(in_order(graph, found.nodes)) <= peak(graph)
    if found.peak == peak(graph):
        assert found.nodes == tuple(range(len(graph.nodes)))


@settings(max_examples=60, deadline=None)
@given(random_graphs())
def test_small_graphs_get_the_smallest_peak_of_all_orders(graph: Graph) -> None:
    found = search_order(graph, calls_of(graph)).peak
    for _, order in zip(range(ORDERS), every_order(graph), strict=False):
        assert found <= peak(in_order(graph, order))


def test_a_graph_without_a_better_order_stays_as_it_is() -> None:
    graph = hybrid_graph()
    assert order_nodes(graph, calls_of(graph)) is graph
    ordered = order_nodes(two_branches(), calls_of(two_branches()))
    assert order_nodes(ordered, calls_of(ordered)) is ordered


def test_an_input_that_nobody_reads_counts_in_the_first_step() -> None:
    b = Builder("unread")
    b.input("unread", (512,), 1 / 64, 0)
    x = b.input("x", (8,), 1 / 64, 0)
    graph = b.graph(b.add("pad", Pad((0,), (56,), 0), x))
    assert search_order(graph, calls_of(graph)).peak == 512 + 8 + 64 == peak(graph)


def test_a_program_carries_its_order() -> None:
    graph = two_branches()
    program, given_order = build_program(graph), build_program(graph, reorder=False)
    assert [step.node for step in program.steps] == [node.name for node in program.graph.nodes]
    assert [step.node for step in program.steps] != [node.name for node in graph.nodes]
    assert [step.node for step in given_order.steps] == [node.name for node in graph.nodes]
    assert program.model_hash == given_order.model_hash == graph_hash(graph)
    assert program.plan.arena_bytes < given_order.plan.arena_bytes


def test_a_constant_output_is_refused() -> None:
    b = Builder("constant")
    x = b.input("x", (64,), 1 / 64, 0)
    b.constant("c", np.zeros(4, np.int8))
    wide = [b.add(f"wide{i}", Pad((i,), (960 - i,), 0), x) for i in range(2)]
    narrow = [b.add(f"narrow{i}", Slice((0,), (64,), (1,)), w) for i, w in enumerate(wide)]
    graph = b.graph(*narrow, "c")
    with pytest.raises(UnsupportedError, match="'c_out' does not depend on any input"):
        order_nodes(graph, calls_of(graph))
