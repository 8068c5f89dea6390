"""Which line of C an instruction comes from, by the debugging information of an image."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from elftools.elf.elffile import ELFFile


class SourceLines:
    """The line table of an ELF file (DWARF, section 6.2), empty where it has none.

    Args:
        elf: the image.
    """

    def __init__(self, elf: Path) -> None:
        rows: list[tuple[int, str]] = []
        with elf.open("rb") as stream:
            dwarf = ELFFile(stream).get_dwarf_info()
            for unit in dwarf.iter_CUs():
                program = dwarf.line_program_for_CU(unit)
                if program is None:
                    continue
                files = program.header.file_entry
                first = 0 if program.header.version >= 5 else 1
                sequence: list[tuple[int, str]] = []
                for state in (entry.state for entry in program.get_entries() if entry.state is not None):
                    known = state.line and not state.end_sequence
                    name = files[state.file - first].name.decode() if known else ""
                    sequence.append((state.address, f"{Path(name).name}:{state.line}" if known else ""))
                    if state.end_sequence:
                        # The linker leaves the lines of functions that it has dropped, at address 0.
                        rows += sequence if sequence[0][0] else []
                        sequence = []
        rows.sort(key=lambda row: row[0])
        self._addresses = [address for address, _ in rows]
        self._places = [place for _, place in rows]

    def stretches(self) -> Iterator[tuple[int, int, str]]:
        """(first address, address after the last, line) of all code, in the order of addresses."""
        for (start, end), place in zip(pairwise(self._addresses), self._places, strict=False):
            if place and end > start:
                yield start, end, place

    def of(self, start: int, size: int) -> str:
        """The first line known of the code at `start`, such as "softmax.c:31"; empty where there is none."""
        first = max(bisect_right(self._addresses, start) - 1, 0)
        last = bisect_right(self._addresses, start + size - 1)
        return next((place for place in self._places[first:last] if place), "")
