"""The chips' part: lines that only the DSP extension brings, and assembly, instruction by instruction."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from codegen.target import load_target
from conformance.coverage.result import Assembly, Instruction, SourceFile
from conformance.places import CortexMPlace, Library
from conformance.source_lines import SourceLines
from conformance.timing.core import Block
from conformance.timing.cycles import Timing
from conformance.timing.instructions import Kind, decode

CHIPS = {"cortex-m7": "stm32f746", "cortex-m4": "stm32f407"}
"""Cores with the DSP extension, one with TNF_DUAL_ISSUE and one without: code that no other core or host has."""

Span = tuple[int, int]
"""Addresses of a block's first instruction and behind its last."""


class Chips:
    """The emulated chips.

    Args:
        library: the sources.

    Raises:
        ToolchainError: an image cannot be built.
    """

    def __init__(self, library: Library) -> None:
        self.places = [
            CortexMPlace(core, library, load_target(target), timing=Timing.ZERO_WAIT) for core, target in CHIPS.items()
        ]
        self._machines = {place.name: list(place.machines.values()) for place in self.places}

    def read(self, files: dict[str, SourceFile]) -> list[Assembly]:
        """Add lines that the host's builds, which must have been read before, do not have; the assembly functions."""
        found: dict[tuple[str, str], Assembly] = {}
        for place in self.places:
            machines = self._machines[place.name]
            edges = {
                (_span(source) if source else None, _span(block))
                for machine in machines
                for source, block in machine.edges()
            }
            executed = {at for _, (start, end) in edges for at in range(start, end, 2)}
            lines = [each for each in _lines(place.elf, files) if _of_chip(files[each[2]], each[3])]
            for name, start, end in _functions(place.elf):
                inside = [each for each in lines if each[0] < end and each[1] > start]
                if sum(min(b, end) - max(a, start) for a, b, _, _ in inside) < end - start:
                    continue  # a function in C
                instructions = dict(_instructions(machines[0].read(start, end - start), start, executed, edges))
                key = (name, place.name)
                if key in found:
                    _merge(found[key].instructions, instructions)
                else:
                    found[key] = Assembly(*key, *min((file, line) for _, _, file, line in inside), instructions)
            for start, end, name, line in lines:
                file = files[name]
                file.chip.add(line)
                file.lines[line] = file.lines.get(line, 0) + (not executed.isdisjoint(range(start, end, 2)))
        return list(found.values())


def _span(block: Block) -> Span:
    return block.start, block.end


def _lines(elf: Path, files: dict[str, SourceFile]) -> Iterator[tuple[int, int, str, int]]:
    """(start, end, file, line) of an image's code that comes from the files."""
    names = {Path(name).name: name for name in files}
    for start, end, text in SourceLines(elf).stretches():
        file, _, line = text.partition(":")
        if file in names:
            yield start, end, names[file], int(line)


def _of_chip(file: SourceFile, line: int) -> bool:
    return line not in file.lines or line in file.chip


def _functions(elf: Path) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) of each function of an image."""
    with elf.open("rb") as stream:
        tables = (s for s in ELFFile(stream).iter_sections() if isinstance(s, SymbolTableSection))
        for symbol in (symbol for table in tables for symbol in table.iter_symbols()):
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]:
                start = symbol["st_value"] & ~1
                yield symbol.name, start, start + symbol["st_size"]


def _instructions(
    code: bytes, start: int, executed: set[int], edges: Iterable[tuple[Span | None, Span]]
) -> Iterator[tuple[int, Instruction]]:
    """(offset, instruction) of a function; what only aligns the next one is left out."""
    targets: dict[int, set[int]] = {}
    for source, (entered, _) in edges:
        if source is not None:
            targets.setdefault(source[1], set()).add(entered)
    for each in decode(code, start):
        end = each.address + each.size
        went = targets.get(end, set()) if each.address in executed else set()
        ways: tuple[int, ...] = ()
        if each.conditional:
            ways = (len(went - {end}), len(went & {end}))
        elif each.kind is Kind.LOAD and each.branches:
            ways = (len(went),)
        text = each.text
        if each.kind is Kind.BRANCH:
            before, _, target = text.rpartition("#")
            text = f"{before}{int(target, 16) - start:+#x}"
        if each.kind is not Kind.NOP or each.address in executed:
            yield each.address - start, Instruction(text, each.address in executed, ways)


def _merge(into: dict[int, Instruction], other: dict[int, Instruction]) -> None:
    """Add what another copy of the same function did."""
    for offset, each in other.items():
        known = into.setdefault(offset, each)
        if known is not each:
            known.executed |= each.executed
            known.ways = tuple(max(a, b) for a, b in zip(known.ways, each.ways, strict=True))
