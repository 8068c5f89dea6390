"""The Python side of cycle accounting: what `native/timer.c` asks for once, and what it counted.

The hook knows edges: a block, entered from another one. It asks for the cost of an edge when it first meets it; from
then on the edge is counted at native speed. What is not known beforehand (branch prediction, the operands of
divisions, memory) the hook adds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from codegen.target import Target
from conformance.timing.core import Block, CoreModel
from conformance.timing.cycles import BlockExecutions, Cycles, Timing
from conformance.timing.instructions import Instruction, Kind, decode, it_state_after
from conformance.timing.memory import MemoryModel

_LOG_ENTRIES = 1 << 14
_CYCLES = ("total", "dependency", "branch", "fetch", "data")
_EXECUTION = np.dtype(
    [("mark", "<u4"), ("block", "<u4"), ("executions", "<u8")] + [(name, "<u8") for name in _CYCLES], align=True
)
_WEAKLY_NOT_TAKEN, _WEAKLY_TAKEN = 1, 2
_LOADS = (Kind.LOAD, Kind.LOAD_MULTIPLE)


class Timer:
    """Counts the cycles of one machine.

    Attributes:
        pointer: `tnf_timer *`, for the machine's probe.

    Args:
        native: The hooks' library.
        target: The chip.
        timing: What to count.
        model: The core's timing.
        read: Bytes of memory: (address, size).
    """

    def __init__(
        self,
        native: Any,
        target: Target,
        timing: Timing,
        model: CoreModel,
        read: Callable[[int, int], bytes],
    ) -> None:
        self._ffi = ffi = native.ffi
        self._lib = native.lib
        self._model = model
        self._read = read
        self._origin = target.code.origin
        self._blocks: list[tuple[Any, Block, int]] = []  # C's block, ours, and ITSTATE after it
        self._by_place: dict[tuple[int, int], int] = {}
        self._edges: list[Any] = []
        self._branches: dict[int, tuple[Instruction, Any]] = {}  # by their addresses
        self._drained: list[bytes] = []
        self._error: Exception | None = None
        self._memory = MemoryModel(ffi, target) if timing is Timing.MEMORY else None

        self._blocks_at = ffi.new("tnf_block *[]", target.code.size // 2)
        self._log = ffi.new("tnf_execution[]", _LOG_ENTRIES)
        self._callbacks = (
            ffi.callback("tnf_edge *(tnf_block *, uint32_t, uint32_t)", self._new_edge),
            ffi.callback("void()", self._drain),
        )
        timer = self.pointer = ffi.new("tnf_timer *")
        timer.blocks_at = self._blocks_at
        timer.new_edge, timer.drain = self._callbacks
        timer.log, timer.log_capacity = self._log, _LOG_ENTRIES
        timer.mispredict, timer.unaligned = model.mispredict, model.unaligned
        if model.division is not None:
            timer.division_extra = model.division.maximum - model.division.minimum
            timer.division_bits = model.division.bits_per_cycle
        if self._memory is not None:
            timer.memory = self._memory.pointer

    @property
    def watches_divisions(self) -> bool:
        """Whether the time of a division depends on its operands."""
        return bool(self.pointer.division_extra)

    @property
    def watches_accesses(self) -> bool:
        """Whether loads and stores are timed one by one."""
        return self._memory is not None

    def empty(self) -> None:
        """Empty the caches and let the branch predictor forget."""
        for last, branch in self._branches.values():
            branch.counter, branch.last_target = _first_guess(last), 0
        if self._memory is not None:
            self._memory.empty()
        self.pointer.now = 0

    def begin(self) -> None:
        """A call begins."""
        timer = self.pointer
        timer.previous = timer.current = self._ffi.NULL
        timer.log_count = 0
        timer.total = dict.fromkeys(_CYCLES, 0)
        self._drained.clear()

    def end(self, marks: int) -> None:
        """The call has ended, after so many marks.

        Raises:
            EmulationError: Code was met that the timing models do not know.
        """
        self._lib.tnf_settle(self.pointer, marks)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def edges(self) -> list[tuple[Block | None, Block]]:
        """Which blocks were entered from which, since the beginning; from None where a call began."""
        blocks = [block for _, block, _ in self._blocks]
        null = self._ffi.NULL
        return [(None if e.source == null else blocks[e.source.id], blocks[e.block.id]) for e in self._edges]

    def total(self) -> Cycles:
        """Of the call."""
        return as_cycles(self.pointer.total)

    def executions(self, marks: list[int]) -> list[BlockExecutions]:
        """What each block did in each operator of the last call, in the order of marks and addresses.

        Args:
            marks: the marks' indices, in the order in which they were met.
        """
        log = np.frombuffer(b"".join([*self._drained, self._logged()]), _EXECUTION)
        sums: dict[tuple[int | None, int], list[int]] = {}
        for mark, block, *counts in log.tolist():
            key = (marks[mark - 1] if mark else None, block)
            sums[key] = [a + b for a, b in zip(sums.get(key, [0] * len(counts)), counts, strict=True)]
        found = []
        for (index, number), (executions, *cycles) in sums.items():
            block = self._blocks[number][1]
            found.append(
                BlockExecutions(index, block.start, block.size, len(block.instructions), executions, Cycles(*cycles))
            )
        return sorted(found, key=lambda each: (-1 if each.mark is None else each.mark, each.start, each.size))

    def _new_edge(self, source: Any, address: int, size: int) -> Any:
        """What C calls for an edge that it has not met; an exception is kept for `end`."""
        try:
            return self._make_edge(source, address, size)
        except Exception as error:
            self._error = error
            return self._ffi.NULL

    def _make_edge(self, source: Any, address: int, size: int) -> Any:
        ffi = self._ffi
        known = self._blocks[source.id] if source != ffi.NULL else None
        number = self._by_place.get((address, size))
        if number is None:
            # A block that begins inside an IT block is only reached from the block before it.
            inside = known[2] if known is not None and known[1].end == address else 0
            number = self._add_block(address, size, inside)
        pointer, block, _ = self._blocks[number]
        cost = self._model.cost(known[1] if known is not None else None, block)
        edge = ffi.new("tnf_edge *", {"source": source, "block": pointer, "next": pointer.entered})
        edge.cost.total, edge.cost.dependency, edge.cost.branch = cost.cycles, cost.dependency, cost.branch
        pointer.entered = edge
        self._edges.append(edge)
        return edge

    def _add_block(self, address: int, size: int, it_state: int) -> int:
        code = self._read(address, size)
        block = Block(address, size, decode(code, address, it_state=it_state))
        pointer = self._ffi.new("tnf_block *", {"start": address, "size": size, "id": len(self._blocks)})
        pointer.branch = self._branch(block.instructions[-1])
        place = (address - self._origin) // 2
        pointer.other = self._blocks_at[place]
        self._blocks_at[place] = pointer
        self._by_place[address, size] = pointer.id
        self._blocks.append((pointer, block, it_state_after(code, it_state)))
        return int(pointer.id)

    def _branch(self, last: Instruction) -> Any:
        """The predictor's state of a branch, which several blocks may end with."""
        if not self._model.mispredict or not _predicted(last):
            return self._ffi.NULL
        if last.address not in self._branches:
            branch = self._ffi.new("tnf_branch *", {"next": last.address + last.size, "counter": _first_guess(last)})
            branch.conditional = last.conditional
            self._branches[last.address] = last, branch
        return self._branches[last.address][1]

    def _drain(self) -> None:
        self._drained.append(self._logged())

    def _logged(self) -> bytes:
        return bytes(self._ffi.buffer(self._log, self.pointer.log_count * _EXECUTION.itemsize))


def divisions(code: bytes, address: int) -> list[int]:
    """Addresses of SDIV and UDIV in straight-line code.

    Args:
        code: instructions, without data between them.
        address: of the first.
    """
    found, at = [], 0
    while at + 3 < len(code):
        if code[at + 1] == 0xFB and code[at] >> 4 in (0x9, 0xB) and code[at + 3] >> 4 == code[at + 2] >> 4 == 0xF:
            found.append(address + at)
        at += 4 if code[at + 1] >> 3 >= 0x1D else 2
    return found


def as_cycles(counted: Any) -> Cycles:
    """A `tnf_cycles`."""
    return Cycles(*(getattr(counted, name) for name in _CYCLES))


def _predicted(last: Instruction) -> bool:
    """Whether a block's last instruction is a branch that may be predicted wrongly.

    A return goes where the return stack says, and a branch without condition to an address in it is taken.
    """
    returns = "lr" in last.reads if last.mnemonic == "bx" else last.kind in _LOADS and "sp" in last.address_reads
    direct = last.kind is Kind.BRANCH or last.mnemonic == "bl"
    return last.branches and (last.conditional or not (returns or direct))


def _first_guess(last: Instruction) -> int:
    """The counter of a branch not met before: a branch backwards is guessed to be taken."""
    backwards = last.kind is Kind.BRANCH and int(last.text.rpartition("#")[2], 16) <= last.address
    return _WEAKLY_TAKEN if backwards else _WEAKLY_NOT_TAKEN
