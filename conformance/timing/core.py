"""What a core's timing model is: cycles of a block of instructions, entered from the block before it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from conformance.timing.instructions import Instruction


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other, as the emulator translates them; only the last one may branch.

    Attributes:
        start: address of the first.
        size: bytes.
        instructions: in order; at least one.
    """

    start: int
    size: int
    instructions: tuple[Instruction, ...]

    @property
    def end(self) -> int:
        """First address after the block."""
        return self.start + self.size


@dataclass(frozen=True)
class Cost:
    """What executing a block costs where no memory makes it wait.

    Attributes:
        cycles: all of them, those below included.
        dependency: cycles in which nothing issued, since an operand or a unit was not ready.
        branch: cycles in which nothing issued, since the pipeline was refilled after a branch.
    """

    cycles: int
    dependency: int = 0
    branch: int = 0


@dataclass(frozen=True)
class Division:
    """Cycles of SDIV and UDIV: `minimum` up to `maximum`, one more for each `bits_per_cycle` bits of the quotient.

    A block's cost holds the minimum; the emulator's hook adds the rest, max(0, clz(divisor) - clz(dividend)) bits on
    magnitudes divided by `bits_per_cycle`, rounded up, and capped.
    """

    minimum: int
    maximum: int
    bits_per_cycle: int


class CoreModel(ABC):
    """Timing of one kind of core at zero wait states.

    Attributes:
        name: the core, as in `codegen.target.CORES`.
        division: None where the core has no divide instruction.
        mispredict: cycles lost by a wrongly predicted branch on a core with a dynamic predictor, which the hook adds;
            0 on a core without, whose `cost` holds the refill of every taken branch.
        unaligned: cycles that an unaligned load or store adds; the hook adds them where it watches accesses.
    """

    name: str
    division: Division | None
    mispredict: int
    unaligned: int

    @abstractmethod
    def cost(self, before: Block | None, block: Block) -> Cost:
        """Cycles of `block` when it is entered from `before`.

        Args:
            before: the block that ran just before, or None at the start of a call. `block` was reached by a taken
                branch where `block.start != before.end`.
            block: what is executed.

        Returns:
            The cost of `block` alone: what it adds to the time at which `before` had issued its last instruction,
            the refill after the branch that led here included.
        """
