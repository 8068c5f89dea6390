"""Which of the kernel calls that an operator can have is generated, by bytes and by time.

Time is what the predictor says for the target's core (`codegen.predictor.costs`), or `estimated` where there is no fit.
Bytes are those of the constants in flash, and those by which the call's scratch makes the arena larger. One rule serves
all: of the calls that take hardly more time than the fastest one, that with the fewest bytes. `Optimise` says how much
more time is allowed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from codegen.emit import KernelCall


class Optimise(StrEnum):
    """What kernel calls are chosen for."""

    SIZE = "size"
    """The fewest bytes."""

    SPEED = "speed"
    """The least time."""

    BALANCED = "balanced"
    """The fewest bytes among what takes little more than the least time; see `codegen.schedule` for all together."""


SLACK = {Optimise.SIZE: 1e9, Optimise.SPEED: 0.01, Optimise.BALANCED: 0.1}
"""Time that a call may take beyond the fastest one's, in its time; what differs by a hundredth no prediction tells
apart."""

SPARSE_COST = {False: {4: 0.9, 2: 1.2, 1: 1.6}, True: {4: 1.2, 2: 1.4, 1: 2.5}}
"""Time of a multiplication of a sparse kernel in those of the dense one, without and with the DSP extension, by block:
as measured at 40 to 50 % of zeros on a Cortex-M0+ and on M4 and M7."""


@dataclass(frozen=True)
class Costs:
    """How long kernel calls take.

    Attributes:
        source: where that is known from, in words.
        dsp: the core has the DSP extension.
        time: of a call, whose inputs and output have so many bytes, in one run; only ratios matter.
    """

    source: str
    dsp: bool
    time: Callable[[KernelCall, int], float]


def estimated(dsp: bool, why: str) -> Costs:
    """Costs without a predictor: multiplications, weighted by what one takes in a kernel of that kind.

    Args:
        dsp: the core has the DSP extension.
        why: there is no predictor, in words.
    """

    def time(call: KernelCall, _: int) -> float:
        if not call.sparse_block:
            return float(call.macs)
        known = SPARSE_COST[dsp]
        return call.work * known[max(block for block in known if block <= call.sparse_block)]

    return Costs(f"estimated from the number of multiplications, since {why}", dsp, time)


@dataclass(frozen=True)
class Candidate:
    """A kernel call that an operator can have.

    Attributes:
        call: the call.
        time: that it takes, see `Costs`.
    """

    call: KernelCall
    time: float


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        call: the call.
        time: that it takes, see `Costs`.
        reason: how it compares with what else there was, in words; empty where there was nothing else.
    """

    call: KernelCall
    time: float
    reason: str


def choose(
    candidates: Sequence[Candidate], optimise: Optimise, arena_growth: Callable[[KernelCall], int] = lambda _: 0
) -> Choice:
    """Choose one of the calls that an operator can have.

    Args:
        candidates: at least one; the first of equals is taken.
        optimise: what for.
        arena_growth: bytes by which the scratch of a call makes the arena larger.
    """

    def size(candidate: Candidate) -> int:
        return candidate.call.constant_bytes + arena_growth(candidate.call)

    least = min(candidate.time for candidate in candidates)
    allowed = [candidate for candidate in candidates if candidate.time - least <= SLACK[optimise] * least]
    best = min(allowed, key=lambda candidate: (size(candidate), candidate.time))
    return Choice(best.call, best.time, _reason(best, candidates))


def _reason(best: Candidate, candidates: Sequence[Candidate]) -> str:
    """How the best one compares with the quickest of the other kind: sparse beside dense weights, and the reverse."""
    if "tile_rows" in best.call.params and len(candidates) > 1:
        return f"{best.call.params['tile_rows']} query rows at a time"
    others = [c for c in candidates if (c.call.sparse_block > 0) != (best.call.sparse_block > 0)]
    if not others:
        return ""
    other = min(others, key=lambda candidate: candidate.time)
    in_place = "in place, " if best.call.in_place and not all(c.call.in_place for c in candidates) else ""
    size, time = best.call.constant_bytes / other.call.constant_bytes - 1, best.time / other.time - 1
    return f"{in_place}bytes {size:+.0%}, time {time:+.0%} beside {other.call.encoding}"
