"""Cores that execute one instruction after the other: a cost for each, and what its neighbour changes."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from conformance.timing.core import Block, CoreModel, Cost
from conformance.timing.instructions import Instruction, Kind
from refsim.errors import EmulationError


@dataclass
class Progress:
    """Where the pipeline is.

    Attributes:
        time: cycles until the last instruction was done.
        dependency: of them, those in which an instruction waited.
        last: the instruction before, or None after a refill.
        float_free: time at which the FPU has finished a division that runs on behind other instructions.
    """

    time: int = 0
    dependency: int = 0
    last: Instruction | None = None
    float_free: int = 0


class SingleIssueModel(CoreModel):
    """A pipeline that issues in order, one at a time; a subclass holds the tables.

    Attributes:
        cycles: of each kind of instruction, where nothing else about it matters.
    """

    mispredict = 0
    cycles: ClassVar[Mapping[Kind, int]]

    def cost(self, before: Block | None, block: Block) -> Cost:
        """See `CoreModel.cost`. What `before` leaves behind is found by executing it first.

        Raises:
            EmulationError: the core has no such instruction.
        """
        progress = Progress()
        refill = 0
        if before is not None:
            for instruction in before.instructions:
                self._execute(progress, instruction)
            if block.start != before.end:
                refill = self.refill(before.instructions[-1])
                progress.last = None
        start, waited = progress.time, progress.dependency
        progress.time += refill
        for instruction in block.instructions:
            self._execute(progress, instruction)
        return Cost(progress.time - start, progress.dependency - waited, refill)

    @abstractmethod
    def refill(self, branch: Instruction) -> int:
        """Cycles to refill the pipeline after a taken branch."""

    def own(self, instruction: Instruction, last: Instruction | None) -> int:
        """Cycles of an instruction that need not wait, the refill after it excluded.

        Args:
            instruction: the instruction.
            last: the one before it, or None where a branch was taken.
        """
        if instruction.kind not in self.cycles:
            raise EmulationError(
                f"`{instruction.text}` at {instruction.address:#010x} is no instruction of a {self.name.title()}"
            )
        return self.cycles[instruction.kind]

    def wait(self, instruction: Instruction, progress: Progress) -> int:
        """Cycles for which an instruction waits for operands or a unit."""
        return 0

    def _execute(self, progress: Progress, instruction: Instruction) -> None:
        waits = self.wait(instruction, progress)
        progress.time += waits + self.own(instruction, progress.last)
        progress.dependency += waits
        progress.last = instruction
