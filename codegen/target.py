"""Targets as data: the core, clock, memories and power of a microcontroller, read from a TOML file.

The files in `codegen/targets/` describe well-known chips; a user's own chip is one more TOML file, given by its path.
Each figure carries its source, so that a reader can check it against the chip's reference manual.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from codegen.descriptions import list_descriptions, read_description
from codegen.memory_timing import Cache, MemoryTiming, Power
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

DSP_CORES = ("cortex-m4", "cortex-m7", "cortex-m33")
"""Cores with the DSP extension, which is optional in Cortex-M33 and present in every one described here."""

_PERMISSIONS = {"flash": ("rx",), "ram": ("rw", "rwx")}
_GRAIN = 1024
_BUILT_IN = Path(__file__).parent / "targets"
_Part = TypeVar("_Part")


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
        timing: How fast each part of it is, in the order of addresses, without a gap; empty where that is not known.

    Raises:
        TargetError: The kind or the permissions are unknown, the range is no multiple of 1 KB inside 32 bits, or the
            parts of `timing` do not cover it.
    """

    name: str
    kind: str
    permissions: str
    origin: int
    size: int
    source: str
    timing: tuple[MemoryTiming, ...] = ()

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
        starts = [self.origin, *(part.end for part in self.timing)]
        if self.timing and (starts[:-1] != [part.origin for part in self.timing] or starts[-1] != self.end):
            parts = ", ".join(f"{part.name} {part.origin:#x} to {part.end:#x}" for part in self.timing)
            raise TargetError(
                f"memory region {self.name!r}: the parts of its timing ({parts}) must follow each other "
                f"without a gap from {self.origin:#x} to {self.end:#x}"
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
        caches: Those that the regions' timing names.
        power: What the chip draws while it computes; None where that is not known.

    Raises:
        TargetError: A field is out of its range, regions overlap, or a named region or cache does not exist.
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
    caches: tuple[Cache, ...] = ()
    power: Power | None = None

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
        caches = [cache.name for cache in self.caches]
        if len(set(caches)) != len(caches):
            raise TargetError(f"target {self.name!r}: two caches share a name among {', '.join(caches)}")
        for part in (part for region in self.memory for part in region.timing):
            if not set(part.caches) <= set(caches):
                raise TargetError(
                    f"target {self.name!r}: memory timing {part.name!r} names the caches {', '.join(part.caches)}; "
                    f"the target has {', '.join(caches) or 'none'}"
                )
            for content in ("instructions", "data"):
                if len(serving := self._serving(part, content)) > 1:
                    raise TargetError(
                        f"target {self.name!r}: memory timing {part.name!r} has two caches for {content}, "
                        f"{', '.join(cache.name for cache in serving)}; one is supported"
                    )

    @property
    def dsp(self) -> bool:
        """Whether the core has the DSP extension."""
        return self.core in DSP_CORES

    @property
    def definitions(self) -> tuple[str, ...]:
        """Preprocessor names that the kernels are compiled with: what a compiler does not say of the core itself."""
        return ("TNF_DUAL_ISSUE",) if self.core == "cortex-m7" else ()

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

    @property
    def memory_timing(self) -> tuple[MemoryTiming, ...]:
        """How fast each part of the memory is, by address.

        Raises:
            TargetError: The target does not say it for every region.
        """
        silent = [region.name for region in self.memory if not region.timing]
        if silent:
            raise TargetError(
                f"target {self.name!r} has no memory timing for {', '.join(silent)}; add [[memory.timing]] below each "
                f"[[memory]], as docs/targets.md shows, or use zero-wait timing, which needs none"
            )
        return tuple(sorted((part for region in self.memory for part in region.timing), key=lambda part: part.origin))

    def instruction_cache(self, part: MemoryTiming) -> Cache | None:
        """The cache that instruction fetches from `part` of this target's memory pass."""
        return next(iter(self._serving(part, "instructions")), None)

    def data_cache(self, part: MemoryTiming) -> Cache | None:
        """The cache that loads from `part` of this target's memory, and stores to it, pass."""
        return next(iter(self._serving(part, "data")), None)

    def _serving(self, part: MemoryTiming, content: str) -> list[Cache]:
        return [cache for cache in self.caches if cache.name in part.caches and cache.holds in (content, "both")]


def list_targets() -> tuple[str, ...]:
    """Names of the built-in targets, sorted."""
    return list_descriptions(_BUILT_IN)


def load_target(name_or_path: str | Path) -> Target:
    """Read a target.

    Args:
        name_or_path: A built-in target's name (see `list_targets`) or the path of a TOML file, which ends in ".toml".

    Raises:
        TargetError: There is no such target, or the file is unreadable or wrong.
    """
    path, table = read_description("target", name_or_path, _BUILT_IN, TargetError)
    memory = []
    for entry in _tables(table, "memory", str(path)):
        timing = tuple(
            _built(MemoryTiming, part, f"{path}: [[memory.timing]]")
            for part in _tables(entry, "timing", f"{path}: [[memory]]", "memory.")
        )
        memory.append(_built(MemoryRegion, entry, f"{path}: [[memory]]", timing=timing))
    caches = tuple(_built(Cache, entry, f"{path}: [[caches]]") for entry in _tables(table, "caches", str(path)))
    power = table.pop("power", None)
    if power is not None:
        if not isinstance(power, dict):
            raise TargetError(f"target file {path}: power must be a table, written [power]")
        power = _built(Power, power, f"{path}: [power]")
    return _built(Target, table, str(path), memory=tuple(memory), caches=caches, power=power)


def _tables(table: dict[str, Any], key: str, where: str, parent: str = "") -> list[dict[str, Any]]:
    """The array of tables that is `key` of `table`, taken out of it; empty where there is none."""
    entries = table.pop(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TargetError(f"target file {where}: {key} must be an array of tables, written [[{parent}{key}]]")
    return entries


def _built(cls: type[_Part], table: dict[str, Any], where: str, **parts: Any) -> _Part:
    """The dataclass `cls` from `parts` and from `table`, whose keys and value types must be its other fields'."""
    kinds: dict[str, Any] = {name: kind for name, kind in cls.__annotations__.items() if name not in parts}
    missing, unknown = sorted(kinds.keys() - table.keys()), sorted(table.keys() - kinds.keys())
    if missing or unknown:
        faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise TargetError(f"target file {where} {' and '.join(faults)}; the keys are {', '.join(kinds)}")
    return cls(**parts, **{name: _value(table[name], kind, f"{where}: {name}") for name, kind in kinds.items()})


def _value(value: object, kind: Any, where: str) -> object:
    """`value` once it is of the type `kind`; TOML writes whole numbers where a float is due, and lists for tuples."""
    if kind is float and type(value) is int:
        return float(value)
    if kind == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise TargetError(f"target file {where} is {value!r}, it must be a list of strings")
    if type(value) is not kind:
        raise TargetError(f"target file {where} is {value!r}, it must be of type {kind.__name__}")
    return value
