"""Cortex-M33: in-order issue of one instruction a cycle, and of a 16-bit branch, IT or NOP together with another.

Arm publishes no cycle counts of this core; its Technical Reference Manual (100230) says "limited dual-issue of common
16-bit instruction pairs". Which pairs, and the latencies, were measured on RP2350 chips ("pipeline cycle test" in
github.com/jnk0le/random): results of shifts in an operand, of extend-and-add and of multiplies take two cycles, words
from memory two, accumulators and stored data are needed a cycle later than other operands, and a taken branch refills
the pipeline for a cycle, or for two where the instruction it issues with sets its flags. There is no dynamic predictor.

Assumed, since nothing is published: other instructions of the DSP extension have their result in the next cycle;
divides, and the FPU's sums, divides and square roots, take as long as on the Cortex-M4; BX and a load of PC refill like
a branch once the address is there. Left out: that constants which are shifted bytes count as shifted operands, and how
instructions lie in the words that are fetched.
"""

from dataclasses import replace

from conformance.timing.core import Division
from conformance.timing.dual_issue import InOrderModel, Issue, Pipeline, at, in_transfer_order
from conformance.timing.instructions import Instruction, Kind

_REFILL = 1
_TWO_STAGES = {"sxtab", "sxtah", "sxtab16", "uxtab", "uxtah", "uxtab16"}
_JOINS = (Kind.BRANCH, Kind.IT, Kind.NOP)
_FPU = "fpu"


class CortexM33(InOrderModel):
    """Cortex-M33 at zero wait states."""

    name = "cortex-m33"
    division = Division(minimum=2, maximum=12, bits_per_cycle=3)
    mispredict = 0
    unaligned = 1

    def branch(self, pipeline: Pipeline, branch: Instruction) -> None:
        """Refill once the branch is done and what decides on it is there: flags, a register, a loaded address."""
        pipeline.refill(_REFILL, (branch.reads - branch.address_reads) | {"pc"})

    def issue(self, instruction: Instruction) -> Issue:
        """What was measured for an instruction, and how it pairs."""
        i = instruction
        narrow = i.size == 2
        return replace(_row(i), alone=not narrow, older_only=i.kind not in _JOINS)


def _row(i: Instruction) -> Issue:
    match i.kind:
        case Kind.BRANCH | Kind.CALL | Kind.INDIRECT_BRANCH:
            return Issue(at(0, i.address_reads), {"pc": 1} if i.words else {})  # TBB and TBH load their target
        case Kind.IT | Kind.NOP:
            return Issue()
        case Kind.SHIFT if i.shifted_reads:
            return Issue(at(0, i.reads), at(2, i.writes))
        case Kind.SIMD if i.mnemonic in _TWO_STAGES:
            return Issue(at(0, i.reads), at(2, i.writes))
        case Kind.MULTIPLY | Kind.MULTIPLY_ACCUMULATE | Kind.LONG_MULTIPLY | Kind.LONG_MULTIPLY_ACCUMULATE:
            cycles = 2 if "flags" in i.writes else 1
            return Issue(at(0, i.reads) | at(1, i.accumulator), at(2, i.writes), cycles=cycles)
        case Kind.DIVIDE:
            return Issue(at(0, i.reads), at(CortexM33.division.minimum, i.writes), cycles=CortexM33.division.minimum)
        case Kind.LOAD | Kind.LOAD_DUAL | Kind.LOAD_MULTIPLE | Kind.FLOAT_LOAD:
            loaded = in_transfer_order(i.writes - {i.base_write_back})
            writes = at(1, i.writes) | {r: n + (1 if r == "pc" else 2) for n, r in enumerate(loaded)}
            return Issue(at(0, i.reads) | _waits(i), writes, cycles=i.words)
        case Kind.STORE | Kind.STORE_DUAL | Kind.STORE_MULTIPLE | Kind.FLOAT_STORE:
            data = i.reads - i.address_reads - {"flags"}
            return Issue(at(0, i.reads) | at(1, data) | _waits(i), at(1, i.writes), cycles=i.words)
        case Kind.FLOAT | Kind.FLOAT_MULTIPLY_ACCUMULATE | Kind.FLOAT_DIVIDE:
            return _float(i)
        case _:
            return Issue(at(0, i.reads), at(1, i.writes))


def _waits(i: Instruction) -> dict[str, int]:
    """The FPU does nothing else while it multiplies and adds."""
    return {_FPU: 0} if i.kind in (Kind.FLOAT_LOAD, Kind.FLOAT_STORE) else {}


def _float(i: Instruction) -> Issue:
    reads = at(0, i.reads | {_FPU})
    if i.kind is Kind.FLOAT_MULTIPLY_ACCUMULATE:
        return Issue(reads, at(3, i.writes | {_FPU}))
    if i.kind is Kind.FLOAT_DIVIDE:
        return Issue(reads, at(14, i.writes | {_FPU}))
    return Issue(reads, at(2, i.writes))
