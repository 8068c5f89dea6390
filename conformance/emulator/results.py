"""What a call of emulated code gives, what it may touch, and the error where it touches something else."""

from dataclasses import dataclass

from conformance.timing.cycles import Cycles
from refsim.errors import EmulationError


class StrayAccess(EmulationError):
    """Emulated code touched memory that it must not.

    Attributes:
        operator: Index of the operator that was running, or None where no mark was seen.
        kind: "read", "write" or "fetch".
        address: What was accessed.
        size: Bytes.
        pc: Address of the instruction.
        unaligned: The address is no multiple of the size, and the core traps that.
    """

    def __init__(
        self,
        message: str,
        *,
        operator: int | None,
        kind: str,
        address: int,
        size: int,
        pc: int,
        unaligned: bool = False,
    ) -> None:
        super().__init__(message)
        self.operator, self.kind, self.address, self.size, self.pc = operator, kind, address, size, pc
        self.unaligned = unaligned


@dataclass(frozen=True)
class Mark:
    """An operator started.

    Attributes:
        index: What the firmware passed to `tnf_trace_mark`.
        instructions: Instructions executed before it, since the call began.
        cycles: Cycles until then; None where only instructions are counted.
    """

    index: int
    instructions: int
    cycles: Cycles | None = None


@dataclass(frozen=True)
class CallResult:
    """What one call did.

    Attributes:
        r0: Low word of the result, unsigned.
        r1: High word of a 64-bit result.
        instructions: Instructions executed, the function's own return included.
        blocks: Translated blocks executed.
        marks: Operators in the order they started.
        stack_bytes: Deepest use of the stack, bytes, stack arguments included.
        guards: How stack and arena were guarded: "pages"; "canaries" where RAM is too small for guard pages, so that
            only writes past an end are noticed, after the call; "none" where it has no room for canaries either.
        cycles: Cycles that it took; None where only instructions are counted.
    """

    r0: int
    r1: int
    instructions: int
    blocks: int
    marks: tuple[Mark, ...]
    stack_bytes: int
    guards: str
    cycles: Cycles | None = None

    @property
    def operator_instructions(self) -> tuple[tuple[int, int], ...]:
        """(index, instructions) of each mark until the next one or the end, `tnf_trace_mark` itself included."""
        ends = [mark.instructions for mark in self.marks[1:]] + [self.instructions]
        return tuple((mark.index, end - mark.instructions) for mark, end in zip(self.marks, ends, strict=True))

    @property
    def operator_cycles(self) -> tuple[tuple[int, Cycles], ...]:
        """(index, cycles) of each mark until the next one or the end; empty where only instructions are counted."""
        timed = [(mark.index, mark.cycles) for mark in self.marks if mark.cycles is not None]
        ends = [cycles for _, cycles in timed[1:]] + ([self.cycles] if self.cycles is not None else [])
        return tuple((index, end - start) for (index, start), end in zip(timed, ends, strict=False))


@dataclass(frozen=True)
class OperatorRule:
    """What holds from the mark of an operator to the next mark.

    Attributes:
        readable, writable: (address, size) ranges that strict mode allows beside stack, variables and image.
        patches: (address, bytes) that the mark puts into memory.
    """

    readable: tuple[tuple[int, int], ...] = ()
    writable: tuple[tuple[int, int], ...] = ()
    patches: tuple[tuple[int, bytes], ...] = ()
