"""A conformance run: operators at every place, then whole models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from rich.progress import Progress, TaskID

from conformance.models import compare_model, model_name, open_place, read_model
from conformance.opinion import Opinion
from conformance.places import Library, Place, PlaceSpec, place_specs
from conformance.report import NotRun, Report
from conformance.suite import run_operator
from refsim.errors import TargetError, TinyFormerError, ToolchainError
from refsim.ops import OPERATORS

RANDOM_SAMPLES = 64
"""Samples of a model that comes without data."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        profile: its name, for the report.
        seed: of the cases.
        cases: for each operator.
        operators: names; may be empty.
        models: model files, and samples for each or None.
        places: in the order of the report.
        required: a place that cannot run fails the run whatever the reason.
        emulated_samples: samples of each model on an emulated chip; the host runs all.
        failures: folder for the smallest case of each mismatch.
        numerics: whose bytes .tflite models give.
    """

    profile: str
    seed: int
    cases: int
    operators: Sequence[str]
    models: Mapping[Path, Path | None]
    places: Sequence[PlaceSpec]
    required: bool
    emulated_samples: int
    failures: Path
    numerics: Literal["litert", "cmsis-nn"] = "litert"


def choose_operators(names: Sequence[str]) -> list[str]:
    """The named operators; all where none is named.

    Raises:
        TinyFormerError: there is none of that name.
    """
    return _choose("operator", names, list(OPERATORS))


def choose_places(names: Sequence[str], thorough: bool) -> list[PlaceSpec]:
    """The named places; those of the profile where none is named.

    Raises:
        TinyFormerError: there is none of that name.
    """
    specs = place_specs()
    default = [name for name, spec in specs.items() if thorough or not spec.thorough]
    return [specs[name] for name in (_choose("place", names, list(specs)) if names else default)]


def execute(plan: Plan, progress: Progress) -> Report:
    """Run a plan.

    Raises:
        ModelError, DataError: a model or its samples are unreadable.
    """
    report = Report(plan.profile, plan.seed)
    if plan.operators:
        places = _open_places(plan, report, progress)
        try:
            _run_operators(plan, places, report, progress)
        finally:
            for place in places:
                place.close()
    for path, data in plan.models.items():
        _run_model(plan, path, data, report, progress)
    return report


def _choose(kind: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TinyFormerError(f"there is no {kind} {unknown[0]!r}; there are {', '.join(known)}")
    return list(dict.fromkeys(names)) or list(known)


def _open_places(plan: Plan, report: Report, progress: Progress) -> list[Place | Opinion]:
    library, places = Library(), list[Place | Opinion]()
    task = progress.add_task("building", total=len(plan.places))
    for spec in plan.places:
        progress.update(task, description=f"building {spec.name}")
        try:
            places.append(spec.build(library))
        except ToolchainError as error:
            report.not_run.append(NotRun(spec.name, str(error), plan.required or not spec.optional))
        else:
            report.places[spec.name] = places[-1].detail
        progress.advance(task)
    progress.remove_task(task)
    return places


def _run_operators(plan: Plan, places: Sequence[Place | Opinion], report: Report, progress: Progress) -> None:
    if not places:
        return
    task = progress.add_task("", total=plan.cases * len(plan.operators))
    for index, operator in enumerate(plan.operators):
        progress.update(task, description=operator)
        report.operators += run_operator(
            operator,
            places,
            count=plan.cases,
            seed=plan.seed,
            failures=plan.failures,
            progress=_advance(progress, task),
        )
        progress.update(task, completed=plan.cases * (index + 1))
    progress.remove_task(task)


def _run_model(plan: Plan, path: Path, data: Path | None, report: Report, progress: Progress) -> None:
    name = model_name(path)
    task = progress.add_task(f"{name}: reading", total=None)
    model = read_model(path, data, None if data else RANDOM_SAMPLES, numerics=plan.numerics)
    with TemporaryDirectory() as folder:
        for spec in plan.places:
            if not spec.model:
                continue
            count = model.count if spec.model == "host" else min(plan.emulated_samples, model.count)
            progress.update(task, description=f"{name} at {spec.name}", total=count, completed=0)
            try:
                place = open_place(spec.model, model.graph, Path(folder))
            except (TargetError, ToolchainError) as error:
                report.not_run.append(NotRun(f"{name} at {spec.name}", str(error), plan.required))
                continue
            report.models.append(compare_model(model, place, spec.name, count, _advance(progress, task)))
    progress.remove_task(task)


def _advance(progress: Progress, task: TaskID) -> Callable[[], None]:
    return lambda: progress.advance(task)
