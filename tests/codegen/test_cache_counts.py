"""Lines that kernels read and miss, beside a cache that is gone through access by access."""

import dataclasses
import math
import random

import numpy as np
import pytest

from codegen.cache_counts import _Reuse, cache_counts
from codegen.emit import kernel_call
from codegen.loop_counts import loop_counts
from codegen.memory_timing import Cache
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


def cache(size: int, ways: int) -> Cache:
    return Cache("test", "data", size, ways, LINE, write_back=False, source="")


def misses(offsets: list[int], shape: Cache, at_random: bool, passes: int, begin: int = 20) -> float:
    """Misses of a pass over byte offsets, the mean of many after some to begin with."""
    generator = random.Random(1)
    sets = [[-1 - way for way in range(shape.ways)] for _ in range(shape.sets)]  # full of something else
    missed = 0
    for turn in range(passes + begin):
        for offset in offsets:
            line = offset // shape.line
            held = sets[line % shape.sets]
            if line in held:
                held.append(held.pop(held.index(line)))
                continue
            missed += turn >= begin
            held.pop(generator.randrange(shape.ways) if at_random else 0)
            held.append(line)
    return missed / passes


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize("size", [1000, 4096, 6000, 8192, 20000])
def test_a_sweep_misses_what_does_not_fit(size, at_random):
    shape = cache(4096, 4)
    found = _Reuse(shape, 10, at_random).swept(size)
    # The estimate takes sets as evenly filled, so that part of a set's line more or less is its error.
    assert found == pytest.approx(misses(list(range(0, size, LINE)), shape, at_random, 200), rel=0.3, abs=4)


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize(
    ("count", "stride"), [(64, 44), (64, 96), (64, 128), (64, 256), (256, 32), (256, 44), (9, 4096)]
)
def test_strides_that_share_sets_miss(count, stride, at_random):
    shape = cache(4096, 4)
    offsets = np.arange(count) * stride
    found = _Reuse(shape, 10, at_random).scattered(offsets, 1, 0, stride)
    assert found == pytest.approx(misses(offsets.tolist(), shape, at_random, 200), rel=0.15, abs=6)


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize(("count", "stride"), [(64, 192), (64, 256), (64, 64), (32, 512), (40, 44)])
def test_columns_come_to_new_lines(count, stride, at_random):
    shape = cache(4096, 4)
    offsets = np.arange(count) * stride
    walk = [int(offset) + column for column in range(stride) for offset in offsets]
    first = -(-count * stride // LINE)
    again = _Reuse(shape, 10, at_random).scattered(offsets, stride, 1, stride)
    assert first + again == pytest.approx(misses(walk, shape, at_random, 1, begin=0), rel=0.2, abs=8)


def test_nothing_is_missed_where_no_cache_is():
    none = _Reuse(None, 0, False)
    assert none.swept(10**6) == none.scattered(np.arange(10**4), 9, 1, 1) == none.cycles(10**6) == 0


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


@pytest.mark.parametrize("stride", [96, 256, 512, 1024, 2048])
def test_rows_that_share_sets_replace_each_other(stride):
    shape = cache(4096, 4)
    walk = [row * stride + offset for offset in range(stride) for row in range(4)]
    lines = 4 * stride / LINE
    assert lines * _Reuse(shape, 10, True).together(stride) == pytest.approx(
        misses(walk, shape, True, 1, begin=0), rel=0.25
    )


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
