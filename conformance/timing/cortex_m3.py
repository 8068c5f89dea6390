"""Cortex-M3: cycles from its technical reference manual (ARM DDI 0337I).

Section 3.3.1, table 3-1, "Cortex-M3 instruction set summary", gives each instruction's cycles at zero wait states, and
section 3.3.2, "Load/store timings", how neighbours change them. Where the manual leaves a range, one value is taken:

- P, the refill of the pipeline, is "1 to 3 depending on the alignment and width of the target instruction, and whether
  the processor manages to speculate the address early". 2 after every branch, but 3 where PC comes from memory: section
  3.3.2 counts "three cycles for the pipeline reload" after LDR to PC, TBB and TBH.
- SMULL and UMULL take 3 to 5 cycles, SMLAL and UMLAL 4 to 7, ending early for small values: the most is taken, since
  the operands of requantisation are large.
- SDIV and UDIV: see `CortexM3.division`.
- A literal load "might add a cycle because of contention with the fetch unit": none is added.
- IT "can be folded onto the preceding 16-bit Thumb instruction, enabling execution in zero cycles": it takes its one
  cycle, as in the model behind the peers' figures.
"""

from collections.abc import Mapping
from typing import ClassVar

from conformance.timing.core import Division
from conformance.timing.instructions import Instruction, Kind
from conformance.timing.single_issue import Progress, SingleIssueModel

_REFILL = 2
_REFILL_FROM_MEMORY = 3
_MULTIPLE = {Kind.LOAD_DUAL, Kind.LOAD_MULTIPLE, Kind.STORE_DUAL, Kind.STORE_MULTIPLE}
_FROM_MEMORY = {Kind.LOAD, Kind.LOAD_MULTIPLE}
_DATA_PROCESSING = {
    Kind.ALU,
    Kind.SHIFT,
    Kind.SIMD,
    Kind.MULTIPLY,
    Kind.MULTIPLY_ACCUMULATE,
    Kind.LONG_MULTIPLY,
    Kind.LONG_MULTIPLY_ACCUMULATE,
    Kind.DIVIDE,
}


class CortexM3(SingleIssueModel):
    """Three-stage pipeline without branch prediction, whose loads and stores overlap.

    Attributes:
        division: 2 to 12 cycles, "early termination ... based on the number of leading ones and zeroes in the input
            operands" (table 3-1). How is not said; 3 bits of the quotient a cycle span that range. The model behind the
            peers' figures takes a flat 6 cycles, which is this one's result for quotients of 10 to 12 bits.
        unaligned: section 3.3.2: one cycle for a halfword at an odd address and for a word at an odd halfword (the two
            for a word at an odd address are not told apart).
    """

    name = "cortex-m3"
    division = Division(minimum=2, maximum=12, bits_per_cycle=3)
    unaligned = 1
    cycles: ClassVar[Mapping[Kind, int]] = {
        Kind.ALU: 1,
        Kind.SHIFT: 1,
        Kind.SIMD: 1,  # SSAT and USAT are all that an M3 has of them
        Kind.MULTIPLY: 1,
        Kind.MULTIPLY_ACCUMULATE: 2,
        Kind.LONG_MULTIPLY: 5,
        Kind.LONG_MULTIPLY_ACCUMULATE: 7,
        Kind.DIVIDE: 2,
        Kind.BRANCH: 1,
        Kind.CALL: 1,
        Kind.INDIRECT_BRANCH: 1,
        Kind.IT: 1,
        Kind.NOP: 1,
        Kind.BARRIER: 1,  # DSB and DMB: 1 + B, "the minimum number of cycles is zero"
        Kind.STATUS: 1,
    }

    def own(self, instruction: Instruction, last: Instruction | None) -> int:
        """Table 3-1 without refill, and section 3.3.2."""
        kind, pipelined = instruction.kind, _pipelined(instruction, last)
        if kind is Kind.LOAD:
            # With write-back, the load never overlaps: the model of the peers' figures, more cautious than the manual.
            return 1 if pipelined and instruction.base_write_back is None else 2
        if kind is Kind.STORE:
            # "STR Rx,[Ry,#imm] is always one cycle"; STREX takes 2 (table 3-1).
            slow = instruction.register_offset or instruction.mnemonic.startswith("strex")
            return 2 if slow and not pipelined else 1
        if kind in _MULTIPLE:
            return 1 + instruction.words
        if instruction.mnemonic in ("tbb", "tbh"):
            return 3  # "two cycles for the load, one cycle for the add, and three cycles for the pipeline reload"
        if instruction.mnemonic == "isb":
            return 1 + _REFILL  # 1 + B, "equivalent to the number required for a pipeline refill"
        return super().own(instruction, last)

    def wait(self, instruction: Instruction, progress: Progress) -> int:
        """Section 3.3.2: an address dependent on the result of the instruction before stalls one cycle."""
        last = progress.last
        feeds = last is not None and last.kind in _DATA_PROCESSING and bool(last.writes & instruction.address_reads)
        return int(feeds and instruction.words > 0)

    def refill(self, branch: Instruction) -> int:
        """P of table 3-1."""
        from_memory = branch.kind in _FROM_MEMORY or branch.mnemonic in ("tbb", "tbh")
        return _REFILL_FROM_MEMORY if from_memory else _REFILL


def _pipelined(instruction: Instruction, last: Instruction | None) -> bool:
    """Section 3.3.2: does the address phase overlap an LDR just before, whose result it does not need?"""
    return last is not None and last.kind is Kind.LOAD and not last.writes & instruction.address_reads
