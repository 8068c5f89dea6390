"""How deep the stack of an image can become: each function's own part, along the deepest chain of calls.

Own parts come from the compiler's account (-fstack-usage); those of functions that it did not compile, such as the
run-time library's, from their instructions. Calls come from the instructions of the linked image.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import capstone
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from conformance.emulator import CortexM

_CALL = re.compile(r"^blx?(\.w)?$")
_JUMP = re.compile(r"^b(eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)?(\.w|\.n)?$")
_COMPARE = re.compile(r"^cbn?z$")
_NUMBER = re.compile(r"#(-?(?:0x)?[0-9a-f]+)")


@dataclass(frozen=True)
class StackBound:
    """What the stack can need at most.

    Attributes:
        bytes: of the deepest chain of calls; None where there is no bound.
        chain: its functions, from the entry on.
        reason: why there is no bound; empty where there is.
        accounted: functions of which the compiler said how much they take.
        functions: that can be reached.
    """

    bytes: int | None
    chain: tuple[str, ...]
    reason: str
    accounted: int
    functions: int


@dataclass
class _Function:
    name: str
    address: int
    own: int = 0
    calls: set[int] = field(default_factory=set)
    jumps: set[int] = field(default_factory=set)  # to other functions, after its own part was given back
    indirect: bool = False
    dynamic: bool = False
    accounted: bool = False


def stack_bound(elf: Path, machine: CortexM, entry: str, usage: Mapping[str, int]) -> StackBound:
    """The most stack that a call of `entry` can take.

    A call through a pointer is taken to reach every function whose address lies in the image's data.

    Args:
        elf: the linked image.
        machine: with it in its flash.
        entry: name of the function.
        usage: bytes of functions by name, as `conformance.toolchain.stack_usage` gives them.
    """
    functions = _functions(elf, machine, usage)
    taken = _address_taken(machine, functions)
    starts, code_end = sorted(functions), machine.flash_free[0]
    done: dict[int, tuple[int, tuple[str, ...]]] = {}
    problem = ""

    def deepest(address: int, above: tuple[int, ...]) -> tuple[int, tuple[str, ...]]:
        nonlocal problem
        at = bisect_right(starts, address) - 1
        if at < 0 or address >= code_end:
            problem = problem or f"there is a call of {address:#010x}, where no function is"
            return 0, ()
        address, function = starts[at], functions[starts[at]]
        if address in above:
            problem = problem or f"{function.name} is recursive"
            return 0, (function.name,)
        if address in done:
            return done[address]
        if function.dynamic:
            problem = problem or f"{function.name} takes an amount of stack that is not known beforehand"
        further = [(function.own, target) for target in function.calls | (taken if function.indirect else set())]
        further += [(0, target) for target in function.jumps]
        best: tuple[int, tuple[str, ...]] = (function.own, ())
        for own, target in further:
            size, chain = deepest(target, (*above, address))
            best = max(best, (own + size, chain), key=lambda found: found[0])
        done[address] = (best[0], (function.name, *best[1]))
        return done[address]

    size, chain = deepest(machine.symbols[entry] & ~1, ())
    reached = [functions[address] for address in done]
    return StackBound(None if problem else size, chain, problem, sum(f.accounted for f in reached), len(reached))


def _functions(elf: Path, machine: CortexM, usage: Mapping[str, int]) -> dict[int, _Function]:
    """Every function of the image by address, with its own part and what it calls."""
    with elf.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        every = table.iter_symbols() if isinstance(table, SymbolTableSection) else ()
        symbols = [s for s in every if s["st_info"]["type"] == "STT_FUNC" and s["st_shndx"] != "SHN_UNDEF"]
        last_end = max(s["st_value"] + s["st_size"] for s in symbols)
        found = {int(s["st_value"]) & ~1: _Function(s.name, int(s["st_value"]) & ~1) for s in symbols}
    starts = sorted(found)
    spans = machine.code_spans
    ends = [*starts[1:], last_end]
    for start, end in zip(starts, ends, strict=True):  # code between functions, of libraries, belongs to the first
        pieces = [(max(low, start), min(high, end)) for low, high in spans if low < end and high > start]
        for low, high in pieces:
            _read_code(found[start], machine.read(low, high - low), low, end)
        function = found[start]
        said = usage.get(function.name, usage.get(re.sub(r"(\.(isra|part|cold|lto_priv)\.?\d*)+$", "", function.name)))
        if said is not None:
            function.own, function.accounted, function.dynamic = said, True, False
    return found


def _read_code(function: _Function, code: bytes, address: int, end: int) -> None:
    """Add what a piece of a function's code calls and takes."""
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    disassembler.skipdata = True
    for _, _, name, operands in disassembler.disasm_lite(code, address):
        number = _NUMBER.search(operands)
        if _CALL.match(name):
            function.indirect |= number is None
            # ARMv6-M has no other far jump than BL, so that one into the function itself is no call.
            if number and not function.address < int(number[1], 0) < end:
                function.calls.add(int(number[1], 0))
        elif _JUMP.match(name) or _COMPARE.match(name):
            target = int(number[1], 0) if number else function.address
            if not function.address <= target < end:
                function.jumps.add(target)
        elif name == "bx" and operands != "lr":
            function.indirect = True
        function.own += _taken(name, operands)
        function.dynamic |= re.match(r"(sub|add)s?(\.w)? (sp, )?sp, (sp, )?r\d", f"{name} {operands}") is not None


def _taken(name: str, operands: str) -> int:
    """Bytes by which an instruction moves the stack pointer down."""
    base = name.split(".", maxsplit=1)[0]
    if base in ("push", "vpush") or (base == "stmdb" and operands.startswith("sp!")):
        registers = operands[operands.index("{") + 1 : operands.index("}")].split(",")
        return sum(8 if register.strip()[0] == "d" else 4 for register in registers)
    number = _NUMBER.search(operands)
    if base in ("sub", "subw") and operands.startswith("sp,") and number:
        return int(number[1], 0)
    if base in ("str", "strd") and re.search(r"\[sp, #-\w+\]!$", operands) and number:
        return -int(number[1], 0)
    return 0


def _address_taken(machine: CortexM, functions: Mapping[int, _Function]) -> set[int]:
    """Functions whose address is a word of the image, the vector table's left out."""
    start, end = machine.target.code.origin, machine.flash_free[0]
    words = memoryview(machine.read(start, (end - start) // 4 * 4)).cast("I")
    return {word & ~1 for word in words[2:] if word & 1 and word & ~1 in functions}
