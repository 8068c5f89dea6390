"""A linked image on an emulated chip, run on samples, with what each run left behind."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codegen.generate import GeneratedModel
from codegen.program import Step
from conformance.emulator import HOST_WINDOW, CallResult, CortexM, OperatorRule
from conformance.models import Trace
from conformance.timing.cycles import Timing
from conformance.verify.given import Given, GivenImage
from conformance.verify.samples import Extreme, Sample

POISON = 0xA5
"""Byte that the arena, the stack and the rest of RAM hold before a run."""


@dataclass(frozen=True)
class Run:
    """One run of an image.

    Attributes:
        trace: what it computed; the log is empty where the image has no trace hooks.
        result: of the call.
    """

    trace: Trace
    result: CallResult


@dataclass(frozen=True)
class Mismatch:
    """The first byte, in the order of execution, that is not the golden model's.

    Attributes:
        sample: that was run.
        step: that wrote it; None for an output that was right when its step wrote it, or of an image without hooks.
        tensor: its name.
        element: its index in the tensor.
        expected, found: bytes.
        wrong: bytes of the tensor that differ.
    """

    sample: Sample | Extreme
    step: Step | None
    tensor: str
    element: tuple[int, ...]
    expected: int
    found: int
    wrong: int

    def __str__(self) -> str:
        where = (
            f"step {self.step.index} {self.step.node!r} ({self.step.operator})" if self.step else "the model's output"
        )
        return (
            f"sample {self.sample.name}: {where}, tensor {self.tensor!r}: {self.wrong} bytes differ, the first at "
            f"{list(self.element)}: golden model {self.expected}, found {self.found}"
        )


class Image:
    """An image in an emulated chip of its own.

    Args:
        model: the folder that it was built from.
        elf: the image.
        traced: it was built with trace hooks.
        strict: check every access: in a traced image against what each step may read and write, else against the
            arena; and for alignment.
        timing: how to count cycles; None for not at all.
        poison: what memory holds before a run.
        given: the user's image, which `elf` is; None for one of `build_firmware`.

    Raises:
        EmulationError: it does not start up.
    """

    def __init__(
        self,
        model: GeneratedModel,
        elf: Path,
        *,
        traced: bool,
        strict: bool = False,
        timing: Timing | None = None,
        poison: int = POISON,
        given: Given | None = None,
    ) -> None:
        self.model, self._traced, self._strict, self._poison = model, traced, strict, poison
        self._log_bytes = sum(step.bytes for step in model.steps)
        self._entry = given.run if given else f"{model.prefix}_run"
        if given:
            self.machine: CortexM = GivenImage(
                model.target, given, model.arena_bytes, strict=strict, timing=timing, pattern=poison
            )
        else:
            window = self._log_bytes if traced else 0
            self.machine = CortexM(model.target, elf, host_window=window, strict=strict, timing=timing, pattern=poison)
        self.machine.operator_names = [f"{step.node} ({step.operator})" for step in model.steps]
        arena = (self.machine.arena[0], model.arena_bytes)
        if strict:
            self.machine.allow([], [arena, (HOST_WINDOW, self._log_bytes)] if traced else [arena])
        self._follow(None)

    def run(self, sample: Sample | Extreme, *, log: bool = True) -> Run:
        """Run it once.

        Args:
            sample: the input; extremes need a traced image.
            log: keep the output of every step, where the image is traced.

        Raises:
            EmulationError: it strayed, faulted, did not end, or wrote where it has no memory.
        """
        machine, arena = self.machine, self.machine.arena[0]
        machine.write(arena, bytes([self._poison]) * self.model.arena_bytes)
        if isinstance(sample, Extreme):
            self._follow(sample)
        else:
            for port in self.model.inputs:
                machine.write(arena + port.offset, sample.inputs[port.tensor].tobytes())
        if self._traced:
            machine.write(HOST_WINDOW, bytes(self._log_bytes))
            machine.call("tnf_trace_begin", HOST_WINDOW if log else 0)
        try:
            result = machine.call(self._entry, arena)
        finally:
            if isinstance(sample, Extreme):
                self._follow(None)
        outputs = tuple(machine.read(arena + port.offset, port.bytes) for port in self.model.outputs)
        return Run(Trace(machine.read(HOST_WINDOW, self._log_bytes) if self._traced and log else b"", outputs), result)

    def _follow(self, extreme: Extreme | None) -> None:
        """What each step may touch, where that is checked, and the inputs that it is given, where there are such."""
        if not self._traced or not (self._strict or extreme):
            self.machine.follow([])
            return
        program, arena = self.model.program, self.machine.arena[0]
        rules = []
        for step in self.model.steps:
            scratch = program.plan.scratch_offsets.get(step.index)
            written = [] if step.elided else [(arena + step.offset, step.bytes)]
            written += [(arena + scratch, step.call.scratch_bytes)] if scratch is not None else []
            read = [
                (arena + program.plan.tensor_offsets[tensor], program.graph.tensors[tensor].size)
                for tensor in step.inputs
                if tensor not in program.graph.constants
            ]
            patches = [(arena + offset, data) for offset, data in extreme.patches[step.index]] if extreme else []
            rules.append(OperatorRule(tuple(read), tuple(written), tuple(patches)))
        self.machine.follow(rules)


def first_mismatch(
    model: GeneratedModel, sample: Sample | Extreme, trace: Trace, *, outputs: bool = True
) -> Mismatch | None:
    """Where a run first left the golden model; None where it did not.

    Args:
        model: that ran.
        sample: that it ran on.
        trace: what it computed.
        outputs: the trace has the model's outputs too.
    """
    at = 0
    for step in model.steps if trace.log else ():
        golden = sample.golden[step.index] if isinstance(sample, Extreme) else sample.golden[step.output]
        found = _differing(sample, step, step.output, golden, trace.log[at : at + step.bytes])
        if found:
            return found
        at += step.bytes
    if isinstance(sample, Extreme) or not outputs:
        return None  # what the last step computed is in the log; other outputs were replaced on the way
    for port, data in zip(model.outputs, trace.outputs, strict=True):
        found = _differing(sample, None, port.tensor, sample.golden[port.tensor], data)
        if found:
            return found
    return None


def wrong_steps(model: GeneratedModel, sample: Sample | Extreme, trace: Trace) -> list[int]:
    """Every step of which a byte is not the golden model's."""
    at, wrong = 0, []
    for step in model.steps:
        golden = sample.golden[step.index] if isinstance(sample, Extreme) else sample.golden[step.output]
        if trace.log[at : at + step.bytes] != golden.tobytes():
            wrong.append(step.index)
        at += step.bytes
    return wrong


def first_difference(model: GeneratedModel, first: Trace, second: Trace) -> str:
    """Where two runs of one sample first differ, in words; empty where they do not."""
    at = 0
    for step in model.steps if first.log else ():
        if first.log[at : at + step.bytes] != second.log[at : at + step.bytes]:
            return f"step {step.index} {step.node!r} ({step.operator})"
        at += step.bytes
    for port, a, b in zip(model.outputs, first.outputs, second.outputs, strict=True):
        if a != b:
            return f"output {port.name!r}"
    return ""


def _differing(
    sample: Sample | Extreme, step: Step | None, tensor: str, golden: np.ndarray, data: bytes
) -> Mismatch | None:
    found = np.frombuffer(data, np.int8).reshape(golden.shape)
    wrong = np.argwhere(golden != found)
    if len(wrong) == 0:
        return None
    first = tuple(int(i) for i in wrong[0])
    return Mismatch(sample, step, tensor, first, int(golden[first]), int(found[first]), len(wrong))
