"""Targets: the built-in files are right, a user's file is read, and each mistake gives one clear error."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codegen.memory_timing import Cache, MemoryTiming, Power
from codegen.target import CORES, MemoryRegion, Target, list_targets, load_target
from refsim.errors import TargetError

KB = 1024
# (core, fpu, code origin, code KB, data origin, data KB), from the reference manuals.
FIGURES = {
    "rp2040": ("cortex-m0plus", "none", 0x1000_0000, 2048, 0x2000_0000, 264),
    "stm32f103": ("cortex-m3", "none", 0x0800_0000, 512, 0x2000_0000, 64),
    "stm32f407": ("cortex-m4", "single", 0x0800_0000, 1024, 0x2000_0000, 112 + 16),
    "stm32f411": ("cortex-m4", "single", 0x0800_0000, 512, 0x2000_0000, 128),
    "stm32f746": ("cortex-m7", "single", 0x0800_0000, 1024, 0x2000_0000, 64 + 240 + 16),
    "stm32f767": ("cortex-m7", "double", 0x0800_0000, 2048, 0x2000_0000, 128 + 368 + 16),
    "stm32g474": ("cortex-m4", "single", 0x0800_0000, 512, 0x2000_0000, 80 + 16),
    "stm32h743": ("cortex-m7", "double", 0x0800_0000, 2048, 0x2400_0000, 512),
    "stm32h7a3": ("cortex-m7", "double", 0x0800_0000, 2048, 0x2400_0000, 256 + 384 + 384),
    "stm32l4r5": ("cortex-m4", "single", 0x0800_0000, 2048, 0x2000_0000, 192 + 64 + 384),
    "stm32n657": ("cortex-m33", "single", 0x7000_0000, 65536, 0x3400_0000, 400 + 624 + 1024),
    "stm32u575": ("cortex-m33", "single", 0x0800_0000, 2048, 0x2000_0000, 192 + 64 + 512),
}
# Flash: (core MHz, bus MHz, wait states, bytes of the cache for instructions, bytes of the cache for data), likewise.
FLASH = {
    "rp2040": (133, 66.5, 0, 16 * KB, 16 * KB),
    "stm32f103": (72, 72, 2, 16, None),
    "stm32f407": (168, 168, 5, KB, 128),
    "stm32f411": (100, 100, 3, KB, 128),
    "stm32f746": (216, 216, 7, 4 * KB, 4 * KB),
    "stm32f767": (216, 216, 7, 16 * KB, 16 * KB),
    "stm32g474": (170, 170, 4, KB, 256),
    "stm32h743": (480, 240, 4, 16 * KB, 16 * KB),
    "stm32h7a3": (280, 280, 6, 16 * KB, 16 * KB),
    "stm32l4r5": (120, 120, 5, KB, 256),
    "stm32n657": (800, 200, 0, 32 * KB, 32 * KB),
    "stm32u575": (160, 160, 4, 8 * KB, 8 * KB),
}
MINE = """
name = "mine"
description = "A chip of mine"
core = "cortex-m3"
fpu = "none"
clock_hz = 72_000_000
code_region = "rom"
data_region = "ram"
stack_bytes = 1024
source = "its data sheet"
[[memory]]
name = "rom"
kind = "flash"
permissions = "rx"
origin = 0
size = 65536
source = "its data sheet"
[[memory]]
name = "ram"
kind = "ram"
permissions = "rw"
origin = 0x20000000
size = 20480
source = "its data sheet"
"""


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_built_in_figures(name: str) -> None:
    target = load_target(name)
    code, data = target.code, target.data
    found = (target.core, target.fpu, code.origin, code.size // KB, data.origin, data.size // KB)
    assert (target.name, found) == (name, FIGURES[name])
    assert (code.permissions, data.permissions) == ("rx", "rw")
    assert target.source and all(region.source for region in target.memory)


def test_every_built_in_target_is_listed_and_tested() -> None:
    assert list_targets() == tuple(sorted(FIGURES)) == tuple(sorted(FLASH))
    assert {load_target(name).core for name in list_targets()} == set(CORES)


@pytest.mark.parametrize("name", sorted(FLASH))
def test_built_in_timing(name: str) -> None:
    target = load_target(name)
    (flash,) = target.code.timing
    caches = target.instruction_cache(flash), target.data_cache(flash)
    found = (target.clock_hz / 1e6, target.clock_hz / 1e6 / flash.clock_divider, flash.wait_states)
    assert (*found, *(cache and cache.size for cache in caches)) == FLASH[name]
    assert sum(part.size for part in target.memory_timing) == sum(region.size for region in target.memory)
    assert all(part.source for part in target.memory_timing) and all(cache.source for cache in target.caches)
    assert all(cache.name in {use for part in target.memory_timing for use in part.caches} for cache in target.caches)
    assert target.power is None or (target.power.source and 5 < target.power.milliwatts < 500)


def test_data_region_stays_whole_where_its_parts_differ() -> None:
    target = load_target("stm32f746")
    assert target.data.size == 320 * KB
    dtcm, sram = target.data.timing
    assert (dtcm.bus, dtcm.origin, dtcm.end) == ("tcm", 0x2000_0000, 0x2001_0000)
    assert (dtcm.read_cycles(4), dtcm.read_cycles(8)) == (1, 1)
    assert (target.instruction_cache(dtcm), target.data_cache(dtcm)) == (None, None)
    assert (sram.origin, sram.end) == (0x2001_0000, target.data.end)
    assert target.memory_timing == (*target.code.timing, dtcm, sram)
    caches = target.instruction_cache(sram), target.data_cache(sram)
    assert [cache and (cache.name, cache.ways, cache.sets) for cache in caches] == [("l1i", 2, 64), ("l1d", 4, 32)]


def test_cycles_of_a_transfer() -> None:
    """Worked by hand: latency, then wait states once a row, then one cycle a beat, in core cycles."""
    flash = load_target("stm32f746").code.timing[0]
    assert [flash.read_cycles(size) for size in (1, 8, 32, 64)] == [2 + 7 + 1, 2 + 7 + 1, 2 + 7 + 4, 2 + 14 + 8]
    assert load_target("stm32h743").code.timing[0].read_cycles(32) == 2 * (2 + 4 + 4)
    assert load_target("rp2040").code.timing[0].read_cycles(8) == 2 * (8 + 4 + 16)
    assert load_target("stm32f407").code.timing[0].read_cycles(16) == 5 + 1


def test_power() -> None:
    assert Power(100.0, 3.0, "test").milliwatts == pytest.approx(300.0)


def test_own_target_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    target = load_target(path)
    assert (target.name, target.core, target.data.end) == ("mine", "cortex-m3", 0x2000_5000)
    assert load_target(str(path)) == target
    assert target.region("rom") is target.code


TIMED = (
    MINE.replace(
        "[[memory]]",
        """[power]
current_ma = 30
supply_v = 3.3
source = "its data sheet"
[[caches]]
name = "icache"
holds = "instructions"
size = 1024
ways = 4
line = 16
write_back = false
source = "its data sheet"
[[memory]]""",
        1,
    )
    + """[[memory.timing]]
name = "ram"
origin = 0x20000000
size = 20480
bus = "ahb"
caches = ["icache"]
clock_divider = 1
bus_bits = 32
row_bits = 32
wait_states = 0
latency = 1
prefetch = false
source = "its data sheet"
"""
)


def test_own_target_without_timing_says_what_to_add(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    target = load_target(path)
    assert (target.caches, target.power, target.code.timing) == ((), None, ())
    with pytest.raises(
        TargetError, match=r"'mine' has no memory timing for rom, ram; add \[\[memory\.timing\]\] below"
    ):
        _ = target.memory_timing
    path.write_text(TIMED)
    with pytest.raises(TargetError, match="no memory timing for rom; add"):
        _ = load_target(path).memory_timing


def test_documented_file_and_table(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text(encoding="utf-8")
    path = tmp_path / "myboard.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    target = load_target(path)
    assert [part.name for part in target.memory_timing] == ["flash", "sram"]
    assert target.power is not None and target.power.milliwatts == pytest.approx(12.5 * 3.3)
    assert all(f"\n| {name} (" in page for name in list_targets())


def test_own_target_with_timing(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TIMED)
    target = load_target(path)
    assert target.power == Power(30.0, 3.3, "its data sheet")
    assert target.caches == (Cache("icache", "instructions", 1024, 4, 16, False, "its data sheet"),)
    assert target.data.timing[0].caches == ("icache",)
    assert target.instruction_cache(target.data.timing[0]) == target.caches[0]
    assert target.data_cache(target.data.timing[0]) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("holds = ", "held = ", "[[caches]] lacks holds and has unknown held; the keys are name, holds, size"),
        (
            'holds = "instructions"',
            'holds = "all"',
            "cache 'icache': holds 'all'; supported are instructions, data, both",
        ),
        ("size = 1024", "size = 1000", "cache 'icache': 1000 bytes in 4 ways of 16-byte lines; size / (ways * line)"),
        ("size = 1024", "size = 192", "must be a power of two"),
        ("ways = 4", "ways = 0", "cache 'icache': 1024 bytes in 0 ways"),
        ("line = 16", "line = 12", "cache 'icache': line is 12, it must be a power of two from 4 bytes on"),
        ("write_back = false", "write_back = 0", "[[caches]]: write_back is 0, it must be of type bool"),
        ("write_back = false", "write_back = true", "cache 'icache': write_back in a cache for instructions"),
        ("current_ma = 30", 'current_ma = "30"', "[power]: current_ma is '30', it must be of type float"),
        ("current_ma = 30", "current_ma = nan", "power: current_ma is nan, it must be positive"),
        ("supply_v = 3.3", "supply_v = -3.3", "power: supply_v is -3.3, it must be positive"),
        ("[power]", "[[power]]", "power must be a table, written [power]"),
        ("[[caches]]", "[caches]", "caches must be an array of tables, written [[caches]]"),
        ("[[memory.timing]]", "[memory.timing]", "timing must be an array of tables, written [[memory.timing]]"),
        ('bus = "ahb"', 'bus = "apb"', "memory timing 'ram': bus 'apb' is unknown; supported are tcm, ahb, axi, xip"),
        ('bus = "ahb"', 'bus = "tcm"', "memory timing 'ram': a tcm has no caches, no prefetch and no waits"),
        (
            'caches = ["icache"]',
            'caches = "icache"',
            "[[memory.timing]]: caches is 'icache', it must be a list of strings",
        ),
        ('caches = ["icache"]', 'caches = ["l1"]', "memory timing 'ram' names the caches l1; the target has icache"),
        ("clock_divider = 1", "clock_divider = 0", "memory timing 'ram': clock_divider is 0, it must be positive"),
        ("row_bits = 32", "row_bits = 48", "memory timing 'ram': row_bits 48 is no multiple of bus_bits 32"),
        ("latency = 1", "latency = -1", "memory timing 'ram': latency is -1, it must not be negative"),
        ("prefetch = false\n", "", "[[memory.timing]] lacks prefetch; the keys are name, origin, size, bus, caches"),
        (
            "origin = 0x20000000\nsize = 20480\nbus",
            "origin = 0x20000400\nsize = 19456\nbus",
            "memory region 'ram': the parts of its timing (ram 0x20000400 to 0x20005000) must follow each other "
            "without a gap from 0x20000000 to 0x20005000",
        ),
        ("origin = 0x20000000\nsize = 20480\nbus", "origin = 0x20000000\nsize = 20481\nbus", "without a gap from"),
    ],
)
def test_mistakes_in_timing_and_power(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TIMED
    path = tmp_path / "mine.toml"
    path.write_text(TIMED.replace(old, new, 1))
    with pytest.raises(TargetError, match=re.escape(message)):
        load_target(path)


def test_caches_that_clash() -> None:
    target = load_target("stm32f746")
    first, second = target.caches
    with pytest.raises(TargetError, match="two caches share a name among l1i, l1i"):
        replace(target, caches=(first, replace(first, size=8 * KB)))
    with pytest.raises(
        TargetError, match=r"'flash \(AXIM\)' has two caches for instructions, l1i, l1d; one is supported"
    ):
        replace(target, caches=(first, replace(second, holds="both")))


def test_a_cache_may_be_fully_associative() -> None:
    figures: dict[str, Any] = {"name": "c", "holds": "data", "line": 16, "write_back": False, "source": ""}
    assert Cache(size=96, ways=6, **figures).sets == 1
    with pytest.raises(TargetError, match="must be a power of two"):
        Cache(size=96, ways=2, **figures)


def test_a_tcm_moves_a_word_in_a_cycle() -> None:
    timing = load_target("stm32f746").data.timing[0]
    assert isinstance(timing, MemoryTiming)
    for change in ({"bus_bits": 16}, {"latency": 1}, {"clock_divider": 2}, {"prefetch": True}):
        with pytest.raises(
            TargetError, match="a tcm has no caches, no prefetch and no waits, and moves at least 32 bits"
        ):
            replace(timing, **change)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(TargetError, match=r"target 'stm32f4' is unknown; built-in are rp2040, .*stm32u575"):
        load_target("stm32f4")


def test_missing_file() -> None:
    with pytest.raises(TargetError, match=r"nowhere\.toml cannot be read"):
        load_target("nowhere.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('core = "cortex-m3"\n', "", "lacks core; the keys are"),
        ('core = "cortex-m3"', 'core = "cortex-m3"\ncache = 1', "has unknown cache; the keys are"),
        ('core = "cortex-m3"', 'core = "cortex-a9"', f"core 'cortex-a9' is not supported; supported are {CORES[0]}"),
        ('core = "cortex-m3"', "core = 3", "core is 3, it must be of type str"),
        ("clock_hz = 72_000_000", "clock_hz = 72e6", "clock_hz is 72000000.0, it must be of type int"),
        ("clock_hz = 72_000_000", "clock_hz = 0", "clock_hz is 0, it must be positive"),
        ('fpu = "none"', 'fpu = "single"', "fpu 'single' on a cortex-m3; supported are none"),
        (
            'kind = "flash"',
            'kind = "rom"',
            "memory region 'rom': kind 'rom' with permissions 'rx'; supported are flash",
        ),
        ('permissions = "rx"', 'permissions = "rwx"', "kind 'flash' with permissions 'rwx'"),
        ("size = 65536", "size = 65000", "must be multiples of 1024 bytes"),
        ("size = 65536", "size = 0", "size 0 must be"),
        ("size = 20480", "size = 0xFFFFFC00", "within the 32-bit address space"),
        ("origin = 0\n", "origin = 0x1FFFFC00\n", "memory regions 'rom' and 'ram' overlap"),
        ('name = "ram"', 'name = "rom"', "two memory regions share a name among rom, rom"),
        ('data_region = "ram"', 'data_region = "rom"', "data_region 'rom' names no ram region"),
        ("stack_bytes = 1024", "stack_bytes = 1001", "stack_bytes is 1001; it must be a positive multiple of 8"),
        ("stack_bytes = 1024", "stack_bytes = 20488", "at most the data region's 20480 bytes"),
        ("[[memory]]", "[memory]", "TOML|memory must be an array of tables"),
        ('name = "mine"', "name = mine", "is no valid TOML"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(old, new, 1))
    with pytest.raises(TargetError, match=message if "|" in message else re.escape(message)):
        load_target(path)


def test_memory_must_be_an_array_of_tables(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("memory = 5\n")
    with pytest.raises(TargetError, match="memory must be an array of tables"):
        load_target(path)


def test_unknown_region() -> None:
    with pytest.raises(TargetError, match=r"no memory region 'itcm'; it has \['flash', 'sram'\]"):
        load_target("stm32f746").region("itcm")


def test_target_checks_itself_when_built_in_code() -> None:
    target = load_target("stm32f746")
    assert isinstance(target, Target)
    more = MemoryRegion("more", "ram", "rw", 0x2000_0400, 1024, "")
    with pytest.raises(TargetError, match="overlap"):
        replace(target, memory=(*target.memory, more))
