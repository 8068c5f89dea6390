"""A linked image: what is loaded where, and its functions and instructions."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, Symbol, SymbolTableSection


@dataclass(frozen=True)
class Image:
    """What an ELF file holds.

    Attributes:
        segments: (address, bytes) of what a programmer writes into flash.
        functions: (address, name), sorted.
        code_spans: (start, end) of the instructions.
    """

    segments: tuple[tuple[int, bytes], ...]
    functions: tuple[tuple[int, str], ...]
    code_spans: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        """First address after what is loaded."""
        return max((address + len(data) for address, data in self.segments), default=0)

    def function_at(self, address: int) -> tuple[str, int]:
        """The function that code belongs to, and the bytes from its start; ("", address) before the first one."""
        at = bisect_right(self.functions, (address, "\uffff")) - 1
        start, name = self.functions[at] if at >= 0 else (0, "")
        return name, address - start


def read_image(elf: Path) -> Image:
    """Read an ELF file that `elf_symbols` has accepted."""
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        loaded = [segment for segment in file.iter_segments("PT_LOAD") if segment["p_filesz"]]
        segments = tuple((segment["p_paddr"], segment.data()) for segment in loaded)
        tables = (section for section in file.iter_sections() if isinstance(section, SymbolTableSection))
        symbols = [symbol for table in tables for symbol in table.iter_symbols()]
        spans = tuple(
            span
            for index, section in enumerate(file.iter_sections())
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR
            for span in _code_spans(section, [s for s in symbols if s["st_shndx"] == index])
        )
    functions = {(s["st_value"] & ~1, s.name) for s in symbols if s["st_info"]["type"] == "STT_FUNC"}
    return Image(segments, tuple(sorted(functions)), spans)


def _code_spans(section: Section, symbols: Sequence[Symbol]) -> list[tuple[int, int]]:
    """(start, end) of the instructions of a section, by the mapping symbols (ELF for the Arm Architecture)."""
    kinds = sorted((s["st_value"], s.name[:2]) for s in symbols if s.name.split(".")[0] in ("$t", "$d"))
    ends = [start for start, _ in kinds[1:]] + [section["sh_addr"] + section["sh_size"]]
    return [(start, end) for (start, kind), end in zip(kinds, ends, strict=True) if kind == "$t" and end > start]
