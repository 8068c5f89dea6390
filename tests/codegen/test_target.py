"""Targets: the built-in files are right, a user's file is read, and each mistake gives one clear error."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.target import CORES, MemoryRegion, Target, list_targets, load_target
from refsim.errors import TargetError

KB = 1024
# (core, fpu, code origin, code KB, data origin, data KB), from the reference manuals.
FIGURES = {
    "rp2040": ("cortex-m0plus", "none", 0x1000_0000, 2048, 0x2000_0000, 264),
    "stm32f407": ("cortex-m4", "single", 0x0800_0000, 1024, 0x2000_0000, 112 + 16),
    "stm32f746": ("cortex-m7", "single", 0x0800_0000, 1024, 0x2000_0000, 64 + 240 + 16),
    "stm32h743": ("cortex-m7", "double", 0x0800_0000, 2048, 0x2400_0000, 512),
    "stm32l4r5": ("cortex-m4", "single", 0x0800_0000, 2048, 0x2000_0000, 192 + 64 + 384),
    "stm32u575": ("cortex-m33", "single", 0x0800_0000, 2048, 0x2000_0000, 192 + 64 + 512),
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
    assert list_targets() == tuple(sorted(FIGURES))


def test_own_target_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    target = load_target(path)
    assert (target.name, target.core, target.data.end) == ("mine", "cortex-m3", 0x2000_5000)
    assert load_target(str(path)) == target
    assert target.region("rom") is target.code


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
