"""Cortex-M0+: cycles from its technical reference manual (ARM DDI 0484C), section 3.3, table 3-1, zero wait states."""

from collections.abc import Mapping
from typing import ClassVar

from conformance.timing.instructions import Instruction, Kind
from conformance.timing.single_issue import SingleIssueModel


class CortexM0Plus(SingleIssueModel):
    """Two-stage pipeline, with the single-cycle multiplier.

    MULS takes 1 or 32 cycles, "depending on the multiplier implementation"; RP2040, STM32G0 and STM32L0 have the fast
    one. LDR and STR take 2 cycles, or 1 at the single-cycle I/O port, where no tensor lies.

    Attributes:
        unaligned: ARMv6-M traps unaligned accesses.
    """

    name = "cortex-m0plus"
    division = None
    unaligned = 0
    cycles: ClassVar[Mapping[Kind, int]] = {
        Kind.ALU: 1,
        Kind.SHIFT: 1,
        Kind.MULTIPLY: 1,
        Kind.LOAD: 2,
        Kind.STORE: 2,
        Kind.BRANCH: 1,  # conditional "1 or 2", unconditional 2: `refill` is what makes the difference
        Kind.CALL: 1,  # BLX 2
        Kind.INDIRECT_BRANCH: 1,  # BX, MOV PC, ADD PC: 2
        Kind.NOP: 1,
        Kind.BARRIER: 3,
        Kind.STATUS: 3,
    }

    def own(self, instruction: Instruction, last: Instruction | None) -> int:
        """Table 3-1 without refill."""
        match instruction.mnemonic:
            case "ldm" | "stm" | "push" | "pop":
                return 1 + instruction.words  # POP with PC 3+N
            case "bl":
                return 2  # BL 3
            case "cpsid" | "cpsie":
                return 1
            case "wfe" | "wfi":
                return 2
        return super().own(instruction, last)

    def refill(self, branch: Instruction) -> int:
        """What table 3-1 gives for a taken branch beyond an untaken one, and for POP with PC beyond POP."""
        return 2 if branch.kind is Kind.LOAD_MULTIPLE else 1
