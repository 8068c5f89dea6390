"""Lines that kernels read and miss, beside a cache that is gone through access by access."""

import dataclasses
import random

import numpy as np
import pytest

from codegen.cache_counts import _Reuse, cache_counts
from codegen.emit import kernel_call
from codegen.memory_timing import Cache
from codegen.target import load_target
from refsim.ops import Requantization
from refsim.ops.linear import Linear
from refsim.ops.mean import Mean
from refsim.ops.softmax import Softmax, smallest_difference
from refsim.ops.transpose import Transpose

STAGE = Requantization.from_real(0.01, 3)
LINE = 32


def cache(size: int, ways: int) -> Cache:
    return Cache("test", "data", size, ways, LINE, write_back=False, source="")


def misses(offsets: list[int], shape: Cache, at_random: bool, passes: int) -> float:
    """Misses of a pass over byte offsets, the mean of many passes after some to begin with."""
    generator = random.Random(1)
    sets: list[list[int]] = [[] for _ in range(shape.sets)]
    missed = 0
    for turn in range(passes + 20):
        for offset in offsets:
            line = offset // shape.line
            held = sets[line % shape.sets]
            if line in held:
                held.append(held.pop(held.index(line)))
                continue
            missed += turn >= 20
            if len(held) == shape.ways:
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
    found = _Reuse(shape, 10, at_random).scattered(offsets)
    assert found == pytest.approx(misses(offsets.tolist(), shape, at_random, 200), rel=0.15, abs=6)


def test_nothing_is_missed_where_no_cache_is():
    none = _Reuse(None, 0, False)
    assert none.swept(10**6) == none.scattered(np.arange(10**4)) == none.cycles(10**6) == 0


def linear(rows: int, outputs: int, inputs: int) -> dict[str, float]:
    op = Linear(np.ones((outputs, inputs), np.int8), np.zeros(outputs, np.int32), 0, STAGE)
    return cache_counts(kernel_call(op, ((rows, inputs),)), rows * (inputs + outputs), load_target("stm32f746"))


def test_weights_that_fit_are_read_once():
    assert linear(64, 16, 32)["lines again"] == 0
    once, again = linear(1, 128, 128), linear(64, 128, 128)
    assert once["lines again"] == 0 < once["lines"] < again["lines"]
    # 63 rows more, each of which reads some 18 KB through a cache of 4 KB, at 13 cycles a line.
    assert again["lines again"] == pytest.approx(63 * 17960 / LINE * 13, rel=0.05)


def test_a_column_with_the_stride_of_the_sets_is_missed_each_time():
    def again(inner: int) -> float:
        call = kernel_call(Mean(0, 0, 0, STAGE), ((64, inner),))
        return cache_counts(call, 65 * inner, load_target("stm32f746"))["lines again"] / inner

    assert again(96) == 0  # 64 rows in 32 sets of 4 lines
    assert again(256) > 60 * 10 * (31 / 32) * 0.9  # in 4 sets

    def turned(shape: tuple[int, int]) -> float:
        return cache_counts(kernel_call(Transpose((1, 0)), (shape,)), 2 * 64 * 256, load_target("stm32f746"))[
            "lines again"
        ]

    assert turned((64, 256)) > 0.9 * 64 * 256 * 10 * (31 / 32)
    assert turned((4, 64)) == 0


def test_what_goes_once_over_its_activations_misses_nothing_again():
    call = kernel_call(Softmax(2**30, 22, smallest_difference(22)), ((64, 64),))
    assert cache_counts(call, 2 * 64 * 64, load_target("stm32f746"))["lines again"] == 0


def test_memories_without_a_cache_have_no_lines():
    target = load_target("stm32f746")
    plain = dataclasses.replace(
        target,
        memory=tuple(
            dataclasses.replace(region, timing=tuple(dataclasses.replace(part, caches=()) for part in region.timing))
            for region in target.memory
        ),
    )
    call = kernel_call(Mean(0, 0, 0, STAGE), ((64, 256),))
    assert cache_counts(call, 65 * 256, plain) == {"lines": 0, "lines again": 0}
