"""One target with one compiler: build, measure, run every check, describe."""

import functools
import hashlib
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codegen.arena_picture import render_arena
from codegen.generate import GeneratedModel
from codegen.target import Target
from conformance.qemu import place_name as qemu_place
from conformance.qemu import qemu_check
from conformance.toolchain import NATIVE, build_firmware, elf_symbols
from conformance.verify import checks
from conformance.verify.checks import Answer, Compiler, Subject, answered
from conformance.verify.divergence import first_divergence, step_divergence
from conformance.verify.given import Given
from conformance.verify.image import Mismatch, Run
from conformance.verify.memory import memory_use, used_bytes
from conformance.verify.result import Build, Check, Divergence, Layer, MemoryRegionUse, Outcome
from conformance.verify.samples import Extreme, Sample
from refsim.errors import ToolchainError

REPEATED_SAMPLES = 3
"""Samples of the checks that run everything more than once."""

TIMED_SAMPLES = 2
"""Samples of which the cycles are counted."""

UNDER_EMULATION = ("bit-exact", "memory-access", "alignment", "uninitialised", "deterministic", "stack", "latency")
"""Checks that need an image that fits its chip."""

STAGES = 3 + len(UNDER_EMULATION)
"""How often the examination of a place tells its progress."""

Progress = Callable[[str], None]
"""Called with what is being done, as it begins."""


@dataclass
class Findings:
    """What was found so far, and files that belong to it.

    Attributes:
        checks, builds, divergences: see `Report`.
        sources: SHA-256 of each generated file, by name.
        attachments: reproducers by file name.
        sqnr: signal to quantisation noise of tensors, dB.
    """

    checks: list[Check] = field(default_factory=list)
    builds: list[Build] = field(default_factory=list)
    divergences: list[Divergence] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    attachments: dict[str, bytes] = field(default_factory=dict)
    sqnr: dict[str, float] = field(default_factory=dict)


def examine(
    model: GeneratedModel,
    compiler: Compiler,
    samples: Sequence[Sample],
    extremes: Sequence[Extreme],
    wanted: Set[str],
    max_ms: float | None,
    found: Findings,
    progress: Progress,
) -> None:
    """Run every check of a place and add what it finds.

    Args:
        model: the generated folder; its target is the chip.
        compiler: how it is built.
        samples: to run, the user's first.
        extremes: of every operator.
        wanted: names of the checks to run.
        max_ms: limit of the latency; None for none.
        found: is added to.
        progress: see `Progress`.
    """
    place = f"{model.target.name} {compiler}"
    progress(f"{place}: building")
    try:
        release, traced = (_link(model, compiler, traced=traced) for traced in (False, True))
    except ToolchainError as error:
        found.checks.append(Check("build", place, Outcome.FAILED, str(error)))
        found.checks += _not_run(place, ("flash", "ram", *UNDER_EMULATION, "qemu"), wanted, "there is no image")
        return
    found.checks.append(Check("build", place, Outcome.PASSED, compiler.toolchain.version))
    _examine(Subject(place, model, compiler, release, traced, samples, extremes), wanted, max_ms, found, progress)


def examine_given(
    model: GeneratedModel,
    given: Given,
    samples: Sequence[Sample],
    wanted: Set[str],
    max_ms: float | None,
    found: Findings,
    progress: Progress,
) -> None:
    """Run the checks that an image without trace hooks allows, and add what they find.

    Args:
        model: as it was generated for the image.
        given: the image.
        samples: to run, the user's first.
        wanted: names of the checks to run.
        max_ms: limit of the latency; None for none.
        found: is added to.
        progress: see `Progress`.
    """
    subject = Subject(f"{model.target.name} {given.elf.name}", model, None, given.elf, None, samples, (), given)
    _examine(subject, wanted, max_ms, found, progress)


def _examine(subject: Subject, wanted: Set[str], max_ms: float | None, found: Findings, progress: Progress) -> None:
    model, place, image = subject.model, subject.place, subject.traced or subject.release
    memory = memory_use(
        subject.release, model.target, arena_bytes=model.arena_bytes, stack_bytes=model.target.stack_bytes
    )
    fits = [answered(name, place, functools.partial(_fits, use)) for name, use in _code_and_data(memory, model.target)]
    found.checks += [check for check in fits if check.name in wanted]
    if subject.given and subject.given.missing:
        found.checks += _not_run(place, UNDER_EMULATION, wanted, subject.given.missing)
    elif any(check.outcome is Outcome.FAILED for check in fits) or _end_of_ram(image) > model.target.data.end:
        found.checks += _not_run(place, (*UNDER_EMULATION, "qemu"), wanted, "the image does not fit the chip")
    else:
        _run_checks(subject, wanted, max_ms, found, progress)
        progress(f"{place}: QEMU")
        if "qemu" in wanted and subject.compiler:
            _qemu(subject, subject.compiler, found)
        if subject.mismatch:
            _diverge(subject, *subject.mismatch, found)
    found.builds.append(_build(subject, memory, found.sqnr))


def _not_run(place: str, names: Sequence[str], wanted: Set[str], reason: str) -> list[Check]:
    return [Check(name, place, Outcome.NOT_RUN, reason) for name in names if name in wanted]


def _link(model: GeneratedModel, compiler: Compiler, *, traced: bool) -> Path:
    hooks = [NATIVE / "trace.c"] if traced else []
    return build_firmware(
        [*model.sources, *hooks],
        model.target,
        [f"{model.prefix}_run", *(["tnf_trace_begin"] if traced else [])],
        include_dirs=[*model.include_dirs, *([NATIVE] if traced else [])],
        defines={"TNF_TRACE": 1} if traced else None,
        toolchain=compiler.toolchain,
        opt=compiler.opt,
        extra_flags=compiler.flags,
        arena_bytes=model.arena_bytes,
        name=model.prefix,
        must_fit=False,
    )


def _end_of_ram(elf: Path) -> int:
    return elf_symbols(elf).get("tnf_arena_end", 0)


def _code_and_data(memory: Sequence[MemoryRegionUse], target: Target) -> list[tuple[str, MemoryRegionUse]]:
    by_name = {use.name: use for use in memory}
    return [("flash", by_name[target.code_region]), ("ram", by_name[target.data_region])]


def _fits(use: MemoryRegionUse) -> Answer:
    """Whether what lies in a region is no more than it holds."""
    used = used_bytes(use)
    parts = ", ".join(f"{part.name} {part.bytes}" for part in use.parts)
    if used > use.size:
        detail = f"{used - use.size} bytes more than {use.name} has: {parts}"
        return Answer(Outcome.FAILED, detail, used, use.size, "bytes")
    return Answer(Outcome.PASSED, f"{used / use.size:.1%} of {use.name}: {parts}", used, use.size, "bytes")


def _run_checks(subject: Subject, wanted: Set[str], max_ms: float | None, found: Findings, progress: Progress) -> None:
    """The checks under emulation, in the order of UNDER_EMULATION."""
    place, few = subject.place, subject.samples[:REPEATED_SAMPLES]

    def add(name: str, ask: Callable[[], Answer]) -> None:
        progress(f"{place}: {name}")
        if name in wanted:
            found.checks.append(answered(name, place, ask))

    add("bit-exact", lambda: checks.bit_exact(subject))
    # Every access is checked at a tenth of the speed, and which there are hardly depends on the data.
    strict: list[Sample | Extreme] = [subject.samples[0], *subject.extremes[-1:]]
    accesses = functools.cache(lambda: checks.memory_access(subject, strict))
    add("memory-access", lambda: accesses()[0])
    add("alignment", lambda: accesses()[1])
    add("uninitialised", lambda: checks.uninitialised(subject, few))
    add("deterministic", lambda: checks.deterministic(subject, few))
    add("stack", lambda: checks.stack(subject))
    add("latency", lambda: checks.latency(subject, subject.samples[:TIMED_SAMPLES], max_ms))


def _qemu(subject: Subject, compiler: Compiler, found: Findings) -> None:
    """Boot a whole firmware in the other emulator."""
    model = subject.model
    try:
        check, divergence = qemu_check(
            model,
            subject.samples,
            compiler.toolchain,
            opt=compiler.opt,
            extra_flags=compiler.flags,
            attachments=found.attachments,
        )
    except ToolchainError as error:
        place = qemu_place(model.target, str(compiler))
        found.checks.append(Check("qemu", place, Outcome.NOT_RUN, f"the firmware cannot be built: {error}"))
        return
    found.checks.append(check)
    found.divergences += [divergence] if divergence else []


def _diverge(subject: Subject, mismatch: Mismatch, run: Run, found: Findings) -> None:
    """Describe the first divergence of a place, with a program that shows it again."""
    sample, step, model = mismatch.sample, mismatch.step, subject.model
    place, attachments = subject.place, found.attachments
    if isinstance(sample, Extreme):
        assert step is not None  # only outputs of steps are compared then
        at = sum(each.bytes for each in model.steps[: step.index])
        inputs, golden = sample.inputs[step.index], sample.golden[step.index]
        wrote = np.frombuffer(run.trace.log, np.int8, step.bytes, at).reshape(step.shape)
        divergence: Divergence | None = step_divergence(
            model, step, inputs, golden, wrote, sample=sample.name, place=place, attachments=attachments
        )
    elif run.trace.log:
        divergence = first_divergence(model, sample, run.trace, place=place, attachments=attachments)
    else:
        divergence = _of_output(subject, mismatch)
    found.divergences += [divergence] if divergence else []


def _of_output(subject: Subject, mismatch: Mismatch) -> Divergence:
    """An output that only the image without hooks has wrong."""
    writer = next(step for step in reversed(subject.model.steps) if step.output == mismatch.tensor)
    return Divergence(
        subject.place,
        f"{mismatch.sample.name}, in the image without trace hooks alone",
        writer.index,
        writer.node,
        writer.operator,
        mismatch.tensor,
        mismatch.element,
        mismatch.expected,
        mismatch.found,
        None,
    )


def _build(subject: Subject, memory: tuple[MemoryRegionUse, ...], sqnr: dict[str, float]) -> Build:
    model, target, compiler = subject.model, subject.model.target, subject.compiler
    layers = tuple(
        Layer(
            step.index,
            step.node,
            step.operator,
            step.shape,
            step.call.encoding,
            step.constant_bytes,
            step.call.macs,
            subject.instructions[step.index] if subject.instructions else None,
            subject.cycles[step.index] if subject.cycles else None,
            subject.mismatches.get(step.index, 0),
            sqnr.get(step.output),
        )
        for step in model.steps
    )
    return Build(
        subject.place,
        target.name,
        target.core,
        compiler.toolchain.name if compiler else "",
        compiler.toolchain.version if compiler else "",
        " ".join((compiler.opt, *compiler.flags)) if compiler else "",
        hashlib.sha256(subject.release.read_bytes()).hexdigest(),
        memory,
        layers,
        render_arena(model.program),
    )
