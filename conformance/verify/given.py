"""An image that somebody else linked, around a model's C: its own linker script, start-up code and variables.

Nothing of its start-up code runs, since that sets up peripherals that no emulator here has: initial values are put
where the start-up code would copy them, and the model is called with the image's own arena.
"""

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from codegen.target import Target
from conformance.emulator import CortexM
from conformance.timing.cycles import Timing
from conformance.toolchain import elf_symbols
from refsim.errors import DataError, ToolchainError

_MAP_LINE = re.compile(  # of GNU ld: 0x20000000 name; of LLD: address, load address, size, alignment, name
    r"^\s*(?:0x0*([0-9a-f]{1,8})|([0-9a-f]+)\s+[0-9a-f]+\s+[0-9a-f]+\s+\d+)\s+(\w+)(?:\s*=.*)?\s*$", re.MULTILINE
)
_STACK_TOPS = ("_estack", "__StackTop", "__stack", "__initial_sp")


def read_map(path: Path) -> dict[str, int]:
    """Addresses of symbols in a linker's map file, of GNU ld or LLD.

    Raises:
        DataError: the file is unreadable, or holds no symbols.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"map {path} cannot be read: {error.strerror}") from error
    found = {name: int(gnu or lld, 16) for gnu, lld, name in _MAP_LINE.findall(text)}
    if not found:
        raise DataError(f"{path} is no map of GNU ld or LLD: no line holds an address and a symbol")
    return found


def image_symbols(elf: Path, map_file: Path | None) -> dict[str, int]:
    """Symbols of an image: its own, and those of the map, where the image is stripped or lacks them.

    Raises:
        ToolchainError: there are none, neither in the image nor in a map.
        DataError: the image or the map is unreadable.
    """
    given = read_map(map_file) if map_file else {}
    try:
        own = elf_symbols(elf)
    except OSError as error:
        raise DataError(f"image {elf} cannot be read: {error.strerror}") from error
    except ToolchainError:
        if not given:
            raise
        own = {}
    return {**given, **own}


@dataclass(frozen=True)
class Given:
    """An image of the user's.

    Attributes:
        elf: the image.
        symbols: addresses by name, see `image_symbols`.
        run: name of the model's function.
        arena: name of the variable that is the model's arena.
    """

    elf: Path
    symbols: Mapping[str, int]
    run: str
    arena: str

    @property
    def missing(self) -> str:
        """What the image lacks to be run, and what to do; empty where it lacks nothing."""
        for what, name, option in (("function", self.run, "--run-symbol"), ("variable", self.arena, "--arena-symbol")):
            if name not in self.symbols:
                return f"{self.elf.name} has no {what} {name!r}: name it with {option}, or keep symbols or give --map"
        return ""


class GivenImage(CortexM):
    """A chip with an image of the user's.

    Only strict mode guards memory: the image's variables lie where its linker script puts them, without gaps.

    Args:
        target: the chip.
        given: the image.
        arena_bytes: size of the model's arena.
        strict: as for `CortexM`.
        timing: as for `CortexM`.
        pattern: as for `CortexM`.

    Raises:
        DataError: the image lacks the function or the variable.
        TargetError, ToolchainError: as for `CortexM`.
    """

    def __init__(
        self,
        target: Target,
        given: Given,
        arena_bytes: int,
        *,
        strict: bool = False,
        timing: Timing | None = None,
        pattern: int = 0xA5,
    ) -> None:
        if given.missing:
            raise DataError(given.missing)
        self._given, self._arena_bytes, self._chip = given, arena_bytes, target
        super().__init__(target, given.elf, strict=strict, timing=timing, pattern=pattern)

    def _symbols_of(self, elf: Path) -> dict[str, int]:
        """The image's symbols, with those that the base class works by."""
        data, given = self._chip.data, dict(self._given.symbols)
        start, end = _variables(elf, self._chip)
        top = next((given[name] for name in _STACK_TOPS if name in given), data.end) & ~7
        arena = given[self._given.arena]
        return given | {
            "tnf_stack_top": top,
            "tnf_stack_bottom": max(top - self._chip.stack_bytes, data.origin),
            "tnf_data_start": start,
            "tnf_bss_end": end,
            "tnf_arena": arena,
            "tnf_arena_end": arena + self._arena_bytes,
            "tnf_guard_bytes": 0,
            "tnf_exit": self._chip.code.end - 4,
        }

    def _start_up(self, system: mmap.mmap) -> None:
        """Put initial values and zeros where variables are, as the image's start-up code would."""
        for address, content in self._initial:
            self.write(address, content)

    def _load(self, elf: Path) -> int:
        with elf.open("rb") as stream:
            segments = [s for s in ELFFile(stream).iter_segments("PT_LOAD") if s["p_memsz"]]
            self._initial: list[tuple[int, bytes]] = [
                (s["p_vaddr"], s.data() + bytes(s["p_memsz"] - s["p_filesz"]))
                for s in segments
                if any(r.kind == "ram" and r.origin <= s["p_vaddr"] < r.end for r in self.target.memory)
            ]
        return super()._load(elf)

    def _guard(self) -> tuple[list[tuple[Any, bytes]], str]:
        return [], "none"


def _variables(elf: Path, target: Target) -> tuple[int, int]:
    """(first address, address after the last) of what the image keeps in its data region."""
    try:
        with elf.open("rb") as stream:
            spans = [
                (section["sh_addr"], section["sh_addr"] + section["sh_size"])
                for section in ELFFile(stream).iter_sections()
                if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_size"]
            ]
    except (OSError, ELFError) as error:
        raise ToolchainError(f"{elf} is no ELF file that can be read: {error}") from error
    inside = [span for span in spans if target.data.origin <= span[0] < target.data.end]
    if not inside:
        return target.data.origin, target.data.origin
    return min(start for start, _ in inside), max(end for _, end in inside)
