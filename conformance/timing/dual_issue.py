"""In-order issue of up to two instructions a cycle, simulated over two basic blocks.

Each core's model says what an instruction asks of the pipeline, as an `Issue`; the rules by which instructions wait and
pair are the same for all, and here.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from conformance.timing.core import Block, CoreModel, Cost
from conformance.timing.instructions import Instruction

_LONG_AGO = -1000, ""
_NUMBERS = {"sp": 13, "lr": 14, "pc": 15}


@dataclass(frozen=True, slots=True)
class Issue:
    """What an instruction asks of the pipeline; cycles count from the one in which it issues.

    Attributes:
        reads: Cycle in which an operand is taken: 0 for an ALU, where a result of the cycle before is just in time; -1
            where it is needed one cycle sooner, as for addresses; above 0 where it may come later, as for stored data.
        writes: Cycle in which a result is there to be taken by an ALU. What stays busy is a result as well: a unit's
            name, read by the instructions that have to wait for it.
        source: Where the results come from, for `late`.
        late: (register, source) for results that reach this operand one cycle later, since no path forwards them.
        units: What two instructions of one cycle cannot both use.
        cycles: Until the next instruction may issue, unless it issues together with this one.
        alone: Nothing issues together with it.
        older_only: It issues only as the first of two.
    """

    reads: Mapping[str, int] = field(default_factory=dict)
    writes: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    late: frozenset[tuple[str, str]] = frozenset()
    units: frozenset[str] = frozenset()
    cycles: int = 1
    alone: bool = False
    older_only: bool = False


class Pipeline:
    """What has issued so far, and when its results are there; drained at first.

    Attributes:
        end: First cycle in which another pair may issue.
        dependency: Cycles in which nothing issued, since an operand or a unit was not ready.
        branch: Cycles in which nothing issued, since the pipeline was refilled.
    """

    def __init__(self) -> None:
        self.end = self.dependency = self.branch = 0
        self._start = 0
        self._first: Issue | None = None  # of the newest cycle, while a second may join it
        self._ready: dict[str, tuple[int, str]] = {}

    def issue(self, new: Issue) -> None:
        """Let an instruction issue as soon as it can."""
        needed = max((self._arrival(register, new) - cycle for register, cycle in new.reads.items()), default=0)
        first = self._first
        if (
            first is not None
            and needed <= self._start
            and not (new.alone or new.older_only)
            and not first.units & new.units
        ):
            self._first = None
        else:
            self._start = max(self.end, needed)
            self.dependency += self._start - self.end
            self._first = None if new.alone else new
        self.end = max(self.end, self._start + new.cycles)
        for register, cycle in new.writes.items():
            self._ready[register] = self._start + cycle, new.source

    def refill(self, cycles: int, registers: Iterable[str]) -> None:
        """Continue at a branch's target `cycles` after the branch and the `registers` that decide on it are done."""
        known = max([self.end, *(self._ready.get(register, _LONG_AGO)[0] + 1 for register in registers)])
        self.branch += known + cycles - self.end
        self.end = known + cycles
        self._first = None

    def _arrival(self, register: str, new: Issue) -> int:
        cycle, source = self._ready.get(register, _LONG_AGO)
        return cycle + ((register, source) in new.late)


class InOrderModel(CoreModel):
    """A core whose instructions issue in order, up to two a cycle.

    A block is simulated after the block before it, which itself starts with a drained pipeline. What that leaves out,
    results still under way from before both and a pair that begins elsewhere, changes little: over CMSIS-NN's kernels
    the sum over all pairs of blocks is within 1 % of the whole trace simulated at once.
    """

    @abstractmethod
    def issue(self, instruction: Instruction) -> Issue:
        """What an instruction asks of the pipeline."""

    @abstractmethod
    def branch(self, pipeline: Pipeline, branch: Instruction) -> None:
        """Move `pipeline` on to the target of a taken `branch`."""

    def cost(self, before: Block | None, block: Block) -> Cost:
        """As in `CoreModel.cost`."""
        pipeline = Pipeline()
        if before is not None:
            self._run(pipeline, before)
        end, dependency, branch = pipeline.end, pipeline.dependency, pipeline.branch
        if before is not None and block.start != before.end:
            self.branch(pipeline, before.instructions[-1])
        self._run(pipeline, block)
        return Cost(pipeline.end - end, pipeline.dependency - dependency, pipeline.branch - branch)

    def _run(self, pipeline: Pipeline, block: Block) -> None:
        for instruction in block.instructions:
            pipeline.issue(self.issue(instruction))


def at(cycle: int, registers: Iterable[str]) -> dict[str, int]:
    """All `registers` in one cycle, for `Issue.reads` and `Issue.writes`."""
    return dict.fromkeys(registers, cycle)


def in_transfer_order(registers: Iterable[str]) -> list[str]:
    """Registers of a load or store multiple by number, which is the order of their addresses."""
    return sorted(registers, key=lambda name: _NUMBERS.get(name) or int(name[1:]))
