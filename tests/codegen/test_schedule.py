"""What runs, in which order and where: the tallest tiles for which there is room, each attention fused or not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refsim
from codegen import load
from codegen.choose import Costs, Optimise, estimated
from codegen.emit import KernelCall, depthwise_conv2d, kernel_calls
from codegen.passes import fuse_attention
from codegen.planner import check_plan
from codegen.predictor import costs
from codegen.schedule import make_schedule
from codegen.target import load_target
from refsim import Graph, TensorType
from refsim.ops import Requantization
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.slice import Slice
from refsim.ops.softmax import Softmax
from tests.codegen.graphs import Builder, random_graphs

EXAMPLE = Path(__file__).parents[2] / "examples" / "tinyformer_cifar10" / "model.onnx"
PREDICTED = costs(load_target("stm32f746"))


def _tiles(call: KernelCall) -> int:
    return -(-int(call.params["m"]) // int(call.params["tile_rows"])) if "tile_rows" in call.params else 0


def _time(call: KernelCall, _: int) -> float:
    """As predictions do, prefer tall tiles: three hundred cycles for each."""
    return call.macs / 2 + 300 * _tiles(call)


TALL_IS_QUICK = Costs("of the test", True, _time)


def add_attention(b: Builder, name: str, tokens: int) -> str:
    """Two heads of eight channels."""
    q, k, v = (b.input(f"{name}/{part}", (2, tokens, 8)) for part in "qkv")
    scores = b.add(f"{name}/scores", MatMul(-3, -3, Requantization.from_real(1 / 64, -3), transpose_b=True), q, k)
    shares = b.add(f"{name}/softmax", Softmax.from_scale(1 / 64), scores, like=TensorType((), 1 / 256, -128))
    output = Requantization.from_real(1 / 256, -3)
    return b.add(f"{name}/context", MatMul(-128, -3, output), shares, v, like=TensorType((), 1 / 64, -3))


def two_attentions(few: int, many: int) -> Graph:
    b = Builder("two")
    ends = [add_attention(b, "few", few), add_attention(b, "many", many)]
    return b.graph(*ends)


@pytest.mark.parametrize("dsp", [False, True])
@pytest.mark.parametrize("optimise", Optimise)
def test_each_attention_is_fused_where_that_makes_the_arena_smaller(dsp: bool, optimise: Optimise) -> None:
    schedule = make_schedule(two_attentions(6, 256), estimated(dsp, "of the test"), optimise, dsp=dsp)
    operators = {node.name: node.op.name for node in schedule.graph.nodes}
    assert operators["many/context"] == "attention" and "many/scores" not in operators
    alone = make_schedule(two_attentions(6, 6), estimated(dsp, "of the test"), optimise, dsp=dsp)
    assert "attention" not in {node.op.name for node in alone.graph.nodes}


def test_what_is_fused_does_not_hang_on_the_others() -> None:
    names = [f"{name}/context" for name in ("few", "many")]
    graph = two_attentions(20, 30)
    assert [n.name for n in fuse_attention(graph, names[:1]).nodes if n.op.name == "attention"] == names[1:]
    assert fuse_attention(graph, names) is graph


def scheduled_beside(room: int, optimise: Optimise) -> tuple[int, int]:
    """Query rows of a tile, and the arena, of an attention after an operator that reads so many bytes more."""
    b = Builder("room")
    first = b.add("first", Slice((0,), (8,), (1,)), b.input("x", (room,)))
    schedule = make_schedule(b.graph(add_attention(b, "block", 128), first), TALL_IS_QUICK, optimise, dsp=True)
    (call,) = (call for call in schedule.calls if "tile_rows" in call.params)
    return int(call.params["tile_rows"]), schedule.plan.arena_bytes


def test_a_tile_takes_the_room_that_others_leave() -> None:
    tokens = 3 * 2 * 128 * 8
    found = [scheduled_beside(room, Optimise.SIZE) for room in (8, 2**13, 2**14, 2**15)]
    rows = [rows for rows, _ in found]
    assert rows[0] == 4 and rows == sorted(set(rows))
    assert [arena for _, arena in found[1:]] == [tokens + 8 + room for room in (2**13, 2**14, 2**15)]
    tall, arena = scheduled_beside(8, Optimise.SPEED)
    assert tall > 4 and arena > found[0][1]  # by little more than the time is worth
    assert scheduled_beside(8, Optimise.BALANCED) == found[0]


def balanced_beside(others: float) -> tuple[float, float]:
    """Arena and time of what is balanced, as multiples of those in the smallest arena: tiles, beside so much time."""

    def time(call: KernelCall, _: int) -> float:
        return call.macs / 2 + 30_000 * _tiles(call) or others

    def scheduled(optimise: Optimise) -> tuple[int, float]:
        b = Builder("share")
        ends = [add_attention(b, "block", 128), b.add("first", Slice((0,), (8,), (1,)), b.input("x", (8,)))]
        schedule = make_schedule(b.graph(*ends), Costs("of the test", True, time), optimise, dsp=True)
        return schedule.plan.arena_bytes, sum(choice.time for choice in schedule.choices)

    least, found = scheduled(Optimise.SIZE), scheduled(Optimise.BALANCED)
    return found[0] / least[0], found[1] / least[1]


def test_a_larger_arena_has_to_save_its_share_of_the_whole_models_time() -> None:
    arena, time = balanced_beside(0)
    assert arena > 1 and arena * time < 1
    assert balanced_beside(1e9) == (1, 1)  # what is saved is the same, of the model's time nothing


@pytest.mark.parametrize(("others", "block"), [(8, 4), (256, 0)])
def test_a_larger_arena_has_to_save_its_share_of_the_whole_models_constants(others: int, block: int) -> None:
    """A sparse convolution, whose scratch makes the arena larger, beside a layer of so many channels."""
    b = Builder("share")
    last = Requantization.from_real(0.001, -3)
    kernel = np.ones((24, 3, 3, 16), np.int8)
    kernel[:, :, :, :12] = 0
    ends = [b.add("conv", Conv2D(kernel, np.zeros(24, np.int32), -3, last, padding=(1,) * 4), b.input("x", (5, 5, 16)))]
    weight = np.ones((others, others), np.int8)
    ends.append(b.add("other", Linear(weight, np.zeros(others, np.int32), -3, last), b.input("y", (1, others))))
    same_time = Costs("of the test", True, lambda call, _: 1)
    schedule = make_schedule(b.graph(*ends), same_time, Optimise.BALANCED, dsp=True)
    assert schedule.calls[[node.name for node in schedule.graph.nodes].index("conv")].sparse_block == block


def test_one_operator_does_not_decide_the_arena_of_a_network() -> None:
    graph = load(EXAMPLE)
    found = {optimise: make_schedule(graph, PREDICTED, optimise, dsp=True) for optimise in Optimise}
    arena = {optimise: schedule.plan.arena_bytes for optimise, schedule in found.items()}
    time = {optimise: sum(choice.time for choice in schedule.choices) for optimise, schedule in found.items()}
    assert arena[Optimise.BALANCED] == arena[Optimise.SIZE] < arena[Optimise.SPEED]
    assert time[Optimise.SPEED] < time[Optimise.BALANCED] <= time[Optimise.SIZE]


def depthwise(channels: int, zero: bool = False) -> DepthwiseConv2D:
    weight = np.full((3, 3, channels), 0 if zero else 3, np.int8)
    stage = Requantization.from_real(0.01, -3)
    return DepthwiseConv2D(weight, np.zeros(channels, np.int32), -3, stage, padding=(1, 1, 1, 1))


def test_a_depthwise_convolution_works_in_place_where_channels_go_one_after_the_other() -> None:
    shape = (32, 32, 24)
    image = 32 * 32 * 24

    table = Lookup(np.arange(-128, 128).astype(np.int8))
    known = estimated(True, "of the test")

    def planned(op: DepthwiseConv2D, *, keep: bool = False) -> tuple[int, KernelCall]:
        b = Builder("depthwise")
        x = b.add("before", table, b.input("x", shape))
        y = b.add("depthwise", op, x)
        schedule = make_schedule(b.graph(*([x, y] if keep else [y])), known, Optimise.SPEED, dsp=True)
        check_plan(schedule.graph, schedule.calls, schedule.plan)
        return schedule.plan.arena_bytes, schedule.calls[1]

    arena, call = planned(depthwise(24))
    assert call.kernel == "tnf_depthwise_conv2d_dsp" and call.in_place == (0,)
    assert arena == image + call.scratch_bytes and call.scratch_bytes < image
    arena, call = planned(depthwise(24), keep=True)
    assert arena >= 2 * image
    arena, call = planned(depthwise(24, zero=True))
    assert call.kernel == "tnf_depthwise_conv2d_sparse" and arena == image + call.scratch_bytes


def test_what_overlaps_or_comes_in_strips_does_not_work_in_place() -> None:
    def dsp_call(channels: int, rows: int) -> KernelCall:
        call = depthwise_conv2d.dsp_kernel_call(depthwise(channels), ((rows, rows, channels),))
        assert call is not None
        return call

    assert dsp_call(22, 4).in_place == ()  # the last lanes overlap
    assert dsp_call(20, 4).in_place == (0,)
    strips = dsp_call(20, 32)
    assert strips.params["strip"] < 32 and strips.in_place == ()
    assert [c.in_place for c in kernel_calls(depthwise(20), ((32, 32, 20),), dsp=True) if "dsp" in c.kernel] == [
        (),
        (0,),
    ]
    smaller = replace(depthwise(20), padding=(0, 0, 0, 0))
    assert not any(call.in_place for dsp in (False, True) for call in kernel_calls(smaller, ((9, 9, 20),), dsp=dsp))


def test_tiles_of_every_height_are_offered_once() -> None:
    op = next(node.op for node in fuse_attention(two_attentions(6, 20)).nodes if node.name == "many/context")
    for dsp, heights in ((False, [1, 2, 4, 8, 16, 20]), (True, [4, 8, 16, 20])):
        calls = kernel_calls(op, ((2, 20, 8),) * 3, dsp=dsp)
        assert sorted(int(call.params["tile_rows"]) for call in calls) == heights
        assert len({call.kernel for call in calls}) == 1
        assert sorted(calls, key=lambda call: call.params["tile_rows"]) == sorted(
            calls, key=lambda call: call.scratch_bytes
        )


@settings(max_examples=40, deadline=None)
@given(random_graphs(), st.sampled_from(Optimise), st.sampled_from([estimated(True, "of the test"), PREDICTED]))
def test_a_schedule_is_legal_and_keeps_every_byte(graph: Graph, optimise: Optimise, known: Costs) -> None:
    schedule = make_schedule(graph, known, optimise, dsp=True)
    check_plan(schedule.graph, schedule.calls, schedule.plan)
    rng = np.random.default_rng(0)
    inputs = {
        port.tensor: rng.integers(-128, 128, (1, *graph.tensors[port.tensor].shape)).astype(np.int8)
        for port in graph.inputs
    }
    found = refsim.run(schedule.graph, inputs)
    for name, expected in refsim.run(graph, inputs).items():
        np.testing.assert_array_equal(found[name], expected)
