"""Cortex-M4: cycles from its technical reference manual (ARM DDI 0439D).

Section 3.3.1, table 3-1, differs from the Cortex-M3's in its multiplier, which takes one cycle for every product; each
instruction of the DSP extension takes one as well (table 3-2). Section 3.3.2, "Load/store timings", is the Cortex-M3's.
The FPU's cycles are in section 7.2.3, table 7-1.
"""

from collections.abc import Mapping
from typing import ClassVar

from conformance.timing.cortex_m3 import CortexM3
from conformance.timing.instructions import Instruction, Kind
from conformance.timing.single_issue import Progress

_FLOAT_DIVISION = 14
_FLOAT = {
    Kind.FLOAT,
    Kind.FLOAT_MULTIPLY_ACCUMULATE,
    Kind.FLOAT_DIVIDE,
    Kind.FLOAT_LOAD,
    Kind.FLOAT_STORE,
}
_ARITHMETIC = {Kind.FLOAT, Kind.FLOAT_MULTIPLY_ACCUMULATE, Kind.FLOAT_DIVIDE}
_NO_ARITHMETIC = {"vmov", "vabs", "vneg", "vcmp", "vcmpe", "vmrs", "vmsr"}


class CortexM4(CortexM3):
    """Cortex-M3's pipeline with a single-cycle multiplier, the DSP extension and a single-precision FPU."""

    name = "cortex-m4"
    cycles: ClassVar[Mapping[Kind, int]] = {
        **CortexM3.cycles,
        Kind.MULTIPLY_ACCUMULATE: 1,
        Kind.LONG_MULTIPLY: 1,
        Kind.LONG_MULTIPLY_ACCUMULATE: 1,
        Kind.FLOAT: 1,
        Kind.FLOAT_MULTIPLY_ACCUMULATE: 3,
        Kind.FLOAT_DIVIDE: 1,  # 14, of which integer instructions behind it see one
    }

    def own(self, instruction: Instruction, last: Instruction | None) -> int:
        """Tables 3-1, 3-2 and 7-1 without refill."""
        if instruction.kind in (Kind.FLOAT_LOAD, Kind.FLOAT_STORE):
            return 1 + instruction.words  # VLDR, VSTR 2, of doubles 3; VLDM, VSTM, VPUSH, VPOP 1 + N
        if instruction.mnemonic == "vmov" and len(_core_registers(instruction)) == 2:
            return 2
        return super().own(instruction, last)

    def wait(self, instruction: Instruction, progress: Progress) -> int:
        """Beside addresses, table 7-1's notes.

        "Integer-only instructions following VDIVR or VSQRT instructions complete out-of-order": only the next FPU
        instruction waits for the division. "Floating-point arithmetic data processing instructions ... take one cycle
        longer if their result is consumed by the following instruction", but for the addend of a multiply-accumulate,
        which is consumed "one cycle later".
        """
        waits, last = super().wait(instruction, progress), progress.last
        if instruction.kind not in _FLOAT:
            return waits
        waits = max(waits, progress.float_free - progress.time)
        if last is not None and last.kind in _ARITHMETIC and last.mnemonic not in _NO_ARITHMETIC:
            waits += bool(last.writes & (instruction.reads - instruction.accumulator))
        if instruction.kind is Kind.FLOAT_DIVIDE:
            progress.float_free = progress.time + waits + _FLOAT_DIVISION
        return waits


def _core_registers(instruction: Instruction) -> set[str]:
    """Registers of an FPU instruction that are not the FPU's."""
    return {name for name in instruction.reads | instruction.writes if name[0] != "s"} - {"flags"}
