"""Thumb instructions as the timing models see them: what kind, what is read and written."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an instruction keeps busy; each has its row in the cores' timing tables."""

    ALU = "alu"  # moves, arithmetic, logic, compares, extends without rotation-and-SIMD, bit fields, CLZ, REV
    SHIFT = "shift"  # stand-alone shifts and rotations, and ALU operations with a shifted operand
    SIMD = "simd"  # DSP-extension data processing: SXTB16, SXTAB16, PKHBT, SADD16, QADD..., SSAT, USAT, SEL
    MULTIPLY = "multiply"  # MUL, SMULxy, SMUAD, SMMUL: 32-bit result, no accumulator
    MULTIPLY_ACCUMULATE = "multiply-accumulate"  # MLA, MLS, SMLAxy, SMLAD, SMMLA
    LONG_MULTIPLY = "long multiply"  # SMULL, UMULL: 64-bit result
    LONG_MULTIPLY_ACCUMULATE = "long multiply-accumulate"  # SMLAL, UMLAL, SMLALD, UMAAL
    DIVIDE = "divide"  # SDIV, UDIV
    LOAD = "load"  # one register: LDR, LDRB, LDRSH, literal loads included
    LOAD_DUAL = "load dual"  # LDRD
    LOAD_MULTIPLE = "load multiple"  # LDM, POP
    STORE = "store"
    STORE_DUAL = "store dual"
    STORE_MULTIPLE = "store multiple"  # STM, PUSH
    BRANCH = "branch"  # B, conditional B, CBZ, CBNZ to an address in the instruction
    CALL = "call"  # BL, BLX
    INDIRECT_BRANCH = "indirect branch"  # BX, TBB, TBH, MOV to PC; LDR and POP to PC are loads with `branches`
    IT = "it"
    NOP = "nop"
    BARRIER = "barrier"  # DSB, DMB, ISB
    STATUS = "status"  # MRS, MSR, CPS
    FLOAT = "float"  # VADD, VSUB, VMUL, VCVT, VMOV, VCMP...
    FLOAT_MULTIPLY_ACCUMULATE = "float multiply-accumulate"  # VMLA, VFMA
    FLOAT_DIVIDE = "float divide"  # VDIV, VSQRT
    FLOAT_LOAD = "float load"  # VLDR, VLDM, VPOP
    FLOAT_STORE = "float store"  # VSTR, VSTM, VPUSH


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded Thumb instruction.

    Registers are "r0" to "r12", "sp", "lr", "pc", "s0" to "s31" (a double register is its two halves), and "flags" for
    APSR (N, Z, C, V; "ge" for the SIMD flags, "q" for saturation).

    Attributes:
        address: where it lies.
        size: 2 or 4 bytes.
        mnemonic: lower case, without condition, width and S suffix: "ldrsb", "smlad", "add".
        text: as a disassembler prints it.
        kind: what it keeps busy.
        reads: registers it needs, those below included; "flags" where it is conditional or takes the carry.
        writes: registers it sets, a written-back base included.
        address_reads: those of `reads` that form an address.
        accumulator: those of `reads` that a multiply adds to.
        shifted_reads: those of `reads` that pass the shifter before the operation, as in ADD r0, r1, r2, LSL #3.
        base_write_back: the base register, where the access writes it back.
        words: registers loaded or stored; 0 where memory is not touched.
        register_offset: the address is a sum of two registers.
        pc_relative: a literal load.
        conditional: executed on a condition, of its own or of an IT block around it.
        branches: it may write PC.
    """

    address: int
    size: int
    mnemonic: str
    text: str
    kind: Kind
    reads: frozenset[str]
    writes: frozenset[str]
    address_reads: frozenset[str] = frozenset()
    accumulator: frozenset[str] = frozenset()
    shifted_reads: frozenset[str] = frozenset()
    base_write_back: str | None = None
    words: int = 0
    register_offset: bool = False
    pc_relative: bool = False
    conditional: bool = False
    branches: bool = False
