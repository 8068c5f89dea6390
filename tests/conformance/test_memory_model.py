"""The simulated memories against what can be counted by hand, and against a slow cache in Python."""

import random
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.memory_timing import Cache, MemoryTiming
from codegen.target import Target, load_target
from conformance.emulator import CallResult, CortexM
from conformance.emulator.unicorn_library import libraries
from conformance.timing.cycles import Timing
from conformance.timing.memory import MemoryModel
from conformance.toolchain import build_firmware
from refsim.errors import TargetError

FLASH, RAM, TCM = 0x0800_0000, 0x2000_0000, 0x1000_0000


def machine(target: Target) -> CortexM:
    points = ["self_loop", "long_run", "long_loop", "pattern", "indirect", "marked", "walk", "fill"]
    return CortexM(
        target,
        build_firmware([Path(__file__).with_name("blocks.c")], target, points, arena_bytes=32768, name="blocks"),
        timing=Timing.MEMORY,
    )


def timing(name: str, origin: int, size: int, **changed: Any) -> MemoryTiming:
    """64-bit bus at the core's clock, without waits."""
    plain: dict[str, Any] = {"bus": "axi", "caches": (), "clock_divider": 1, "bus_bits": 64, "row_bits": 64}
    plain |= {"wait_states": 0, "latency": 0, "prefetch": False, "source": "test"}
    return MemoryTiming(name, origin, size, **(plain | changed))


def chip(
    flash: dict[str, Any], ram: dict[str, Any] | None = None, caches: tuple[Cache, ...] = (), core: str = "cortex-m4"
) -> Target:
    """A chip with flash, RAM and tightly coupled RAM, for the model alone."""
    target = load_target("stm32f407")
    parts = {
        "flash": timing("flash", FLASH, 1 << 20, **flash),
        "sram": timing("sram", RAM, 1 << 17, **(ram or {})),
        "ccm": timing("ccm", TCM, 1 << 16, bus="tcm"),
    }
    memory = tuple(replace(region, timing=(parts[region.name],)) for region in target.memory)
    return replace(target, core=core, memory=memory, caches=caches)


class Model:
    """The C model; times are relative to the last access where none is given."""

    def __init__(self, target: Target) -> None:
        native, _ = libraries()
        self.lib = native.lib
        self.model = MemoryModel(native.ffi, target)

    def data(self, address: int, size: int = 4, *, write: bool = False, after: int = 0) -> int:
        self.model.pointer.clock += after
        return int(self.lib.tnf_data_wait(self.model.pointer, address, size, write))

    def fetch(self, address: int, size: int, now: int, cycles: int) -> int:
        return int(self.lib.tnf_fetch_wait(self.model.pointer, address, size, now, cycles))


def cache(size: int, ways: int, line: int = 32, *, holds: str = "data", write_back: bool = False) -> Cache:
    return Cache(f"{holds} cache", holds, size, ways, line, write_back, "test")


LONG = 1000
"""Cycles after which every transfer has ended."""


# Caches


class SlowCache:
    """Least recently used, in Python's own words."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.sets: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(cache.sets)]

    def misses(self, address: int) -> bool:
        line = address // self.cache.line
        lines = self.sets[line % self.cache.sets]
        missing = line not in lines
        lines[line] = None
        lines.move_to_end(line)
        if len(lines) > self.cache.ways:
            lines.popitem(last=False)
        return missing


@given(
    seed=st.integers(0, 1 << 30),
    ways=st.sampled_from([1, 2, 4, 64]),
    sets=st.sampled_from([1, 2, 16]),
    line=st.sampled_from([8, 16, 32]),
)
def test_a_line_misses_when_a_slow_cache_says_so(seed: int, ways: int, sets: int, line: int) -> None:
    simulated = cache(ways * sets * line, ways, line)
    model = Model(chip({"wait_states": 5, "caches": ("data cache",)}, caches=(simulated,)))
    slow = SlowCache(simulated)
    generator = random.Random(seed)
    reach = 2 * simulated.size
    for _ in range(300):
        address = FLASH + generator.randrange(reach // 4) * 4
        assert model.data(address, after=LONG) == (5 if slow.misses(address) else 0)


def test_a_random_line_goes_only_where_a_set_is_full() -> None:
    model = Model(chip({"wait_states": 5, "caches": ("data cache",)}, caches=(cache(4096, 4),), core="cortex-m7"))
    for _ in range(3):  # exactly what the cache holds
        waits = [model.data(FLASH + at, after=LONG) for at in range(0, 4096, 32)]
    assert sum(waits) == 0
    walks = [[model.data(FLASH + at, after=LONG) > 0 for at in range(0, 6144, 32)] for _ in range(20)]
    kept = 1 - sum(map(sum, walks[1:])) / (19 * 192)
    assert 0.2 < kept < 0.6, "the least recently used line would be the next one needed, each time"
    model.model.empty()
    again = [[model.data(FLASH + at, after=LONG) > 0 for at in range(0, 4096, 32)] for _ in range(1)]
    assert all(again[0]), "an emptied cache holds nothing"


def test_a_line_that_is_empty_is_filled_first() -> None:
    model = Model(chip({"wait_states": 5, "caches": ("data cache",)}, caches=(cache(128, 4),), core="cortex-m7"))
    for count in range(1, 5):
        model.data(FLASH + 32 * count, after=LONG)
        assert all(model.data(FLASH + 32 * n, after=LONG) == 0 for n in range(1, count + 1))


# Loads


def test_the_word_comes_first_and_the_rest_of_the_line_keeps_the_bus() -> None:
    # A row of 256 bits takes 7 + 1 cycles for the first 64 bits and 3 more for the others: 11 for the line.
    model = Model(chip({"wait_states": 7, "row_bits": 256, "caches": ("data cache",)}, caches=(cache(4096, 4),)))
    assert model.data(FLASH) == 7
    assert model.data(FLASH + 4) == 0
    assert model.data(FLASH + 32, after=LONG) == 7
    # Asked for at once, a line waits for the last one: that began to arrive at 7, this is 8, the bus is free at 11.
    assert model.data(FLASH + 64) == 3 + 7


def test_without_a_cache_each_load_waits() -> None:
    model = Model(chip({"wait_states": 5, "bus_bits": 128, "row_bits": 128}))
    assert [model.data(FLASH + 4 * n) for n in range(4)] == [5] * 4


def test_tightly_coupled_and_zero_wait_memory_never_wait() -> None:
    model = Model(chip({"wait_states": 5}))
    for base in (TCM, RAM):
        assert not any(model.data(base + 8 * n, 8, write=n % 2 == 0) for n in range(100))
    assert model.data(0x6000_0000) == 0, "what the target does not describe takes no time"


def test_an_access_across_two_lines_needs_both() -> None:
    model = Model(chip({"wait_states": 5, "caches": ("data cache",)}, caches=(cache(4096, 4, 16),)))
    first = model.data(FLASH + 14)
    # 64-bit rows: (5 + 1) each, two of them in a line. The second line waits for the first one's end.
    assert first == 5 + (12 - 5) + 5
    assert model.data(FLASH) == model.data(FLASH + 16) == 0


# Stores


def test_a_store_buffer_hides_a_store_but_not_a_row_of_them() -> None:
    model = Model(chip({}, {"latency": 4}))  # 5 cycles a word
    assert model.data(RAM, write=True) == 0
    assert model.data(RAM + 4, write=True) == 4  # one cycle after the first, whose transfer takes five
    assert model.data(RAM + 8, write=True, after=LONG) == 0


def test_stores_pass_by_a_cache_that_does_not_write_back() -> None:
    model = Model(chip({}, {"latency": 4, "caches": ("data cache",)}, caches=(cache(4096, 4),)))
    assert model.data(RAM, write=True) == 0
    assert model.data(RAM, after=LONG) == 4, "the store brought no line"
    assert [model.data(RAM, write=True, after=LONG), model.data(RAM, write=True)] == [0, 4]


def test_a_write_back_cache_writes_a_line_once_when_it_goes() -> None:
    ram = {"latency": 4, "caches": ("data cache",)}  # 8 cycles a line, the first word after 5
    model = Model(chip({}, ram, caches=(cache(32, 1, write_back=True),)))
    assert model.data(RAM, write=True) == 0, "the store buffer waits for the line"
    assert not any(model.data(RAM + 4 * n, write=True) for n in range(8))
    assert model.data(RAM + 8) == 0, "a load leaves the line dirty"
    assert model.data(RAM + 32, after=LONG) == 4
    assert model.data(RAM + 64) == (8 + 8 - 5) + 4, "after the line itself and the dirty one before it"
    assert model.data(RAM + 96, after=LONG) == 4
    assert model.data(RAM + 128) == 3 + 4, "a clean line goes without a transfer"


# Instructions


def test_prefetch_hides_what_executing_a_row_takes() -> None:
    """RM0090, figure "Sequential 32-bit instruction execution": 128-bit rows, 4 instructions each."""
    rows = {"wait_states": 5, "bus_bits": 128, "row_bits": 128}
    assert Model(chip(rows)).fetch(FLASH, 160, 0, 40) == 10 * 5
    # While four cycles of instructions run, six of reading the next row do.
    assert Model(chip(rows | {"prefetch": True})).fetch(FLASH, 160, 0, 40) == 5 + 9 * 2
    assert Model(chip(rows | {"prefetch": True})).fetch(FLASH, 160, 0, 60) == 5


def test_a_jump_finds_nothing_prefetched() -> None:
    model = Model(chip({"wait_states": 5, "bus_bits": 128, "row_bits": 128, "prefetch": True}))
    assert model.fetch(FLASH, 16, 0, 4) == 5
    assert model.fetch(FLASH + 1024, 16, LONG, 4) == 5
    assert model.fetch(FLASH + 1040, 16, 2 * LONG, 4) == 0
    # The bus is busy with the row that nobody wants.
    assert model.fetch(FLASH, 16, 2 * LONG + 1, 4) == 5 + 5


def test_a_row_is_fetched_once_while_the_core_stays_in_it() -> None:
    model = Model(chip({"wait_states": 5, "bus_bits": 128, "row_bits": 128}))
    waits = [model.fetch(FLASH + at, 4, LONG, 1) for at in (0, 4, 8, 0, 12)]
    assert waits == [5, 0, 0, 0, 0]


def test_code_and_data_share_a_cache_that_holds_both() -> None:
    both = cache(8192, 2, 16, holds="both")
    model = Model(chip({"wait_states": 4, "row_bits": 128, "bus_bits": 32, "caches": ("both cache",)}, caches=(both,)))
    assert model.fetch(FLASH, 16, 0, 4) == 4
    assert model.data(FLASH + 8, after=LONG) == 0


# Whole machines


def waits(result: CallResult) -> tuple[int, int]:
    assert result.cycles is not None
    return result.cycles.fetch, result.cycles.data


def part_of(target: Target, address: int) -> MemoryTiming:
    return next(part for part in target.memory_timing if part.origin <= address < part.end)


@pytest.mark.parametrize("name", ["stm32f746", "stm32h743", "stm32f407"])
def test_a_walk_over_flash_waits_once_for_each_line(name: str) -> None:
    target = load_target(name)
    chip = machine(target)
    start = chip.flash_free[0] + 4096 & ~4095
    part = part_of(target, start)
    held = target.data_cache(part)
    assert held is not None
    lines = 3 * held.size // held.line
    chip.call("walk", target.code.origin, 4, 1)  # its code is in the cache from now on
    fetch, data = waits(chip.call("walk", start, 4, lines * held.line // 4))
    assert data == lines * (part.read_cycles(4) - 1)
    assert fetch == 0


def test_streaming_from_serial_flash_takes_as_long_as_its_bus() -> None:
    chip = machine(load_target("rp2040"))
    start = chip.flash_free[0] + 4096 & ~4095
    line = part_of(chip.target, start).read_cycles(8)
    chip.call("walk", start, 4, 2)
    cycles = chip.call("walk", start + 8, 4, 2000).cycles
    assert cycles is not None and abs(cycles.total - 1000 * line) < line


@pytest.mark.parametrize("name", ["stm32f746", "stm32h743"])
def test_what_the_cache_holds_is_read_once(name: str) -> None:
    target = load_target(name)
    chip = machine(target)
    start = chip.flash_free[0] + 4096 & ~4095
    held = target.data_cache(part_of(target, start))
    assert held is not None
    walk = ("walk", start, 32, held.size // 32)
    assert waits(chip.call(*walk))[1] > 0
    assert waits(chip.call(*walk)) == (0, 0)
    chip.empty_caches()
    assert min(waits(chip.call(*walk))) > 0
    chip.reset()
    assert min(waits(chip.call(*walk))) > 0


def test_tightly_coupled_ram_never_waits() -> None:
    chip = machine(load_target("stm32h743"))
    dtcm = chip.target.region("dtcm").origin
    for function in ("walk", "fill"):
        chip.call(function, dtcm, 4, 1)
        assert waits(chip.call(function, dtcm, 4, 1000)) == (0, 0)
        assert waits(chip.call(function, chip.arena[0], 32, 1000))[1] > 0, "RAM on the bus does, through its cache"


@pytest.mark.parametrize("name", ["stm32f746", "stm32f407", "stm32u575", "rp2040"])
def test_a_loop_in_the_cache_waits_in_its_first_round_only(name: str) -> None:
    chip = machine(load_target(name))
    cold = waits(chip.call("self_loop", 1))[0]
    chip.empty_caches()
    assert cold > 0
    assert waits(chip.call("self_loop", 1000)) == (cold, 0)


def test_a_loop_larger_than_the_cache_waits_in_every_round() -> None:
    chip = machine(load_target("stm32f407"))
    rounds = []
    for n in (2, 3, 4):
        chip.empty_caches()
        rounds.append(waits(chip.call("long_loop", n))[0])
    assert rounds[1] - rounds[0] == rounds[2] - rounds[1] > 0


def test_unaligned_accesses_take_their_time() -> None:
    chip = machine(load_target("stm32f407"))
    start = chip.arena[0]
    aligned, unaligned = (waits(chip.call("walk", start + at, 4, 100)) for at in (0, 1))
    assert (aligned[1], unaligned[1]) == (0, 100)


def test_a_target_without_memory_timing_is_refused() -> None:
    target = load_target("stm32f746")
    silent = replace(target, memory=tuple(replace(region, timing=()) for region in target.memory))
    with pytest.raises(TargetError, match="has no memory timing for flash, sram"):
        machine(silent)
