"""Exact counts of the kernels' loops."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckernels
import codegen.loop_counts as loop_counts_package
from codegen.emit import conv2d, kernel_call
from codegen.emit import depthwise_conv2d as depthwise_emitter
from codegen.emit import linear as linear_emitter
from codegen.encoding import BLOCKS
from codegen.loop_counts import _count, loop_counts
from refsim.errors import DataError
from refsim.numerics import Multiplier, Rounding
from refsim.ops import OPERATORS, Requantization
from refsim.ops.add import Add
from refsim.ops.attention import Attention
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.pad import Pad
from refsim.ops.softmax import Softmax, smallest_difference

STAGE = Requantization.from_real(0.01, 3)


def linear(outputs: int, inputs: int, stage: Requantization = STAGE) -> Linear:
    weight = np.arange(outputs * inputs).reshape(outputs, inputs) % 7
    return Linear(weight.astype(np.int8), np.zeros(outputs, np.int32), 5, stage)


def loop(counts: dict[str, float], name: str) -> tuple[float, float]:
    """How often a loop is entered, and its elements."""
    rests = {rest: counts[f"{name}: rest of {rest}"] for rest in (1, 2, 3)}
    entered = counts[f"{name}: short"] + counts[f"{name}: long"]
    return entered, 4 * counts[f"{name}: 4 elements"] + sum(rest * times for rest, times in rests.items())


def test_every_kernel_has_counts_and_every_module_a_kernel():
    for source in ckernels.sources():
        assert callable(_count(f"tnf_{source}")), source
    shared = {"__init__", "base", "sparse", "tiles"}
    assert {path.stem for path in Path(loop_counts_package.__file__).parent.glob("*.py")} == set(OPERATORS) | shared


def test_an_unknown_kernel_is_refused():
    call = dataclasses.replace(kernel_call(linear(1, 1), ((1, 1),)), kernel="tnf_none")
    with pytest.raises(DataError, match=r"knows no loops of tnf_none: .*loop_counts"):
        loop_counts(call)


def window_visits(size: int, results: int, kernel: int, stride: int, before: int, dilation: int) -> list[int]:
    """Positions inside the image of each window, one at a time."""
    return [sum(0 <= out * stride - before + k * dilation < size for k in range(kernel)) for out in range(results)]


@given(
    st.tuples(st.integers(3, 9), st.integers(3, 9)),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from([(1, 3, 9), (2, 5, 6), (1, 4, 3)]),
)
def test_convolutions_count_each_multiplication(size, kernel, stride, padding, dilation, channels):
    groups, inputs, outputs = channels
    span = dilation * (kernel - 1) + 1
    if span > min(size) + 2 * padding:
        dilation = 1
    if kernel > min(size) + 2 * padding:
        kernel = 1
    op = Conv2D(
        np.ones((groups * outputs, kernel, kernel, inputs), np.int8),
        np.zeros(groups * outputs, np.int32),
        0,
        STAGE,
        stride=(stride, stride),
        padding=(padding,) * 4,
        dilation=(dilation, dilation),
        groups=groups,
    )
    shape = (*size, groups * inputs)
    height, width, _ = op.output_shape(shape)
    rows = window_visits(size[0], height, kernel, stride, padding, dilation)
    taps = window_visits(size[1], width, kernel, stride, padding, dilation)
    counts = loop_counts(conv2d.kernel_call(op, (shape,)))
    quads, singles = divmod(outputs, 4)
    entered, elements = loop(counts, "four channels: run")
    assert elements == sum(rows) * sum(taps) * inputs * groups * quads
    runs = sum(tap > 0 for tap in taps) if groups == 1 and dilation == 1 else sum(taps)
    assert entered == sum(rows) * runs * groups * quads
    assert loop(counts, "one channel: run")[1] == sum(rows) * sum(taps) * inputs * groups * singles
    assert counts["outputs: high word"] == height * width * groups * outputs
    starts = [[out * stride - padding for out in range(results)] for results in (height, width)]
    cut = [sum(start < 0 for start in axis) for axis in starts]
    assert counts["windows cut before"] == cut[0] + height * cut[1]


def test_a_depthwise_convolution_goes_four_channels_at_a_time():
    def counts(inputs: int, depth: int) -> dict[str, float]:
        channels = inputs * depth
        op = DepthwiseConv2D(
            np.ones((3, 3, channels), np.int8), np.zeros(channels, np.int32), 0, STAGE, padding=(1, 1, 1, 1)
        )
        return loop_counts(kernel_call(op, ((4, 5, inputs),)))

    inside = (3 * 4 - 2) * (3 * 5 - 2)
    assert counts(10, 1)["four channels: taps"] == 2 * inside
    assert loop(counts(10, 1), "one channel: row")[1] == 2 * inside
    assert counts(10, 2)["four channels: taps"] == 0
    assert loop(counts(10, 2), "one channel: row")[1] == 20 * inside


def test_a_product_counts_columns_by_fours():
    call = kernel_call(MatMul(1, 0, STAGE), ((3, 5, 8), (3, 8, 10)))
    counts = loop_counts(call)
    assert loop(counts, "four columns") == (3 * 5 * 2, 3 * 5 * 2 * 7)  # the first row of b starts the sums
    assert loop(counts, "one column") == (3 * 5 * 2, 3 * 5 * 2 * 8)
    assert loop(counts, "row sum") == (0, 0)
    call = kernel_call(MatMul(1, 2, STAGE, transpose_b=True), ((3, 5, 8), (3, 10, 8)))
    counts = loop_counts(call)
    assert loop(counts, "four transposed columns") == (3 * 5 * 2, 3 * 5 * 2 * 8)
    assert loop(counts, "one transposed column") == (3 * 5 * 2, 3 * 5 * 2 * 8)
    assert loop(counts, "row sum") == (3 * 5, 3 * 5 * 8)


def test_outputs_are_counted_by_how_they_are_requantised():
    def counts(shift: list[int], rounding: int = 0) -> list[float]:
        stage = Requantization(np.full(len(shift), 2**30, np.int32), np.array(shift, np.int32), 0, rounding=rounding)
        op = Linear(np.ones((4, 3), np.int8), np.zeros(4, np.int32), 0, stage)
        found = loop_counts(kernel_call(op, ((5, 3),)))
        return [found[f"outputs: {kind}"] for kind in ("high word", "two words", "rounded twice")]

    assert counts([-2]) == [20, 0, 0]
    assert counts([-2, -1, -7, 0]) == [10, 10, 0]
    assert counts([-2, -1, -7, 0], rounding=1) == [0, 0, 20]


def test_an_add_is_usual_or_not():
    def counts(a: tuple[int, ...], b: tuple[int, ...], shift: int = 0) -> dict[str, float]:
        output = Requantization.from_real(2**-19, 0)
        return loop_counts(kernel_call(Add(0, 0, Multiplier(2**30, shift), Multiplier(2**30, 0), output), (a, b)))

    assert loop(counts((4, 6), (4, 6)), "contiguous") == (1, 24)
    assert loop(counts((4, 6), (6,)), "contiguous") == (4, 24)
    repeated = counts((4, 6), (4, 1))
    assert loop(repeated, "contiguous") == (0, 0) and loop(repeated, "any stride") == (4, 24)
    assert loop(counts((4, 6), (4, 6), shift=1), "any stride") == (1, 24)


def test_pooling_goes_two_channels_at_a_time():
    counts = loop_counts(kernel_call(MaxPool2D((3, 3), (2, 2), (1, 1, 1, 1)), ((7, 5, 9),)))
    rows, columns = [2, 3, 3, 2], [2, 3, 2]
    assert loop(counts, "two channels: row") == (sum(rows) * 3 * 5, sum(rows) * sum(columns) * 5)
    assert counts["two channels"] == 4 * 3 * 5


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4))
def test_padding_counts_each_byte(axes):
    shape = tuple(axis[0] for axis in axes)
    op = Pad(tuple(axis[1] for axis in axes), tuple(axis[2] for axis in axes), 0)
    counts = loop_counts(kernel_call(op, (shape,)))
    filled = sum(
        16 * counts[f"{name}: 16 bytes"] + 4 * counts[f"{name}: words"] + counts[f"{name}: bytes"]
        for name in ("before", "after", "row")
    )
    copied = loop(counts, "copied")[1]
    assert copied == np.prod(shape)
    assert copied + filled == np.prod(op.output_shape(shape))


def test_a_softmax_fills_its_table_once():
    def counts(rows: int, n: int, shift: int = 22) -> dict[str, float]:
        return loop_counts(kernel_call(Softmax(2**30, shift, smallest_difference(shift)), ((rows, n),)))

    assert counts(1, 1)["exponentials"] <= 1
    few, many = counts(4, 64)["exponentials"], counts(1000, 64)["exponentials"]
    assert 30 < few < 200 < many <= 256
    steep = counts(1000, 64, shift=26)  # all but the smallest differences give 0
    assert steep["exponentials"] < 70
    assert steep["exponentials: looked for"] == many


def test_attention_counts_as_its_three_operators():
    scores, softmax, context = MatMul(1, 2, STAGE, True), Softmax.from_scale(0.1), MatMul(-128, 3, STAGE)
    call = kernel_call(Attention(scores, softmax, context), ((2, 30, 8), (2, 100, 8), (2, 100, 12)))
    parts = {
        "scores": kernel_call(scores, ((2, 30, 8), (2, 100, 8))),
        "softmax": kernel_call(softmax, ((2, 30, 100),)),
        "context": kernel_call(context, ((2, 30, 100), (2, 100, 12))),
    }
    counts = loop_counts(call)
    assert counts.pop("calls") == 1
    assert counts.pop("tiles") == 2 * 3  # of 10 rows
    expected = {f"{part}: {name}": n for part, one in parts.items() for name, n in loop_counts(one).items()}
    assert counts == {name: count for name, count in expected.items() if not name.endswith(": calls")}


def steps(counts: dict[str, float], name: str, step: int = 4) -> float:
    """Elements of a loop that takes several at a time and then the rest."""
    return step * counts[f"{name}: {step} elements"] + counts[f"{name}: rest"]


@given(st.integers(1, 23), st.integers(1, 40), st.integers(1, 37))
def test_tiles_count_every_row_and_every_output(rows, inputs, outputs):
    call = linear_emitter.dsp_kernel_call(linear(outputs, inputs), ((rows, inputs),))
    counts = loop_counts(call)
    single = rows % 4 == 1
    assert counts["one row"] == single
    assert counts["tiles"] == counts["tile rows"] / 4 == (rows + 2) // 4
    assert 2 * counts["tile rows: 8 elements"] + counts["tile rows: 4 elements"] == counts["tile rows"] * (inputs // 4)
    assert counts["tile sums: pairs"] == counts["tiles"] * -(-outputs // 2)
    assert 8 * counts["pairs in registers"] + counts["outputs: high word"] == rows * outputs


def test_tiles_finish_alike_pairs_of_channels_at_once():
    def counts(shifts: list[int], rounding: int = 0, act_min: int = -128) -> dict[str, float]:
        channels = len(shifts)
        stage = Requantization(
            np.full(channels, 2**30, np.int32), np.array(shifts, np.int32), 0, act_min=act_min, rounding=rounding
        )
        op = Linear(np.ones((channels, 3), np.int8), np.zeros(channels, np.int32), 0, stage)
        return loop_counts(linear_emitter.dsp_kernel_call(op, ((4, 3),)))

    mixed = counts([-5, -5, -5, -1, -5, -5, -5])
    assert (mixed["pairs in registers"], mixed["channels"], mixed["pairs asked"]) == (2, 3, 4)
    assert mixed["tile sums"] == 4  # a pair, one that is not quick, a pair, and the last channel
    assert mixed["outputs: two words"] == 4 and mixed["outputs: high word"] == 8
    double = counts([-5, -5, -5, -1], rounding=1)
    assert double["pairs in registers, rounded twice"] == double["pairs in registers"] == 2
    assert counts([-5] * 8)["clamped: 4 elements"] == 0
    assert counts([-5] * 8, act_min=-3)["clamped: 4 elements"] == 8


@given(
    st.tuples(st.integers(3, 9), st.integers(3, 9)),
    st.sampled_from([(1, 3), (3, 1), (3, 3), (2, 3)]),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(1, 6),
)
def test_windows_are_gathered_whole(size, kernel, stride, padding, dilation, channels):
    dilation = dilation if max(kernel) * 2 - 1 <= min(size) else 1
    op = Conv2D(
        np.ones((3, *kernel, channels), np.int8),
        np.zeros(3, np.int32),
        0,
        STAGE,
        stride=(stride, stride),
        padding=(padding,) * 4,
        dilation=(dilation, dilation),
    )
    shape = (*size, channels)
    height, width, _ = op.output_shape(shape)
    counts = loop_counts(conv2d.dsp_kernel_call(op, (shape,)))
    rows, taps = (
        window_visits(size[axis], (height, width)[axis], kernel[axis], stride, padding, dilation) for axis in (0, 1)
    )
    assert steps(counts, "copied") == sum(rows) * sum(taps) * channels
    gathered = steps(counts, "copied") + steps(counts, "filled") + steps(counts, "outside")
    assert gathered == height * width * kernel[0] * kernel[1] * channels
    for block in BLOCKS:
        call = conv2d.sparse_kernel_call(op, (shape,), block)
        counts = loop_counts(call)
        single = counts[f"single row, blocks of {block}"]
        assert (8 * counts[f"blocks of {block}"] + single) * block == call.work
        finished = counts["outputs: quick"] + 8 * counts["channels: finished at once"]
        assert finished + counts["single rows: at once"] == height * width * 3
        taken = counts["outside"] + sum(counts[f"filled, blocks of {size}"] for size in BLOCKS)
        assert taken == (8 * counts["tiles"] + counts["single rows"]) * kernel[0] * kernel[1]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(4, 9), st.integers(1, 2))
def test_a_depthwise_convolution_in_strips_counts_every_output(height, width, channels, stride):
    op = DepthwiseConv2D(
        np.ones((3, 3, channels), np.int8),
        np.zeros(channels, np.int32),
        0,
        STAGE,
        stride=(stride, stride),
        padding=(1, 1, 1, 1),
    )
    counts = loop_counts(kernel_call(op, ((height, width, channels),), dsp=True))
    rows, columns, _ = op.output_shape((height, width, channels))
    lanes = 4 * -(-channels // 4)
    assert counts["quick: last column"] == lanes * rows * (columns % 2)
    assert counts["quick: pairs of rows"] == lanes * (columns // 2) * -(-rows // 2)
    assert counts["pairs: pairs of rows" if stride == 1 else "windows: pairs of rows"] == (
        lanes * -(-rows // 2) * (-(-columns // 2) if stride == 1 else columns)
    )


def test_sparse_channels_count_their_blocks():
    weight = np.zeros((5, 40), np.int8)
    weight[1, ::8] = 3  # five blocks of four, and of two
    weight[2, :16] = 1  # four blocks of four, eight of two
    op = dataclasses.replace(linear(5, 40), weight=weight)
    for block, blocks, groups, parts in ((4, 9, 3, 1), (2, 13, 4, 1), (1, 21, 6, 1)):
        counts = loop_counts(linear_emitter.sparse_kernel_call(op, ((12, 40),), block))
        assert counts["tiles"] == 2 and counts["channels: with blocks"] == 2 * 2
        of_block = [counts[f"blocks of {block}{part}"] for part in ("", ": groups", ": parts of groups")]
        assert of_block == [2 * blocks, 2 * groups, 2 * parts]
        assert sum(counts[f"blocks of {other}"] for other in BLOCKS if other != block) == 0


def test_rows_left_over_count_alone():
    op = linear(5, 40)
    for rows, tiles, single in ((1, 0, 1), (3, 0, 3), (4, 1, 0), (10, 1, 2), (13, 2, 0)):
        counts = loop_counts(linear_emitter.sparse_kernel_call(op, ((rows, 40),), 4))
        assert (counts["tiles"], counts["single rows"]) == (tiles, single)
        assert counts["single row, blocks of 4"] == single * 5 * 10
        assert counts["filled, blocks of 4"] == 8 * tiles + single


@pytest.mark.parametrize("rounding", Rounding)
def test_channels_that_finish_quickly_are_counted_apart(rounding):
    shifts = np.array([-3, -3, 0, 0, -5], np.int32)
    stage = Requantization(np.full(5, 2**30, np.int32), shifts, 0, rounding=rounding)
    counts = loop_counts(linear_emitter.sparse_kernel_call(linear(5, 40, stage), ((8, 40),), 4))
    kind = ", rounded twice" if rounding is Rounding.DOUBLE else ""
    assert counts[f"channels: finished at once{kind}"] == 3
    assert (counts["channels: finished apart"], counts["visits"]) == (2, 3)
    slow = "outputs: rounded twice" if rounding is Rounding.DOUBLE else "outputs: two words"
    assert counts[slow] == 8 * 2


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.sampled_from((1, 2)))
def test_a_sparse_depthwise_convolution_counts_every_window(height, width, channels, stride):
    weight = np.zeros((3, 3, channels), np.int8)
    weight[1, :, 0] = 1
    op = DepthwiseConv2D(weight, np.zeros(channels, np.int32), 0, STAGE, stride=(stride, stride), padding=(1, 1, 1, 1))
    rows, columns, _ = op.output_shape((height, width, channels))
    counts = loop_counts(depthwise_emitter.sparse_kernel_call(op, ((height, width, channels),), 3))
    assert counts["strips"] == 1
    widened = 4 * counts["widened: 4 elements"] + counts["widened: rests"]
    assert widened == height * width * channels
    assert counts[f"stride {stride}: windows"] == rows * -(-columns // 4) * channels
    assert counts[f"stride {stride}: blocks"] == rows * -(-columns // 4)
    assert counts["windows: quick"] == rows * -(-columns // 4) * channels


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (-3, 127), (-3, 90), (-128, 90)])
def test_a_sparse_tile_is_clamped_where_its_range_is_narrower(low, high):
    stage = dataclasses.replace(STAGE, act_min=low, act_max=high)
    counts = loop_counts(linear_emitter.sparse_kernel_call(linear(5, 40, stage), ((21, 40),), 4))
    below, above = ((low, high) == (-3, 127), high == 90)
    assert counts["clamped from below: 8 elements"] == below * (21 * 5 // 8)
    assert counts["clamped from above: 8 elements"] == above * (21 * 5 // 8)
    assert counts["clamped: rests"] == (below or above) * (21 * 5 % 8)
