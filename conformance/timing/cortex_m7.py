"""Cortex-M7: in-order issue of two instructions a cycle, with branch prediction.

Arm publishes no cycle counts of this core. Units, latencies and the cycles in which operands are taken are those of
Arm's own contribution to LLVM (llvm/lib/Target/ARM: ARMScheduleM7.td, and the M7 part of ARMLatencyMutations.cpp), with
what was measured on STM32H7 chips where LLVM is silent ("pipeline cycle test" in github.com/jnk0le/random). The stages:
addresses and shifted operands in EX1, the ALUs and words from memory in EX2, products, bytes and halfwords in EX3.

A branch that goes where it was predicted costs its place in a pair and no more, and can issue together with the
instruction at its target; a wrong prediction is the emulator's hook to add.

Left out: that two loads can issue together, from an odd and an even word: one load or store issues a cycle; the ALU in
EX1, whose results an instruction of the same cycle can use; how instructions lie in the 64-bit words that are fetched;
the store buffer's length; that a conditional result is late for an instruction of another condition, too.
"""

from dataclasses import dataclass, replace

from conformance.timing.core import Division
from conformance.timing.dual_issue import InOrderModel, Issue, Pipeline, at, in_transfer_order
from conformance.timing.instructions import Instruction, Kind

_WORD, _PRODUCT, _CONDITIONAL = "word from memory", "product", "conditional result"  # of `Issue.source`
_SHIFTER, _MAC, _MEMORY, _BRANCH, _FPU = (frozenset({u}) for u in ("shifter", "mac", "memory", "branch", "fpu"))


@dataclass(frozen=True, slots=True)
class _Operation:
    """A row of the table for the ALUs: result's latency, whether operands are taken in EX1, units, slot."""

    latency: int = 1
    early: bool = False
    units: frozenset[str] = frozenset()
    older_only: bool = False


_PLAIN = _Operation()
_SHIFT = _Operation(units=_SHIFTER)
_FIRST_1 = _Operation(older_only=True)
_FIRST_2 = _Operation(latency=2, older_only=True)
_EARLY_0 = _Operation(latency=0, early=True, units=_SHIFTER, older_only=True)
_EARLY_1 = _Operation(latency=1, early=True, units=_SHIFTER, older_only=True)
_EARLY_2 = _Operation(latency=2, early=True, units=_SHIFTER, older_only=True)
_OPERATIONS = {
    mnemonic: operation
    for operation, mnemonics in (
        (_SHIFT, "lsl lsr asr ror rrx"),
        (_Operation(units=_SHIFTER, older_only=True), "bfi bfc"),
        (_EARLY_0, "rev rev16 revsh rbit"),
        (_EARLY_1, "sbfx ubfx pkhbt pkhtb sxtab sxtah sxtab16 uxtab uxtah uxtab16"),
        (_EARLY_2, "ssat ssat16 usat usat16 qdadd qdsub"),
        (_FIRST_1, "clz sxtb sxth uxtb uxth sxtb16 uxtb16 sel"),
        (_FIRST_1, "sadd16 sadd8 ssub16 ssub8 sasx ssax uadd16 uadd8 usub16 usub8 uasx usax"),
        (_FIRST_1, "shadd16 shadd8 shsub16 shsub8 shasx shsax uhadd16 uhadd8 uhsub16 uhsub8 uhasx uhsax"),
        (_FIRST_2, "qadd qsub qadd16 qadd8 qsub16 qsub8 qasx qsax uqadd16 uqadd8 uqsub16 uqsub8 uqasx uqsax"),
        (_FIRST_2, "usad8 usada8"),
    )
    for mnemonic in mnemonics.split()
}
_COMPARES = {"cmp", "cmn", "tst", "teq"}
_PART_LOADS = ("b", "h", "bt", "ht")  # how the mnemonics of byte and halfword loads end
_FLOAT_COMPARES = {"vcmp", "vcmpe"}
_FLOAT_SUMS = {"vadd", "vsub"}
_FLOAT_CYCLES = {  # of single and of double precision
    "vdiv": (16, 30),
    "vsqrt": (14, 30),
    **dict.fromkeys(("vmul", "vnmul"), (1, 5)),
    **dict.fromkeys(("vfma", "vfms", "vfnma", "vfnms"), (1, 7)),
    **dict.fromkeys(("vmla", "vmls", "vnmla", "vnmls"), (1, 8)),
}
_ADDER = "fpu's adder"


class CortexM7(InOrderModel):
    """Cortex-M7 at zero wait states.

    Attributes:
        division: as Arm publishes it of the related Cortex-R4 (Technical Reference Manual, DDI 0363, "Divide"):
            UDIV takes 3 cycles, SDIV 4, and one more for two bits of the quotient. Nothing else issues meanwhile.
        mispredict: LLVM's header says so, and it was measured where flags are set well before the branch (else 8).
        unaligned: measured of loads; a store waits in the store buffer instead.
    """

    name = "cortex-m7"
    division = Division(minimum=3, maximum=20, bits_per_cycle=2)
    mispredict = 6
    unaligned = 3

    def branch(self, pipeline: Pipeline, branch: Instruction) -> None:
        """As predicted: nothing to wait for."""

    def issue(self, instruction: Instruction) -> Issue:
        """The row of the table for an instruction; the result of a conditional one reaches others a cycle late."""
        row = self._row(instruction)
        if instruction.conditional:
            return replace(row, source=_CONDITIONAL)
        return replace(row, late=row.late | {(register, _CONDITIONAL) for register in row.reads})

    def _row(self, i: Instruction) -> Issue:
        match i.kind:
            case Kind.ALU | Kind.SIMD:
                return _operation(i, _OPERATIONS.get(i.mnemonic, _PLAIN))
            case Kind.SHIFT:
                return _shift(i)
            case Kind.MULTIPLY | Kind.MULTIPLY_ACCUMULATE | Kind.LONG_MULTIPLY | Kind.LONG_MULTIPLY_ACCUMULATE:
                return _multiply(i)
            case Kind.DIVIDE:
                late = frozenset((register, _WORD) for register in i.reads)
                cycles = self.division.minimum + (i.mnemonic == "sdiv")
                return Issue(at(0, i.reads), at(cycles, i.writes), late=late, cycles=cycles, alone=True)
            case Kind.LOAD | Kind.LOAD_DUAL | Kind.LOAD_MULTIPLE:
                return _load(i)
            case Kind.STORE | Kind.STORE_DUAL | Kind.STORE_MULTIPLE:
                return _store(i, taken=1)
            case Kind.BRANCH | Kind.CALL | Kind.INDIRECT_BRANCH:
                table = i.mnemonic in ("tbb", "tbh")
                reads = at(-1, i.address_reads)
                return Issue(reads, at(1, i.writes), units=_BRANCH, cycles=1 + table, alone=table)
            case Kind.IT | Kind.NOP:
                return Issue()
            case Kind.BARRIER | Kind.STATUS:
                return Issue(at(0, i.reads), at(3, i.writes), cycles=3, alone=True)
            case Kind.FLOAT_LOAD:
                return _load(i)
            case Kind.FLOAT_STORE:
                return _store(i, taken=2)
            case _:
                return _float(i)


def _operation(i: Instruction, row: _Operation) -> Issue:
    """Where one of two operands is shifted or rotated, only that one is taken in EX1."""
    early = (i.shifted_reads or i.reads - {"flags"}) if row.early else frozenset()
    reads = at(0, i.reads) | at(-1, early)
    return Issue(reads, at(row.latency, i.writes), units=row.units, older_only=row.older_only)


def _shift(i: Instruction) -> Issue:
    """A shift alone, an extend of a rotated register, or an operation whose second operand is shifted in EX1.

    A word from memory reaches the other operand of that operation late as well.
    """
    if i.mnemonic in _OPERATIONS:
        return _operation(i, _OPERATIONS[i.mnemonic])
    others = i.reads - i.shifted_reads
    writes = at(1, i.writes) | (at(2, i.writes) if i.mnemonic in _COMPARES else {})
    late = frozenset((register, _WORD) for register in others)
    return Issue(at(0, others) | at(-1, i.shifted_reads), writes, late=late, units=_SHIFTER)


def _multiply(i: Instruction) -> Issue:
    """One a cycle; accumulators are taken a cycle after the factors, words from memory late as factors."""
    factors = i.reads - i.accumulator
    late = frozenset((register, _WORD) for register in factors)
    return Issue(at(1, i.accumulator) | at(0, factors), at(2, i.writes), _PRODUCT, late, units=_MAC)


def _base(i: Instruction) -> dict[str, int]:
    """A written-back base comes from EX1: the next cycle may address with it, this one calculate."""
    return at(0, [i.base_write_back]) if i.base_write_back else {}


def _late_addresses(i: Instruction) -> frozenset[tuple[str, str]]:
    return frozenset((register, _PRODUCT) for register in i.address_reads)


def _load(i: Instruction) -> Issue:
    """Words can be used a cycle later, bytes and halfwords two; several registers come two a cycle, without a pair."""
    loaded = in_transfer_order(i.writes - {i.base_write_back})
    words = i.kind is not Kind.LOAD or not i.mnemonic.endswith(_PART_LOADS)
    latency = 1 if words else 2
    several = i.words > 1
    writes = {register: n // 2 * several + latency for n, register in enumerate(loaded)} | _base(i)
    reads = at(0, i.reads - i.address_reads) | at(-1, i.address_reads)
    source = _WORD if words else ""
    cycles = (i.words + 1) // 2
    return Issue(reads, writes, source, _late_addresses(i), _MEMORY, cycles, alone=several)


def _store(i: Instruction, taken: int) -> Issue:
    """Data is needed `taken` cycles later than by an ALU; several registers go two a cycle, without a pair."""
    data = i.reads - i.address_reads - {"flags"}
    reads = at(taken, data) | at(0, i.reads & {"flags"}) | at(-1, i.address_reads)
    writes = at(2, i.writes) | _base(i)
    return Issue(reads, writes, "", _late_addresses(i), _MEMORY, (i.words + 1) // 2, alone=i.words > 1)


def _float(i: Instruction) -> Issue:
    """Results after three cycles, sums of products later; what takes more than a cycle holds up what follows it.

    Sums of products use the adder in the cycles after their product, when it is not free for others.
    """
    double = ".f64" in i.text
    reads, writes = at(0, i.reads), at(3, i.writes)
    if i.mnemonic in ("vmrs", "vmsr"):
        return Issue(reads, at(1, i.writes), alone=True)
    if i.mnemonic == "vmov":
        pair = len((i.reads | i.writes) - {"flags"}) > 2 and not double
        return Issue(reads, writes, alone=pair, older_only=double)
    single_cycles, double_cycles = _FLOAT_CYCLES.get(i.mnemonic, (1, 1))
    cycles = double_cycles if double else single_cycles
    if i.kind is Kind.FLOAT_MULTIPLY_ACCUMULATE:
        fused = i.mnemonic.startswith("vf")
        reads |= at(2 if fused else 3, i.accumulator)
        writes = at(5 if fused else 6, i.writes) | {_ADDER: 4}
    elif i.kind is Kind.FLOAT_DIVIDE:
        writes = at(cycles, i.writes)
    elif i.mnemonic in _FLOAT_COMPARES:
        writes = at(0, i.writes)
    elif i.mnemonic in _FLOAT_SUMS:
        reads |= {_ADDER: 0}
    elif i.mnemonic.startswith("vsel"):
        reads |= {"flags": -1}
    return Issue(reads, writes, units=_FPU, cycles=cycles, older_only=double or i.mnemonic.startswith("vsel"))
