"""Lines that kernels read and miss."""

import dataclasses
import math

import numpy as np
import pytest

from codegen.cache_counts import cache_counts
from codegen.emit import kernel_call
from codegen.loop_counts import loop_counts
from codegen.target import Target, load_target
from refsim.ops import Operator, Requantization
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from refsim.ops.mean import Mean
from refsim.ops.softmax import Softmax, smallest_difference
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape

STAGE = Requantization.from_real(0.01, 3)
LINE = 32


def counted(op: Operator, shape: Shape, target: Target | None = None) -> dict[str, float]:
    call = kernel_call(op, (shape,))
    activations = math.prod(shape) + math.prod(op.output_shape(shape))
    return cache_counts(call, loop_counts(call), activations, target or load_target("stm32f746"))


def linear(rows: int, outputs: int, inputs: int) -> dict[str, float]:
    op = Linear(np.ones((outputs, inputs), np.int8), np.zeros(outputs, np.int32), 0, STAGE)
    return counted(op, (rows, inputs))


def test_weights_that_fit_are_read_once():
    assert linear(64, 16, 32)["lines again"] == 0
    once, again = linear(1, 128, 128), linear(64, 128, 128)
    assert once["lines again"] == 0 < once["lines"] < again["lines"]
    # 63 rows more, each of which reads some 18 KB through a cache of 4 KB: 10 cycles until a word is there.
    assert again["lines again"] == pytest.approx(63 * 17960 / LINE * 10, rel=0.05)


def test_weights_that_meet_only_padding_are_not_read():
    def again(padding: int) -> float:
        op = Conv2D(
            np.ones((64, 3, 3, 64), np.int8), np.zeros(64, np.int32), 0, STAGE, padding=(padding,) * 4, stride=(2, 2)
        )
        height, width, _ = op.output_shape((8, 8, 64))
        return counted(op, (8, 8, 64))["lines again"] / (height * width - 1)

    assert again(0) == pytest.approx(again(1) / (23 / 24) ** 2, rel=0.2)
    assert again(1) < again(0)


def test_a_column_with_the_stride_of_the_sets_is_missed_each_time():
    def again(inner: int) -> float:
        return counted(Mean(0, 0, 0, STAGE), (64, inner))["lines again"] / inner

    assert again(96) < 6  # 64 rows in 32 sets of 4 lines
    assert again(256) > 60 * 3 * (31 / 32) * 0.9  # in 4 sets, at 3 cycles

    def turned(*shape: int) -> float:
        return counted(Transpose((1, 0)), shape)["lines again"]

    assert turned(64, 256) > 0.9 * 64 * 256 * 3 * (31 / 32)
    assert turned(4, 64) < 20


def test_a_depthwise_convolution_misses_where_its_channels_share_sets():
    def again(channels: int) -> float:
        weight, bias = np.ones((3, 3, channels), np.int8), np.zeros(channels, np.int32)
        op = DepthwiseConv2D(weight, bias, 0, STAGE, padding=(1, 1, 1, 1))
        return counted(op, (8, 8, channels))["lines again"] / channels

    assert again(96) < again(480) < again(512)


def test_what_goes_once_over_its_activations_misses_nothing_again():
    assert counted(Softmax(2**30, 22, smallest_difference(22)), (64, 64))["lines again"] == 0


def test_memories_without_a_cache_have_no_lines():
    target = load_target("stm32f746")
    plain = dataclasses.replace(
        target,
        memory=tuple(
            dataclasses.replace(region, timing=tuple(dataclasses.replace(part, caches=()) for part in region.timing))
            for region in target.memory
        ),
    )
    assert set(counted(Mean(0, 0, 0, STAGE), (64, 256), plain).values()) == {0}
