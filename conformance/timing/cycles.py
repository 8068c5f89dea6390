"""Cycles by what they were spent on."""

from dataclasses import dataclass
from enum import Enum


class Timing(Enum):
    """What the emulator counts cycles of."""

    ZERO_WAIT = "zero-wait"
    """The core, with memory that never makes it wait."""
    MEMORY = "memory"
    """The core, and the target's flash, caches and RAM as its file describes them."""


@dataclass(frozen=True)
class Cycles:
    """Core cycles.

    Attributes:
        total: all of them, those below included.
        dependency: nothing issued, since an operand or a unit was not ready.
        branch: nothing issued, since the pipeline was refilled after a branch.
        fetch: instructions had not arrived; 0 where memory never waits.
        data: a load or store waited for memory; 0 where memory never waits.
    """

    total: int = 0
    dependency: int = 0
    branch: int = 0
    fetch: int = 0
    data: int = 0

    @property
    def issuing(self) -> int:
        """Cycles in which something issued."""
        return self.total - self.dependency - self.branch - self.fetch - self.data

    def __add__(self, other: "Cycles") -> "Cycles":
        return Cycles(
            self.total + other.total,
            self.dependency + other.dependency,
            self.branch + other.branch,
            self.fetch + other.fetch,
            self.data + other.data,
        )

    def __sub__(self, other: "Cycles") -> "Cycles":
        return Cycles(
            self.total - other.total,
            self.dependency - other.dependency,
            self.branch - other.branch,
            self.fetch - other.fetch,
            self.data - other.data,
        )


@dataclass(frozen=True)
class BlockExecutions:
    """What a block of instructions did while an operator ran.

    Attributes:
        mark: index of the mark, as the firmware passed it; None before the first one.
        start: address of the block.
        size: bytes.
        instructions: in one execution.
        executions: how often it ran.
        cycles: of all executions.
    """

    mark: int | None
    start: int
    size: int
    instructions: int
    executions: int
    cycles: Cycles
