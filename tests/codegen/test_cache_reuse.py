"""Lines that passes miss, beside a cache that is gone through access by access."""

import random

import numpy as np
import pytest

from codegen.cache_reuse import Reuse, Sweep
from codegen.memory_timing import Cache

LINE = 32


def cache(size: int, ways: int) -> Cache:
    return Cache("test", "data", size, ways, LINE, write_back=False, source="")


def misses(offsets: list[int], shape: Cache, at_random: bool, passes: int, begin: int = 20, full: bool = True) -> float:
    """Misses of a pass over byte offsets, the mean of many after some to begin with; full of other lines, or empty."""
    generator = random.Random(1)
    sets = [[-1 - way for way in range(shape.ways)] for _ in range(shape.sets)]
    missed = 0
    for turn in range(passes + begin):
        for offset in offsets:
            line = offset // shape.line
            held = sets[line % shape.sets]
            if line in held:
                held.append(held.pop(held.index(line)))
                continue
            missed += turn >= begin
            held.pop(generator.randrange(shape.ways) if at_random and (full or held[0] >= 0) else 0)
            held.append(line)
    return missed / passes


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize("size", [1000, 4096, 6000, 8192, 20000])
def test_a_sweep_misses_what_does_not_fit(size, at_random):
    shape = cache(4096, 4)
    found = Reuse(shape, 10, at_random).swept(size)
    assert found == pytest.approx(misses(list(range(0, size, LINE)), shape, at_random, 200), rel=0.2, abs=4)


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize(
    ("count", "stride"), [(64, 44), (64, 96), (64, 128), (64, 256), (256, 32), (256, 44), (9, 4096)]
)
def test_strides_that_share_sets_miss(count, stride, at_random):
    shape = cache(4096, 4)
    offsets = np.arange(count) * stride
    found = Reuse(shape, 10, at_random).scattered(offsets, 1, 0, stride)
    assert found == pytest.approx(misses(offsets.tolist(), shape, at_random, 200), rel=0.15, abs=6)


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize(("count", "stride"), [(64, 192), (64, 256), (64, 64), (32, 512), (40, 44)])
def test_columns_come_to_new_lines(count, stride, at_random):
    shape = cache(4096, 4)
    offsets = np.arange(count) * stride
    walk = [int(offset) + column for column in range(stride) for offset in offsets]
    first = -(-count * stride // LINE)
    again = Reuse(shape, 10, at_random).scattered(offsets, stride, 1, stride)
    assert first + again == pytest.approx(misses(walk, shape, at_random, 1, begin=0, full=False), rel=0.2, abs=8)


def test_nothing_is_missed_where_no_cache_is():
    none = Reuse(None, 0, False)
    assert none.swept(10**6) == none.scattered(np.arange(10**4), 9, 1, 1) == none.cycles(10**6) == 0


@pytest.mark.parametrize("stride", [96, 256, 512, 1024, 2048])
def test_rows_that_share_sets_replace_each_other(stride):
    shape = cache(4096, 4)
    walk = [row * stride + offset for offset in range(stride) for row in range(4)]
    lines = 4 * stride / LINE
    assert lines * Reuse(shape, 10, True).together(stride) == pytest.approx(
        misses(walk, shape, True, 1, begin=0), rel=0.25
    )


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize(("stride", "plane"), [(32, 512), (32, 4096), (64, 1280), (96, 2560), (256, 1280), (1024, 512)])
def test_buffers_in_turn_replace_each_other(stride, plane, at_random):
    shape = cache(8192, 4)
    reuse = Reuse(shape, 10, at_random)
    image = np.arange(64) * stride
    filled = np.full(shape.sets, plane / LINE / shape.sets)
    sweeps = (Sweep(0), Sweep(1), Sweep(1), Sweep(0))
    found = reuse.swept_in_turn((reuse.lines(image), filled), sweeps)
    apart = 2**20  # the plane begins anywhere, whatever the set
    walk = [*image.tolist(), *2 * [apart + offset for offset in range(0, plane, LINE)], *image.tolist()]
    assert sum(found) == pytest.approx(misses(walk, shape, at_random, 200), rel=0.2, abs=12)


def test_a_sweep_over_new_lines_counts_only_those_it_misses_again():
    reuse = Reuse(cache(4096, 4), 10, True)
    image = np.arange(64) * 256  # 16 lines in each of 4 sets
    again, some = (reuse.swept_in_turn((reuse.lines(image),), (Sweep(0, new),))[0] for new in (0.0, 0.25))
    assert again == pytest.approx(reuse.scattered(image, 1, 0, 256), rel=0.01)
    assert some == pytest.approx(0.75 * again, rel=0.05)
