"""Addresses in words, for messages: the operator, function and instruction that ran, and what memory lies where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import capstone

from codegen.target import MemoryRegion
from conformance.emulator.image import Image

_FAR = 1 << 20


@dataclass(frozen=True)
class NamedRange:
    """A range of addresses that code may touch, and what it is called."""

    name: str
    start: int
    end: int
    writable: bool = True


class Locations:
    """What lies where on a chip.

    Args:
        image: in its flash.
        code: the flash.
        ranges: of memory.
        read: gives bytes of it, by address and size.
    """

    def __init__(
        self, image: Image, code: MemoryRegion, ranges: Sequence[NamedRange], read: Callable[[int, int], bytes]
    ) -> None:
        self._image, self._code, self._ranges, self._read = image, code, ranges, read
        self._disassembler = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)

    def last_instruction(self, block: int, size: int) -> int:
        """Address of the last instruction of a block."""
        instructions = self._disassembler.disasm_lite(self._read(block, size), block)
        return [int(instruction[0]) for instruction in instructions][-1]

    def instruction(self, pc: int) -> str:
        """Function and instruction at an address."""
        name, offset = self._image.function_at(pc)
        if not name or not self._code.origin <= pc < self._code.end:
            return f"code at {pc:#010x}"
        found = self._disassembler.disasm_lite(self._read(pc, min(4, self._code.end - pc)), pc)
        instruction = next(found, None)
        shown = f" `{instruction[2]} {instruction[3]}`".rstrip() if instruction else ""
        return f"{name}+{offset:#x}{shown} at {pc:#010x}"

    def near(self, address: int, size: int) -> str:
        """An access in terms of the nearest named range, with the words that join it to a sentence."""
        for r in self._ranges:
            if r.start <= address < r.end:
                across = "across the end of the " if address + size > r.end else "in the "
                return f"{across}{r.name}{'' if r.writable else ', which is read-only'}"

        def distance(r: NamedRange) -> int:
            return address - r.end + 1 if address >= r.end else r.start - address

        nearest = min(self._ranges, key=distance)
        if distance(nearest) > _FAR:
            return "where no memory is"
        if address >= nearest.end:
            return f"byte {distance(nearest)} past the end of the {nearest.name}"
        return f"{distance(nearest)} bytes below the {nearest.name}"
