"""What a linked image takes of its chip's memory, from the ELF file alone."""

from collections.abc import Sequence
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Symbol, SymbolTableSection

from codegen.target import MemoryRegion, Target
from conformance.verify.result import MemoryPart, MemoryRegionUse
from refsim.errors import ToolchainError

STACK_SECTIONS = (".stack", "._user_heap_stack")
"""Sections in which a linker script reserves the stack: of the toolkit's own images, and of STM32CubeIDE's."""

ARENA_SECTIONS = (".arena", ".tnf_arena")
"""Sections that hold nothing but the arena."""


def memory_use(elf: Path, target: Target, *, arena_bytes: int, stack_bytes: int) -> tuple[MemoryRegionUse, ...]:
    """What lies in each memory region of a chip.

    The bytes of flash are those that a programmer writes, gaps between sections included.

    Args:
        elf: the linked image.
        target: the chip.
        arena_bytes: of the model; where the image has no section of its own for the arena, so many bytes of its static
            data are the arena.
        stack_bytes: that the target reserves, counted where the image has no section for its stack.

    Returns:
        One entry for each region of the target; what lies in none of them is counted in the region before it, so that
        its use exceeds its size.

    Raises:
        ToolchainError: the file is no ELF file.
    """
    parts: dict[str, dict[str, int]] = {region.name: {} for region in target.memory}

    def add(address: int, part: str, size: int) -> None:
        if size:
            uses = parts[_region(target, address).name]
            uses[part] = uses.get(part, 0) + size

    try:
        with elf.open("rb") as stream:
            file = ELFFile(stream)
            loads = [(s["p_vaddr"], s["p_paddr"], s["p_filesz"]) for s in file.iter_segments("PT_LOAD")]
            sections = [s for s in file.iter_sections() if s["sh_flags"] & SH_FLAGS.SHF_ALLOC and s["sh_size"]]
            table = file.get_section_by_name(".symtab")
            symbols = list(table.iter_symbols()) if isinstance(table, SymbolTableSection) else []
    except (OSError, ELFError) as error:
        raise ToolchainError(f"{elf} is no ELF file that can be read: {error}") from error
    arena_seen = stack_seen = False
    for section in sections:
        address, size, name = section["sh_addr"], section["sh_size"], section.name
        stored = section["sh_type"] != "SHT_NOBITS"
        writable = bool(section["sh_flags"] & SH_FLAGS.SHF_WRITE) or not stored
        if not writable:
            executable = section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR
            constants = _constant_bytes(symbols, address, address + size) if executable else size
            add(address, "code", size - constants)
            add(address, "constants", constants)
            continue
        if stored:
            load = next((p + address - v for v, p, filled in loads if v <= address < v + filled), address)
            add(load, "initial values", size if load != address else 0)
        is_stack, is_arena = name in STACK_SECTIONS, name in ARENA_SECTIONS
        arena_seen, stack_seen = arena_seen or is_arena, stack_seen or is_stack
        add(address, "stack" if is_stack else "arena" if is_arena else "static data", size)
    data = parts[target.data_region]
    if not arena_seen and data.get("static data", 0) >= arena_bytes:
        data["static data"] -= arena_bytes
        data["arena"] = arena_bytes
    if not stack_seen:
        data["stack"] = stack_bytes
    _fill_gaps(parts, loads, target)
    return tuple(
        MemoryRegionUse(
            region.name,
            region.kind,
            region.origin,
            region.size,
            tuple(MemoryPart(part, size) for part, size in parts[region.name].items() if size),
        )
        for region in target.memory
    )


def used_bytes(use: MemoryRegionUse) -> int:
    """Bytes of a region that the image uses."""
    return sum(part.bytes for part in use.parts)


def _region(target: Target, address: int) -> MemoryRegion:
    """The region of an address; the last one that begins before it where it is in none."""
    before = [region for region in target.memory if region.origin <= address]
    inside = [region for region in before if address < region.end]
    return (inside or sorted(before, key=lambda region: region.origin)[-1:] or list(target.memory[:1]))[0]


def _constant_bytes(symbols: Sequence[Symbol], start: int, end: int) -> int:
    """Bytes of data objects between two addresses; those that the compiler gave one place count once."""
    objects = {(s["st_value"], s["st_size"]) for s in symbols if s["st_info"]["type"] == "STT_OBJECT"}
    return sum(size for at, size in objects if start <= at < end)


def _fill_gaps(parts: dict[str, dict[str, int]], loads: list[tuple[int, int, int]], target: Target) -> None:
    """Count the alignment between what is written to flash."""
    code = target.code
    ends = [p + size for _, p, size in loads if size and _region(target, p) == code]
    used = sum(parts[code.name].values())
    gap = max(ends, default=code.origin) - code.origin - used
    if gap > 0:
        parts[code.name]["alignment"] = gap
