"""The checks of one linked image under emulation. Each asks one question; `Subject` is what they examine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codegen.generate import GeneratedModel
from conformance.emulator import StrayAccess
from conformance.timing.cycles import Timing
from conformance.toolchain import Toolchain, stack_usage
from conformance.validation.band import error_band
from conformance.verify.image import Image, Mismatch, Run, first_difference, first_mismatch, wrong_steps
from conformance.verify.result import Check, Outcome
from conformance.verify.samples import Extreme, Sample
from conformance.verify.stack import stack_bound
from refsim.errors import EmulationError, ToolchainError

POISONS = (0xA5, 0x5A)
"""Bytes that memory holds before the runs that must agree; every bit differs."""


@dataclass(frozen=True)
class Answer:
    """What a check found; see `Check`."""

    outcome: Outcome
    detail: str
    figure: float | None = None
    limit: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Compiler:
    """How an image is built.

    Attributes:
        toolchain: the compiler.
        opt: optimisation flag.
        flags: more of them.
    """

    toolchain: Toolchain
    opt: str = "-O2"
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.toolchain.name, self.opt, *self.flags))


@dataclass
class Subject:
    """An image at a place, and what its checks have learned on the way.

    Attributes:
        place: as in `Check`.
        model: the folder that it was built from.
        compiler: that built it.
        release: the image that would be flashed.
        traced: the same with trace hooks.
        samples: to run; the first of them are the user's.
        extremes: of every operator.
        progress: called after each run.
        mismatch: the first one, with what was computed; None where there is none.
        mismatches: samples with wrong bytes, by step.
        high_water: deepest use of the stack that was seen, bytes.
        instructions, cycles: of each step, of one sample, mean; empty where they were not counted.
    """

    place: str
    model: GeneratedModel
    compiler: Compiler
    release: Path
    traced: Path
    samples: Sequence[Sample]
    extremes: Sequence[Extreme]
    progress: Callable[[], None] = lambda: None
    mismatch: tuple[Mismatch, Run] | None = None
    mismatches: dict[int, int] = field(default_factory=dict)
    high_water: int = 0
    instructions: list[float] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)

    def run(self, image: Image, sample: Sample | Extreme, *, log: bool = True) -> Run:
        """Run a sample, and tell of it.

        Raises:
            EmulationError: see `Image.run`.
        """
        try:
            return image.run(sample, log=log)
        finally:
            self.progress()


def answered(name: str, place: str, ask: Callable[[], Answer]) -> Check:
    """Ask, and take the time. An image that strays or does not end fails whatever it was asked."""
    start = time.perf_counter()
    try:
        answer = ask()
    except EmulationError as error:
        answer = Answer(Outcome.FAILED, str(error))
    except ToolchainError as error:
        answer = Answer(Outcome.NOT_RUN, str(error))
    seconds = time.perf_counter() - start
    return Check(name, place, answer.outcome, answer.detail, answer.figure, answer.limit, answer.unit, seconds)


def bit_exact(subject: Subject) -> Answer:
    """Every tensor of every sample, and every operator's extremes, against the golden model; outputs of the release."""
    runs: list[Sample | Extreme] = [*subject.samples, *subject.extremes]
    wrong, counted = 0, [0] * len(subject.model.steps)
    traced = Image(subject.model, subject.traced, traced=True)
    for sample in runs:
        run = subject.run(traced, sample)
        mismatch = first_mismatch(subject.model, sample, run.trace)
        if mismatch:
            wrong += 1
            subject.mismatch = subject.mismatch or (mismatch, run)
            for step in wrong_steps(subject.model, sample, run.trace):
                subject.mismatches[step] = subject.mismatches.get(step, 0) + 1
        if isinstance(sample, Sample):
            for index, count in _by_step(run.result.operator_instructions, len(counted)):
                counted[index] += count
    subject.instructions = [count / max(len(subject.samples), 1) for count in counted]
    release = Image(subject.model, subject.release, traced=False)
    for sample in subject.samples:
        run = subject.run(release, sample)
        subject.high_water = max(subject.high_water, run.result.stack_bytes)
        mismatch = first_mismatch(subject.model, sample, run.trace)
        if mismatch:
            wrong += 1
            subject.mismatch = subject.mismatch or (mismatch, run)
    if subject.mismatch:
        return Answer(Outcome.FAILED, str(subject.mismatch[0]), wrong, 0, "samples")
    detail = (
        f"{len(subject.model.steps)} tensors of {len(subject.samples)} samples, and of {len(subject.extremes)} runs in "
        "which every operator is given extreme inputs, equal the golden model"
    )
    return Answer(Outcome.PASSED, detail, 0, 0, "samples")


def memory_access(subject: Subject, samples: Sequence[Sample | Extreme]) -> tuple[Answer, Answer]:
    """Every access of the image: what each step may read and write, and alignment.

    Returns:
        the answers for memory-access and for alignment.
    """
    core = subject.model.target.core
    try:
        for elf, traced in ((subject.traced, True), (subject.release, False)):
            image = Image(subject.model, elf, traced=traced, strict=True)
            for sample in samples if traced else [s for s in samples if isinstance(s, Sample)][:1]:
                subject.run(image, sample)
    except StrayAccess as error:
        stopped = Answer(Outcome.NOT_RUN, f"the run stopped at a failed access: {error}")
        failed = Answer(Outcome.FAILED, str(error), 1, 0, "accesses")
        return (stopped, failed) if error.unaligned else (failed, stopped)
    except EmulationError as error:
        return Answer(Outcome.FAILED, str(error)), Answer(Outcome.NOT_RUN, f"the run did not end: {error}")
    runs = f"in {len(samples)} runs with every access checked"
    accesses = (
        f"no step reads but its inputs, constants and scratch, nor writes but its output and scratch, {runs}; "
        f"stack and arena are guarded by {image.machine.guards}"
    )
    return (
        Answer(Outcome.PASSED, accesses, 0, 0, "accesses"),
        Answer(Outcome.PASSED, f"no access that a {core} would trap, {runs}", 0, 0, "accesses"),
    )


def uninitialised(subject: Subject, samples: Sequence[Sample]) -> Answer:
    """Runs that start from memory with other contents must agree in every byte."""
    images = [Image(subject.model, subject.traced, traced=True, poison=poison) for poison in POISONS]
    for sample in samples:
        first, second = (subject.run(image, sample).trace for image in images)
        where = first_difference(subject.model, first, second)
        if where:
            detail = f"sample {sample.name}: {where} depends on what memory held before the run"
            return Answer(Outcome.FAILED, detail, 1, 0, "samples")
    filled = " and ".join(f"{poison:#04x}" for poison in POISONS)
    detail = f"{len(samples)} samples give the same bytes whether memory held {filled} before"
    return Answer(Outcome.PASSED, detail, 0, 0, "samples")


def deterministic(subject: Subject, samples: Sequence[Sample]) -> Answer:
    """The first sample again after the others, and in a fresh machine: the same bytes in as many instructions."""
    image = Image(subject.model, subject.traced, traced=True)
    first, *_ = [subject.run(image, sample) for sample in samples]
    again = subject.run(image, samples[0])
    fresh = subject.run(Image(subject.model, subject.traced, traced=True), samples[0])
    for what, other in (("again", again), ("in a fresh machine", fresh)):
        where = first_difference(subject.model, first.trace, other.trace)
        if where:
            detail = f"sample {samples[0].name}, run {what}, differs at {where}"
            return Answer(Outcome.FAILED, detail, 1, 0, "runs")
        if first.result.instructions != other.result.instructions:
            counts = f"{other.result.instructions} instructions, {first.result.instructions} at first"
            return Answer(Outcome.FAILED, f"sample {samples[0].name}, run {what}, takes {counts}", 1, 0, "runs")
    detail = f"run again after {len(samples) - 1} others and in a fresh machine: the same bytes and instructions"
    return Answer(Outcome.PASSED, detail, 0, 0, "runs")


def stack(subject: Subject) -> Answer:
    """The static bound against what the target reserves, and against what was seen."""
    model = subject.model
    usage = stack_usage(
        model.sources,
        model.target,
        include_dirs=model.include_dirs,
        toolchain=subject.compiler.toolchain,
        opt=subject.compiler.opt,
        extra_flags=subject.compiler.flags,
    )
    image = Image(model, subject.release, traced=False)
    bound = stack_bound(subject.release, image.machine, f"{model.prefix}_run", usage)
    reserved = model.target.stack_bytes
    if bound.bytes is None:
        return Answer(Outcome.FAILED, f"the stack has no static bound: {bound.reason}", None, reserved, "bytes")
    said = (
        f"static bound {bound.bytes} bytes ({' > '.join(bound.chain)}; "
        f"{bound.accounted} of {bound.functions} functions by the compiler's account)"
    )
    if bound.bytes > reserved:
        return Answer(Outcome.FAILED, f"{said}, but {reserved} are reserved", bound.bytes, reserved, "bytes")
    if not subject.high_water:  # where an earlier check did not come so far
        subject.high_water = subject.run(image, subject.samples[0]).result.stack_bytes
    said = f"{subject.high_water} bytes seen; {said}"
    passed = subject.high_water <= bound.bytes
    said = said if passed else f"more was used than the static bound allows: {said}"
    return Answer(Outcome.PASSED if passed else Outcome.FAILED, said, bound.bytes, reserved, "bytes")


def latency(subject: Subject, samples: Sequence[Sample], limit: float | None) -> Answer:
    """Estimated time of one run at the target's clock, from empty caches; the slowest of the samples."""
    target = subject.model.target
    timing = Timing.MEMORY if all(region.timing for region in target.memory) else Timing.ZERO_WAIT
    release = Image(subject.model, subject.release, traced=False, timing=timing)
    traced = Image(subject.model, subject.traced, traced=True, timing=timing)
    totals, by_step = [], [0] * len(subject.model.steps)
    for sample in samples:
        for image in (release, traced):
            image.machine.empty_caches()
        result = subject.run(release, sample).result
        totals.append(result.cycles.total if result.cycles else 0)
        steps = subject.run(traced, sample, log=False).result.operator_cycles
        for index, cycles in _by_step([(i, c.total) for i, c in steps], len(by_step)):
            by_step[index] += cycles
    subject.cycles = [cycles / len(samples) for cycles in by_step]
    milliseconds = max(totals) / target.clock_hz * 1e3
    band = error_band(target.core, timing)
    ends = [milliseconds * (1 + sign * band.fraction) for sign in (-1, 1)] if band else []
    detail = (
        f"{milliseconds:.2f} ms{f' {band}, {ends[0]:.2f} to {ends[1]:.2f} ms' if ends else ''}; {max(totals)} cycles "
        f"at {target.clock_hz / 1e6:g} MHz, with{'' if timing is Timing.MEMORY else 'out'} waits for memory"
    )
    if limit is not None and ends and milliseconds <= limit < ends[1]:
        detail += "; the limit lies within the error of the estimate"
    passed = limit is None or milliseconds <= limit
    return Answer(Outcome.PASSED if passed else Outcome.FAILED, detail, milliseconds, limit, "ms")


def _by_step(counts: Sequence[tuple[int, int]], steps: int) -> list[tuple[int, int]]:
    """Those of the marks that begin a step."""
    return [(index, count) for index, count in counts if index < steps]
