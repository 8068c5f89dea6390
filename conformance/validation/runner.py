"""Runs the workloads on emulated chips and sets the estimates beside the published figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codegen.target import CORES, Target
from conformance.emulator import CallResult, CortexM
from conformance.timing.cycles import Cycles, Timing
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware
from conformance.validation.band import Band, Deviation, bands, error_band
from conformance.validation.cases import Case, Use
from conformance.validation.workloads import NATIVE, WORKLOADS, Argument, Buffer, Constant, Parameters, Step, Workload
from refsim.errors import EmulationError, ToolchainError

OPTIMISATION = "-O3"
"""Of the kernels: that of the Mbed OS builds. Zephyr's are at -O2, which changes the M4's programs by less than 3 %."""


class Chip:
    """An emulated chip with a workload's kernels in its flash, and its constants after them.

    Args:
        workload: what will run.
        target: the chip.
        toolchain: the compiler.
        timing: how cycles are counted; None for no cycles.

    Raises:
        EmulationError: flash is too small for the constants.
        TargetError: the image does not fit, or the target lacks what `timing` needs.
        ToolchainError: a source does not compile.
    """

    def __init__(self, workload: Workload, target: Target, toolchain: Toolchain, timing: Timing | None = None) -> None:
        functions = sorted({step.function for step in workload.steps})
        elf = build_firmware(
            [*workload.sources, NATIVE / "memory.c"],
            target,
            [*functions, "tnf_validation_memory"],
            include_dirs=workload.include_dirs,
            toolchain=toolchain,
            opt=OPTIMISATION,
            defines={"TNF_VALIDATION_BYTES": workload.memory_bytes},
            name=workload.name.replace(" ", "-"),
        )
        self._machine = CortexM(target, elf, timing=timing)
        self._memory = self._machine.symbols["tnf_validation_memory"]
        self._free, self._flash_end = self._machine.flash_free
        for buffer, data in workload.inputs:
            self.fill(buffer, data)

    def run(self, step: Step) -> CallResult:
        """Run one step; steps find what the ones before left in their buffers.

        Raises:
            EmulationError: the code strayed, or flash is too small for the constants.
        """
        return self._machine.call(step.function, *(self._word(argument) for argument in step.arguments))

    def fill(self, buffer: Buffer, data: bytes) -> None:
        """Write `data` where `buffer` begins."""
        self._machine.write(self._memory + buffer.offset, data)

    def contents(self, buffer: Buffer) -> bytes:
        """What a buffer holds now."""
        return self._machine.read(self._memory + buffer.offset, buffer.size)

    def _word(self, argument: Argument) -> int:
        if isinstance(argument, Buffer):
            return self._memory + argument.offset
        if isinstance(argument, Constant):
            return self._place(argument.data)
        if isinstance(argument, Parameters):
            words = [self._word(word) & 0xFFFFFFFF for word in argument.words]
            return self._place(b"".join(word.to_bytes(4, "little") for word in words))
        return argument

    def _place(self, data: bytes) -> int:
        address = self._free
        if address + len(data) > self._flash_end:
            raise EmulationError(f"flash has {self._flash_end - address} bytes left for {len(data)} bytes of constants")
        self._machine.write(address, data)
        self._free = -(-(address + len(data)) // 16) * 16
        return address


@dataclass(frozen=True)
class Outcome:
    """A figure beside its estimates.

    Attributes:
        case: the figure.
        estimates: by timing, in the figure's unit.
        cycles: by timing, of the whole run.
    """

    case: Case
    estimates: dict[Timing, float]
    cycles: dict[Timing, Cycles]

    def error(self, timing: Timing) -> float:
        """estimated / published - 1."""
        return self.estimates[timing] / self.case.published - 1

    def deviation(self, timing: Timing) -> Deviation:
        """The measurement, relative to the estimate, as error bands need it."""
        relative = self.case.published / self.estimates[timing] - 1
        return Deviation(self.case.target.core, timing, self.case.program, relative)


@dataclass(frozen=True)
class Validation:
    """All figures.

    Attributes:
        outcomes: in the order of the cases.
        toolchain: that built the kernels.
    """

    outcomes: tuple[Outcome, ...]
    toolchain: Toolchain

    @property
    def bands(self) -> dict[tuple[str, str], Band]:
        """By core and name of the timing; see `conformance.validation.band.bands`."""
        predicted = [o for o in self.outcomes if o.case.use is Use.PREDICTED]
        return bands([o.deviation(timing) for o in predicted for timing in o.estimates], CORES)


def outside(validation: Validation) -> list[str]:
    """Predicted figures that lie outside the band that estimates are printed with, one line each."""
    lines = []
    for outcome in validation.outcomes:
        for timing in outcome.estimates if outcome.case.use is Use.PREDICTED else ():
            band = error_band(outcome.case.target.core, timing)
            relative = outcome.deviation(timing).relative
            if band is not None and abs(relative) > band.fraction:
                lines.append(f"{outcome.case.name}, {timing.value}: {relative:+.1%} of the estimate, band {band}")
    return lines


def choose_toolchain(name: str | None) -> Toolchain:
    """The Cortex-M compiler of that name; GCC by default where it is here, since it built what was measured.

    Raises:
        ToolchainError: it is not here.
    """
    found = {tool.name: tool for tool in arm_toolchains()}
    chosen = name or ("arm-none-eabi-gcc" if "arm-none-eabi-gcc" in found else next(iter(found)))
    if chosen not in found:
        raise ToolchainError(f"compiler {chosen!r} is not here; there is {', '.join(found)}")
    return found[chosen]


def validate(cases: Sequence[Case], toolchain: Toolchain, progress: Callable[[str], None]) -> Validation:
    """Estimate every case; a workload runs once on each chip with each timing.

    Args:
        cases: the figures.
        toolchain: builds the kernels.
        progress: is told what runs.
    """
    steps: dict[tuple[str, str, Timing], dict[str, Cycles]] = {}
    outcomes = []
    for case in cases:
        cycles = {}
        for timing in case.timings:
            key = case.workload, case.target.name, timing
            if key not in steps:
                progress(f"{case.workload} on {case.target.name}")
                steps[key] = _run(WORKLOADS[case.workload](), case.target, toolchain, timing)
            spent = steps[key]
            covered = _sum([count for name, count in spent.items() if not case.steps or name in case.steps])
            cycles[timing] = covered - spent[case.baseline] if case.baseline else covered
        estimates = {timing: case.estimate(spent.total) for timing, spent in cycles.items()}
        outcomes.append(Outcome(case, estimates, cycles))
    return Validation(tuple(outcomes), toolchain)


def _run(workload: Workload, target: Target, toolchain: Toolchain, timing: Timing) -> dict[str, Cycles]:
    chip = Chip(workload, target, toolchain, timing)
    spent = {}
    for step in workload.steps:
        cycles = chip.run(step).cycles
        assert cycles is not None  # a timing was asked for
        spent[step.name] = cycles
    return spent


def _sum(parts: Sequence[Cycles]) -> Cycles:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
