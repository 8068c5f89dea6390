"""The published figures, read from `cases.toml`."""

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from codegen.target import Target, load_target
from conformance.timing.cycles import Timing
from conformance.validation.workloads import WORKLOADS
from refsim.errors import DataError

CASES_FILE = Path(__file__).parent / "cases.toml"


class Use(StrEnum):
    """What a figure is good for; `cases.toml` explains."""

    PREDICTED = "predicted"
    SEQUENCE = "sequence"
    ORIENTATION = "orientation"


class Unit(StrEnum):
    """What a figure counts."""

    MILLISECONDS = "ms"
    CYCLES = "cycles"
    MEGACYCLES = "Mcycles"


@dataclass(frozen=True)
class Case:
    """One published figure and what to run for it.

    Attributes:
        name: for people.
        workload: one of `WORKLOADS`.
        target: the chip, or one with the same core where `timings` is zero-wait alone.
        published: the figure, in `unit`.
        unit: of it.
        use: what it is good for.
        source: where it stands.
        clock_hz: at which it was measured; 0 where the figure counts cycles.
        steps: of the workload that it covers; empty for all.
        baseline: step whose cycles are not counted; empty for none.
        scale: rounds that the workload runs for each one that the figure is of.
        timings: with which the chip can be estimated.
        note: what else to know.
    """

    name: str
    workload: str
    target: Target
    published: float
    unit: Unit
    use: Use
    source: str
    clock_hz: int = 0
    steps: tuple[str, ...] = ()
    baseline: str = ""
    scale: int = 1
    timings: tuple[Timing, ...] = tuple(Timing)
    note: str = ""

    @property
    def program(self) -> str:
        """What ran: all figures of one workload on one core are of one program."""
        return f"{self.workload} on {self.target.core}"

    def estimate(self, cycles: int) -> float:
        """`cycles` of the whole run in the figure's unit."""
        per_unit = {
            Unit.MILLISECONDS: self.clock_hz / 1000,
            Unit.CYCLES: 1.0,
            Unit.MEGACYCLES: 1e6,
        }[self.unit]
        return cycles / self.scale / per_unit


def load_cases(path: Path = CASES_FILE) -> tuple[Case, ...]:
    """Every published figure, in the file's order.

    Raises:
        DataError: the file is not what it should be.
        TargetError: a case names a target that does not exist.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["case"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} has no readable [[case]] tables: {error}") from error
    return tuple(_case(entry, path) for entry in entries)


def _case(entry: dict[str, object], path: Path) -> Case:
    where = f"{path}: case {entry.get('name', '?')!r}"
    values = dict(entry)
    try:
        values["target"] = load_target(str(values["target"]))
        values["unit"], values["use"] = Unit(str(values["unit"])), Use(str(values["use"]))
        for key in ("steps", "timings"):
            if key in values:
                listed = values[key]
                if not isinstance(listed, list):
                    raise DataError(f"{where}: {key} is {listed!r}, it must be a list")
                values[key] = tuple(Timing[str(item).upper()] if key == "timings" else str(item) for item in listed)
        case = Case(**values)  # type: ignore[arg-type]  # a table's values have no static type
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{where} is wrong: {error}") from error
    if case.workload not in WORKLOADS:
        raise DataError(f"{where}: there is no workload {case.workload!r}; there are {', '.join(WORKLOADS)}")
    names = {step.name for step in WORKLOADS[case.workload]().steps}
    if unknown := {*case.steps, *filter(None, [case.baseline])} - names:
        raise DataError(f"{where}: its workload has no step {', '.join(sorted(unknown))}")
    if case.unit is Unit.MILLISECONDS and case.clock_hz <= 0:
        raise DataError(f"{where}: a figure in ms needs clock_hz")
    return case
