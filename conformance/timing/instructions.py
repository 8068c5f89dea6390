"""Thumb instructions as the timing models see them: what kind, what is read and written.

Capstone names each instruction and its operands; what it says about reads and writes is incomplete for Arm (the source
of SSAT, the accumulators of SMLAL and the registers of VLDM are missing), so the roles of operands follow from tables
here, written from the ARMv7-M and ARMv8-M Architecture Reference Manuals (DDI 0403, section A7.7; DDI 0553, part C2).
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import capstone
from capstone import arm

from refsim.errors import EmulationError


class Kind(Enum):
    """What an instruction keeps busy; each has its row in the cores' timing tables."""

    ALU = "alu"  # moves, arithmetic, logic, compares, extends without rotation-and-SIMD, bit fields, CLZ, REV
    SHIFT = "shift"  # stand-alone shifts and rotations, and ALU operations or extends with a shifted operand
    SIMD = "simd"  # DSP extension: SXTB16, SXTAB, SXTAB16, PKHBT, SADD16, QADD..., SEL, USAD8, USADA8; also SSAT, USAT
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
    NOP = "nop"  # hints: NOP, YIELD, WFI, PLD...; CLREX
    BARRIER = "barrier"  # DSB, DMB, ISB
    STATUS = "status"  # MRS, MSR, CPS; SVC, BKPT and UDF, whose exception is no part of the models
    FLOAT = "float"  # VADD, VSUB, VMUL, VCVT, VMOV, VCMP...
    FLOAT_MULTIPLY_ACCUMULATE = "float multiply-accumulate"  # VMLA, VFMA
    FLOAT_DIVIDE = "float divide"  # VDIV, VSQRT
    FLOAT_LOAD = "float load"  # VLDR, VLDM, VPOP
    FLOAT_STORE = "float store"  # VSTR, VSTM, VPUSH


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded Thumb instruction.

    Registers are "r0" to "r12", "sp", "lr", "pc" where it is written, "s0" to "s31" (a double register is its two
    halves), "flags" for N, Z, C and V of APSR, "ge" for its SIMD flags, "q" for saturation, and "fpscr".

    Attributes:
        address: where it lies.
        size: 2 or 4 bytes.
        mnemonic: lower case, without condition, width, data type and S suffix: "ldrsb", "smlad", "add", "vadd", "it".
        text: as a disassembler prints it.
        kind: what it keeps busy.
        reads: registers it needs, those below included; "flags" where it is conditional or takes the carry.
        writes: registers it sets, a written-back base included.
        address_reads: those of `reads` that form an address.
        accumulator: those of `reads` that a multiply adds to.
        shifted_reads: those of `reads` that pass the shifter before the operation, as r2 in ADD r0, r1, r2, LSL #3 and
            r1 in SXTB16 r0, r1, ROR #8; none of a stand-alone shift, which is the operation.
        base_write_back: the base register, where the access writes it back.
        words: registers loaded or stored, a double register being two; 0 where memory is not touched.
        register_offset: the address is a sum of two registers.
        pc_relative: a literal load.
        conditional: executed on a condition, of its own (CBZ and CBNZ included) or of an IT block around it.
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


def decode(code: bytes, address: int, *, it_state: int = 0) -> tuple[Instruction, ...]:
    """Decode Thumb code of ARMv6-M, ARMv7E-M or ARMv8-M, with or without FPU.

    Args:
        code: instructions one after the other, without data between them.
        address: of the first.
        it_state: ITSTATE before the first, as in xPSR: 0 outside an IT block. Code that begins inside one is decoded by
            it, since conditions and flag setting depend on it; see `it_state_after`.

    Returns:
        Every instruction, in order.

    Raises:
        EmulationError: some bytes are no instruction of an M-profile core.
    """
    # IT's low byte is the ITSTATE it sets (ARMv7-M ARM, section A7.7.38), so an IT in front of the code restores it.
    lead = bytes([it_state, 0xBF]) if it_state & 0xF else b""
    found = [_instruction(i) for i in _disassembler().disasm(lead + code, address - len(lead))][len(lead) // 2 :]
    end = sum(i.size for i in found)
    if end != len(code):
        found_bytes = code[end : end + 4].hex(" ")
        raise EmulationError(f"{found_bytes} at {address + end:#010x} is no instruction that the timing models know")
    return tuple(found)


def it_state_after(code: bytes, it_state: int = 0) -> int:
    """ITSTATE after straight-line code: 0 where no IT block reaches beyond its end.

    Args:
        code: as for `decode`.
        it_state: ITSTATE before it.
    """
    at = 0
    while at + 1 < len(code):
        low, high = code[at], code[at + 1]
        advanced = it_state & 0xE0 | it_state << 1 & 0x1F if it_state & 0x7 else 0  # ARMv7-M ARM, A7.3.3: ITAdvance()
        it_state = low if high == 0xBF and low & 0xF else advanced
        at += 4 if high >> 3 >= 0x1D else 2
    return it_state


def _expand(text: str) -> frozenset[str]:
    """Mnemonics of a list in which `x{a,b}` stands for xa and xb; an empty alternative leaves x."""
    names: set[str] = set()
    for word in text.split():
        variants = [""]
        for part in word.replace("}", "{").split("{"):
            variants = [v + choice for v in variants for choice in part.split(",")]
        names.update(variants)
    return frozenset(names)


_SETS_GE = _expand("{s,u}{add,sub}{8,16} {s,u}{asx,sax}")
_SETS_Q = _expand("q{add,sub,dadd,dsub} {s,u}sat{,16} smla{b,t}{b,t} smlaw{b,t} smlad{,x} smlsd{,x} smuad{,x}")
_SHIFTS = _expand("lsl lsr asr ror rrx")
_MNEMONICS = {
    Kind.ALU: _expand(
        "mov mvn movw movt add sub rsb adc sbc and orr orn eor bic cmp cmn tst teq adr {s,u}xt{b,h} {s,u}bfx bfi bfc "
        "clz rbit rev rev16 revsh"
    ),
    Kind.SHIFT: _SHIFTS,
    Kind.SIMD: _SETS_GE
    | _expand(
        "{q,sh,uq,uh}{add,sub}{8,16} {q,sh,uq,uh}{asx,sax} q{add,sub,dadd,dsub} {s,u}sat{,16} sel usad8 usada8 "
        "pkh{bt,tb} {s,u}xtb16 {s,u}xta{b,h,b16}"
    ),
    Kind.MULTIPLY: _expand("mul smul{b,t}{b,t} smulw{b,t} smuad{,x} smusd{,x} smmul{,r}"),
    Kind.MULTIPLY_ACCUMULATE: _expand("mla mls smla{b,t}{b,t} smlaw{b,t} smlad{,x} smlsd{,x} smmla{,r} smmls{,r}"),
    Kind.LONG_MULTIPLY: _expand("{s,u}mull"),
    Kind.LONG_MULTIPLY_ACCUMULATE: _expand("{s,u}mlal smlal{b,t}{b,t} smlald{,x} smlsld{,x} umaal"),
    Kind.DIVIDE: _expand("{s,u}div"),
    Kind.LOAD: _expand("ldr{,b,h,sb,sh}{,t} ldrex{,b,h} lda{,b,h,ex,exb,exh}"),
    Kind.LOAD_DUAL: _expand("ldrd"),
    Kind.LOAD_MULTIPLE: _expand("ldm{,ia,db} pop"),
    Kind.STORE: _expand("str{,b,h}{,t} strex{,b,h} stl{,b,h,ex,exb,exh}"),
    Kind.STORE_DUAL: _expand("strd"),
    Kind.STORE_MULTIPLE: _expand("stm{,ia,db} push"),
    Kind.BRANCH: _expand("b cbz cbnz"),
    Kind.CALL: _expand("bl blx blxns"),
    Kind.INDIRECT_BRANCH: _expand("bx bxns tbb tbh"),
    Kind.IT: _expand("it"),
    Kind.NOP: _expand("nop yield wfe wfi sev sevl hint dbg csdb clrex pld pldw pli"),
    Kind.BARRIER: _expand("dsb dmb isb ssbb pssbb sb"),
    Kind.STATUS: _expand("mrs msr cps cpsie cpsid svc bkpt udf sg tt{,t,a,at}"),
    Kind.FLOAT: _expand(
        "vmov vmrs vmsr vadd vsub vmul vnmul vneg vabs vcmp vcmpe vcvt{,r,b,t,a,m,n,p} vrint{a,m,n,p,r,x,z} "
        "v{max,min}nm vsel{eq,ge,gt,vs}"
    ),
    Kind.FLOAT_MULTIPLY_ACCUMULATE: _expand("vmla vmls vnmla vnmls vfma vfms vfnma vfnms"),
    Kind.FLOAT_DIVIDE: _expand("vdiv vsqrt"),
    Kind.FLOAT_LOAD: _expand("vldr vldm{,ia,db} vpop"),
    Kind.FLOAT_STORE: _expand("vstr vstm{,ia,db} vpush"),
}
_KINDS = {mnemonic: kind for kind, mnemonics in _MNEMONICS.items() for mnemonic in mnemonics}

_LOADS = {Kind.LOAD, Kind.LOAD_DUAL, Kind.LOAD_MULTIPLE, Kind.FLOAT_LOAD}
_STORES = {Kind.STORE, Kind.STORE_DUAL, Kind.STORE_MULTIPLE, Kind.FLOAT_STORE}
_LONG = {Kind.LONG_MULTIPLY, Kind.LONG_MULTIPLY_ACCUMULATE}
_JUMPS = {Kind.BRANCH, Kind.CALL, Kind.INDIRECT_BRANCH}
_BASE_FIRST = _expand("{,v}{ld,st}m{,ia,db}")
_ON_STACK = _expand("{,v}{push,pop}")
_COMPARES = _expand("cmp cmn tst teq")
_FLOAT_COMPARES = _expand("vcmp vcmpe")
_TAKES_CARRY = _expand("adc sbc rrx")
_SELECTS = _expand("vsel{eq,ge,gt,vs}")
_KINDS_WITHOUT_DESTINATION = _STORES | _JUMPS | {Kind.NOP, Kind.BARRIER, Kind.IT}
_WITHOUT_DESTINATION = _COMPARES | _FLOAT_COMPARES | _expand("msr")
_STORES_EXCLUSIVELY = _expand("strex{,b,h} stlex{,b,h}")  # the first operand receives the status
_CONDITIONS = _expand("eq ne hs cs lo cc mi pl vs vc hi ls ge lt gt le")
_REGISTER_NAMES = {"sb": "r9", "sl": "r10", "fp": "r11", "ip": "r12", "apsr_nzcv": "flags"}


@functools.cache
def _disassembler() -> Any:
    mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM, mode)
    disassembler.detail = True
    return disassembler


def _base_mnemonic(printed: str, conditional: bool) -> tuple[str, bool]:
    """The mnemonic without its suffixes, and whether it had the S that sets the flags."""
    name = printed.partition(".")[0]
    if name.startswith("it"):
        return "it", False
    if conditional and name[-2:] in _CONDITIONS:
        name = name[:-2]
    name = {"addw": "add", "subw": "sub"}.get(name, name)
    if name not in _KINDS and name.endswith("s"):
        return name[:-1], True
    return name, False


def _registers(found: Any, number: int) -> tuple[str, ...]:
    """One register by its own name; a double register as its halves."""
    name = str(found.reg_name(number))
    if name[0] == "d":
        return f"s{2 * int(name[1:])}", f"s{2 * int(name[1:]) + 1}"
    return (_REGISTER_NAMES.get(name, name),)


def _union(groups: Iterable[Sequence[str]]) -> set[str]:
    return {name for group in groups for name in group}


def _instruction(found: Any) -> Instruction:
    """What capstone found, in the timing models' terms."""
    is_it = found.id == arm.ARM_INS_IT
    conditional = found.cc != arm.ARM_CC_AL and not is_it
    mnemonic, sets_flags = _base_mnemonic(found.mnemonic, conditional)
    text = f"{found.mnemonic} {found.op_str}".strip()
    if mnemonic not in _KINDS:
        raise EmulationError(f"`{text}` at {found.address:#010x} is no instruction that the timing models know")
    kind = _KINDS[mnemonic]

    operands = [op for op in found.operands if op.type == arm.ARM_OP_REG]
    registers = [_registers(found, op.reg) for op in operands]
    memory = next((op.mem for op in found.operands if op.type == arm.ARM_OP_MEM), None)
    base = index = None
    if memory is not None:
        base, index = ((_registers(found, r)[0] if r else None) for r in (memory.base, memory.index))
    elif mnemonic in _BASE_FIRST:
        base, registers, operands = registers[0][0], registers[1:], operands[1:]
    elif mnemonic in _ON_STACK:
        base = "sp"
    written_back = base if found.writeback or mnemonic in _ON_STACK else None
    address_reads = {name for name in (base, index) if name is not None} - {"pc"}

    # Which operands are destinations: the first ones.
    if kind in (Kind.LOAD_MULTIPLE, Kind.FLOAT_LOAD):
        count = len(registers)
    elif mnemonic in _STORES_EXCLUSIVELY:
        count = 1
    elif kind in _KINDS_WITHOUT_DESTINATION or mnemonic in _WITHOUT_DESTINATION:
        count = 0
    elif kind in _LONG or kind is Kind.LOAD_DUAL or (mnemonic == "vmov" and _moves_pair(registers)):
        count = 2
    else:
        count = 1
    destinations, sources = registers[:count], registers[count:]
    writes, reads = _union(destinations), _union(sources) | address_reads
    if kind not in _LOADS:  # ADDS r0, #1, BFI, MOVT and VFMA also read their destination
        reads |= _union(r for r, op in zip(destinations, operands, strict=False) if op.access & capstone.CS_AC_READ)

    accumulator: set[str] = set()
    if kind is Kind.MULTIPLY_ACCUMULATE:
        accumulator = set(registers[-1])
    elif kind in (Kind.LONG_MULTIPLY_ACCUMULATE, Kind.FLOAT_MULTIPLY_ACCUMULATE):
        accumulator = set(writes)
    shifted = _union(r for r, op in zip(registers, operands, strict=True) if op.shift.type)
    if kind is Kind.ALU and shifted:
        kind = Kind.SHIFT

    reads |= accumulator | _status_reads(mnemonic, found.op_str)
    writes |= _status_writes(mnemonic, found.op_str, sets_flags)
    if conditional:
        reads.add("flags")
    if written_back is not None:
        writes.add(written_back)
    if kind is Kind.CALL:
        writes.add("lr")
    branches = kind in _JUMPS or "pc" in writes
    if branches and kind in (Kind.ALU, Kind.SHIFT):
        kind = Kind.INDIRECT_BRANCH
    return Instruction(
        address=found.address,
        size=found.size,
        mnemonic=mnemonic,
        text=text,
        kind=kind,
        reads=frozenset(reads - {"pc"}),
        writes=frozenset(writes | ({"pc"} if branches else set())),
        address_reads=frozenset(address_reads),
        accumulator=frozenset(accumulator),
        shifted_reads=frozenset(shifted),
        base_write_back=written_back,
        words=_words(mnemonic, kind, registers),
        register_offset=index is not None,
        pc_relative=base == "pc" and kind in _LOADS,
        conditional=conditional or mnemonic in ("cbz", "cbnz"),
        branches=branches,
    )


def _moves_pair(registers: Sequence[Sequence[str]]) -> bool:
    """VMOV r0, r1, d0, VMOV r0, r1, s0, s1 or VMOV s0, s1, r0, r1, but not VMOV d0, r0, r1."""
    return len(registers) == 4 or (len(registers) == 3 and len(registers[2]) == 2)


def _words(mnemonic: str, kind: Kind, registers: Sequence[Sequence[str]]) -> int:
    if mnemonic in ("tbb", "tbh") or kind in (Kind.LOAD, Kind.STORE):
        return 1
    return len(_union(registers)) if kind in _LOADS | _STORES else 0


def _status_reads(mnemonic: str, operands: str) -> set[str]:
    if mnemonic in _TAKES_CARRY or mnemonic in _SELECTS:
        return {"flags"}
    if mnemonic == "sel":
        return {"ge"}
    if mnemonic == "mrs" and "psr" in operands:
        return {"flags", "ge", "q"}
    return {"fpscr"} if mnemonic == "vmrs" else set()


def _status_writes(mnemonic: str, operands: str, sets_flags: bool) -> set[str]:
    writes = {"flags"} if sets_flags or mnemonic in _COMPARES else set()
    if mnemonic == "msr" and "psr" in operands:
        fields = operands.partition(",")[0].partition("_")[2]  # "nzcvq", "g" or "nzcvqg"
        writes = ({"flags", "q"} if fields != "g" else set()) | ({"ge"} if "g" in fields else set())
    if mnemonic in _SETS_GE:
        writes.add("ge")
    if mnemonic in _SETS_Q:
        writes.add("q")
    if mnemonic in _FLOAT_COMPARES:
        writes.add("fpscr")
    return writes
