"""What a validation found: plain frozen data that checks fill and reports read."""

from dataclasses import dataclass
from enum import StrEnum

SCHEMA_VERSION = 1
"""Of report.json; it changes when a field changes its meaning or goes."""


class Outcome(StrEnum):
    """How a check ended. What did not run is never counted as passed."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not-run"


@dataclass(frozen=True)
class Check:
    """One question about an image, and its answer.

    Attributes:
        name: stable identifier, such as "flash" or "bit-exact"; the same at every place.
        place: what was examined, such as "stm32f746 zig -O2", "host zig -O2" or "qemu mps2-an500 zig -O2".
        outcome: how it ended.
        detail: one sentence: what was found; where it failed, what to do; where it did not run, why.
        figure: measured value; None where the check has none.
        limit: that the figure is held against; None where there is none.
        unit: of figure and limit, such as "bytes", "ms", "points".
        seconds: it took.
    """

    name: str
    place: str
    outcome: Outcome
    detail: str
    figure: float | None = None
    limit: float | None = None
    unit: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Layer:
    """One step of the generated program at one place.

    Attributes:
        index: of the step, from 0.
        node, operator: its name and kind.
        shape: of its output, one sample.
        encoding: how its weights are stored ("dense", "block 4", ...); empty where it has none.
        constant_bytes: in flash.
        macs: multiply-accumulates of the dense operator.
        instructions, cycles: of one sample, mean; None where they were not counted.
        mismatches: samples in which a byte of its output differed.
        sqnr_db: signal to quantisation noise against the float model, decibels; None without a float model.
    """

    index: int
    node: str
    operator: str
    shape: tuple[int, ...]
    encoding: str
    constant_bytes: int
    macs: int
    instructions: float | None
    cycles: float | None
    mismatches: int
    sqnr_db: float | None = None


@dataclass(frozen=True)
class MemoryPart:
    """A part of a memory region that the image uses.

    Attributes:
        name: "code", "constants", "arena", "stack", "static data", ...
        bytes: of it.
    """

    name: str
    bytes: int


@dataclass(frozen=True)
class MemoryRegionUse:
    """A memory region of the chip and what lies in it, from the linked image.

    Attributes:
        name: of the region.
        kind: "flash" or "ram".
        origin, size: of the region, bytes.
        parts: of the image in it; what they leave is free.
    """

    name: str
    kind: str
    origin: int
    size: int
    parts: tuple[MemoryPart, ...]


@dataclass(frozen=True)
class Build:
    """A linked image that was examined.

    Attributes:
        place: as in `Check`.
        target, core: of the chip; "host" and the machine's architecture for a host build.
        compiler, compiler_version, opt: how it was built; compiler "" where the user brought the image.
        elf_sha256: of the image.
        memory: regions of the chip; empty for a host build.
        layers: of the program.
        arena_svg: picture of the arena over time; empty for a host build.
    """

    place: str
    target: str
    core: str
    compiler: str
    compiler_version: str
    opt: str
    elf_sha256: str
    memory: tuple[MemoryRegionUse, ...] = ()
    layers: tuple[Layer, ...] = ()
    arena_svg: str = ""


@dataclass(frozen=True)
class Divergence:
    """The first byte, in order of execution, at which an image left the golden model.

    Attributes:
        place: where.
        sample: its index and origin, such as "3 (random)".
        step: index of the step.
        node, operator, tensor: of the step.
        element: index in the tensor.
        expected, found: bytes of the golden model and of the image.
        accumulator: before requantisation, from the golden model; None where the operator has none.
        contributions: the inputs that feed the element, as text lines, largest contribution first.
        reproducer: file name of the standalone C program beside the report; empty where none was written.
    """

    place: str
    sample: str
    step: int
    node: str
    operator: str
    tensor: str
    element: tuple[int, ...]
    expected: int
    found: int
    accumulator: int | None
    contributions: tuple[str, ...] = ()
    reproducer: str = ""


@dataclass(frozen=True)
class Report:
    """Everything one validation found.

    Attributes:
        model: file name.
        model_sha256: of the model's file; of everything that decides its bytes for a generated folder.
        sources_sha256: of the generated C, by file name.
        versions: of the toolkit and its tools, by name.
        command: that was run, for the reader to run again.
        started: ISO 8601, UTC.
        seconds: the whole took.
        builds: that were examined.
        checks: in the order they ran.
        divergences: at most one a place.
    """

    model: str
    model_sha256: str
    sources_sha256: dict[str, str]
    versions: dict[str, str]
    command: str
    started: str
    seconds: float
    builds: tuple[Build, ...]
    checks: tuple[Check, ...]
    divergences: tuple[Divergence, ...] = ()

    @property
    def verdict(self) -> Outcome:
        """FAILED where a check failed; else PASSED where at least one passed; else NOT_RUN."""
        outcomes = {check.outcome for check in self.checks}
        for outcome in (Outcome.FAILED, Outcome.PASSED):
            if outcome in outcomes:
                return outcome
        return Outcome.NOT_RUN
