"""Targets as data: the core, clock and memory map of a microcontroller, read from a TOML file.

The files in `codegen/targets/` describe well-known chips; a user's own chip is one more TOML file, given by its path.
Each figure carries its source, so that a reader can check it against the chip's reference manual.
"""

import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from refsim.errors import TargetError

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
"""Supported cores, by their architectural names."""

_FPUS = {
    "cortex-m0plus": ("none",),
    "cortex-m3": ("none",),
    "cortex-m4": ("none", "single"),
    "cortex-m7": ("none", "single", "double"),
    "cortex-m33": ("none", "single"),
}
_PERMISSIONS = {"flash": ("rx",), "ram": ("rw", "rwx")}
_GRAIN = 1024
_BUILT_IN = Path(__file__).parent / "targets"


@dataclass(frozen=True)
class MemoryRegion:
    """One contiguous range of a chip's address space.

    Attributes:
        name: Its name in messages, such as "sram".
        kind: "flash" or "ram".
        permissions: "rx" for flash; "rw" or "rwx" for RAM.
        origin: First address.
        size: Bytes.
        source: Where origin and size come from.

    Raises:
        TargetError: The kind or the permissions are unknown, or the range is no multiple of 1 KB inside 32 bits.
    """

    name: str
    kind: str
    permissions: str
    origin: int
    size: int
    source: str

    def __post_init__(self) -> None:
        if self.permissions not in _PERMISSIONS.get(self.kind, ()):
            allowed = "; ".join(f"{kind}: {' or '.join(p)}" for kind, p in _PERMISSIONS.items())
            raise TargetError(
                f"memory region {self.name!r}: kind {self.kind!r} with permissions {self.permissions!r}; "
                f"supported are {allowed}"
            )
        if self.size <= 0 or self.origin < 0 or self.end > 1 << 32 or self.origin % _GRAIN or self.size % _GRAIN:
            raise TargetError(
                f"memory region {self.name!r}: origin {self.origin:#x} and size {self.size} must be multiples of "
                f"{_GRAIN} bytes within the 32-bit address space"
            )

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.origin + self.size


@dataclass(frozen=True)
class Target:
    """A microcontroller as the toolkit sees it.

    Attributes:
        name: Short name, such as "stm32f746".
        description: One line for people.
        core: One of `CORES`.
        fpu: "none", "single" or "double" precision.
        clock_hz: Highest core clock, Hz.
        memory: Every region that code may touch.
        code_region: Name of the flash region that holds code and constants.
        data_region: Name of the RAM region that holds the stack, static data and the arena.
        stack_bytes: Stack reserved by default, bytes; a multiple of 8.
        source: Where core, FPU and clock come from.

    Raises:
        TargetError: A field is out of its range, regions overlap, or a named region does not exist.
    """

    name: str
    description: str
    core: str
    fpu: str
    clock_hz: int
    memory: tuple[MemoryRegion, ...]
    code_region: str
    data_region: str
    stack_bytes: int
    source: str

    def __post_init__(self) -> None:
        if self.core not in CORES:
            raise TargetError(
                f"target {self.name!r}: core {self.core!r} is not supported; supported are {', '.join(CORES)}"
            )
        if self.fpu not in _FPUS[self.core]:
            raise TargetError(
                f"target {self.name!r}: fpu {self.fpu!r} on a {self.core}; supported are {', '.join(_FPUS[self.core])}"
            )
        if self.clock_hz <= 0:
            raise TargetError(f"target {self.name!r}: clock_hz is {self.clock_hz}, it must be positive")
        names = [region.name for region in self.memory]
        if len(set(names)) != len(names):
            raise TargetError(f"target {self.name!r}: two memory regions share a name among {', '.join(names)}")
        ordered = sorted(self.memory, key=lambda region: region.origin)
        for low, high in pairwise(ordered):
            if low.end > high.origin:
                raise TargetError(f"target {self.name!r}: memory regions {low.name!r} and {high.name!r} overlap")
        for role, region_name, kind in (("code", self.code_region, "flash"), ("data", self.data_region, "ram")):
            if all(region.name != region_name or region.kind != kind for region in self.memory):
                raise TargetError(
                    f"target {self.name!r}: {role}_region {region_name!r} names no {kind} region of {names}"
                )
        if self.stack_bytes <= 0 or self.stack_bytes % 8 or self.stack_bytes > self.data.size:
            raise TargetError(
                f"target {self.name!r}: stack_bytes is {self.stack_bytes}; it must be a positive multiple of 8 "
                f"of at most the data region's {self.data.size} bytes"
            )

    def region(self, name: str) -> MemoryRegion:
        """The region called `name`.

        Raises:
            TargetError: There is none.
        """
        for region in self.memory:
            if region.name == name:
                return region
        raise TargetError(f"target {self.name!r} has no memory region {name!r}; it has {[r.name for r in self.memory]}")

    @property
    def code(self) -> MemoryRegion:
        """The flash region for code and constants."""
        return self.region(self.code_region)

    @property
    def data(self) -> MemoryRegion:
        """The RAM region for the stack, static data and the arena."""
        return self.region(self.data_region)


def list_targets() -> tuple[str, ...]:
    """Names of the built-in targets, sorted."""
    return tuple(sorted(path.stem for path in _BUILT_IN.glob("*.toml")))


def load_target(name_or_path: str | Path) -> Target:
    """Read a target.

    Args:
        name_or_path: A built-in target's name (see `list_targets`) or the path of a TOML file, which ends in ".toml".

    Raises:
        TargetError: There is no such target, or the file is unreadable or wrong.
    """
    text = str(name_or_path)
    if text in list_targets():
        path = _BUILT_IN / f"{text}.toml"
    elif text.endswith(".toml"):
        path = Path(text)
    else:
        raise TargetError(
            f"target {text!r} is unknown; built-in are {', '.join(list_targets())}, or give a path to a .toml file"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError(
            f"target file {path} cannot be read ({error.strerror}); built-in are {', '.join(list_targets())}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"target file {path} is no valid TOML: {error}") from error
    memory = table.pop("memory", [])
    if not isinstance(memory, list) or not all(isinstance(entry, dict) for entry in memory):
        raise TargetError(f"target file {path}: memory must be an array of tables, written [[memory]]")
    regions = tuple(MemoryRegion(**_checked(MemoryRegion, entry, f"{path}: [[memory]]")) for entry in memory)
    return Target(memory=regions, **_checked(Target, table, str(path), without="memory"))


def _checked(cls: type, table: dict[str, Any], where: str, without: str = "") -> dict[str, Any]:
    """`table` once its keys and value types are exactly those of the dataclass `cls`."""
    fields: dict[str, type] = {name: kind for name, kind in cls.__annotations__.items() if name != without}
    missing, unknown = sorted(fields.keys() - table.keys()), sorted(table.keys() - fields.keys())
    if missing or unknown:
        faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise TargetError(f"target file {where} {' and '.join(faults)}; the keys are {', '.join(fields)}")
    for name, kind in fields.items():
        if type(table[name]) is not kind:
            raise TargetError(f"target file {where}: {name} is {table[name]!r}, it must be of type {kind.__name__}")
    return table
