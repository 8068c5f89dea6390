"""A conformance run: operators at every place, then whole models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from rich.progress import Progress, TaskID

from conformance.models import compare_model, model_name, open_place, read_model
from conformance.opinion import Opinion
from conformance.places import Library, Place, PlaceSpec, place_specs
from conformance.primitives import PRIMITIVES, SOURCE
from conformance.random_models import NAME, compare_random_models
from conformance.relations import GRAPHS, RELATIONS, Engine, GoldenModel, Kernels, Relation
from conformance.relations.runner import run_relations
from conformance.report import NotRun, Report
from conformance.suite import run_operator
from refsim.errors import TargetError, TinyFormerError, ToolchainError
from refsim.ops import OPERATORS

RANDOM_SAMPLES = 64
"""Samples of a model that comes without data."""

_RELATION_PLACES = ("host", "cortex-m7")
"""Places that try relations and random graphs unless others are asked for: all kernels, and those of a chip."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        profile: its name, for the report.
        seed: of the cases.
        cases: for each operator.
        operators: names, "primitives" among them; may be empty.
        models: model files, and samples for each or None.
        places: in the order of the report.
        required: a place that cannot run fails the run whatever the reason.
        emulated_samples: samples of each model on an emulated chip; the host runs all.
        failures: folder for the smallest case of each mismatch.
        numerics: whose bytes .tflite models give.
        relations: to try on the cases of each operator, and on random graphs ("graphs").
        relation_cases: how many of each.
        graphs: random graphs to generate, build and run as models.
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
    relations: Mapping[str, Sequence[Relation]] = field(default_factory=dict)
    relation_cases: int = 0
    graphs: int = 0


def choose_operators(names: Sequence[str]) -> list[str]:
    """The named operators; all where none is named.

    Raises:
        TinyFormerError: there is none of that name.
    """
    return _choose("operator", names, list(OPERATORS))


def choose_subjects(names: Sequence[str]) -> list[str]:
    """The named operators or "primitives"; all of these where none is named.

    Raises:
        TinyFormerError: there is none of that name.
    """
    return _choose("operator", names, [*OPERATORS, PRIMITIVES])


def choose_relations(names: Sequence[str], operators: Sequence[str]) -> dict[str, list[Relation]]:
    """The named relations, or all, by subject; of operators alone where some are named.

    Raises:
        TinyFormerError: there is none of that name, or none of them is about one of the operators.
    """
    subjects = operators or [*OPERATORS, GRAPHS]
    chosen = [RELATIONS[name] for name in _choose("relation", names, list(RELATIONS))]
    found = {subject: [relation for relation in chosen if subject in relation.subjects] for subject in subjects}
    if names and not any(found.values()):
        raise TinyFormerError(f"relation {names[0]!r} says nothing about {', '.join(operators)}")
    return {subject: relations for subject, relations in found.items() if relations}


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
    if plan.operators or plan.relations:
        places = _open_places(plan, report, progress)
        try:
            if plan.operators:
                _run_operators(plan, places, report, progress)
            _run_relations(plan, places, report, progress)
        finally:
            for place in places:
                place.close()
    for path, data in plan.models.items():
        _run_model(plan, path, data, report, progress)
    if plan.graphs:
        _run_random_models(plan, report, progress)
    return report


def _choose(kind: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TinyFormerError(f"there is no {kind} {unknown[0]!r}; there are {', '.join(known)}")
    return list(dict.fromkeys(names)) or list(known)


def _open_places(plan: Plan, report: Report, progress: Progress) -> list[Place | Opinion]:
    library, places = Library(callers=(SOURCE,)), list[Place | Opinion]()
    specs = plan.places if plan.operators else [spec for spec in plan.places if _tries_relations(plan, spec.name)]
    task = progress.add_task("building", total=len(specs))
    for spec in specs:
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


def _tries_relations(plan: Plan, place: str) -> bool:
    return plan.required or place in _RELATION_PLACES


def _run_relations(plan: Plan, places: Sequence[Place | Opinion], report: Report, progress: Progress) -> None:
    engines: list[Engine] = [GoldenModel()]
    engines += [Kernels(place) for place in places if isinstance(place, Place) and _tries_relations(plan, place.name)]
    task = progress.add_task("", total=plan.relation_cases * len(plan.relations))
    for index, (subject, relations) in enumerate(plan.relations.items()):
        progress.update(task, description=f"relations of {subject}")
        report.relations += run_relations(
            subject,
            relations,
            engines,
            count=plan.relation_cases,
            seed=plan.seed,
            failures=plan.failures,
            progress=_advance(progress, task),
        )
        progress.update(task, completed=plan.relation_cases * (index + 1))
    progress.remove_task(task)


def _run_random_models(plan: Plan, report: Report, progress: Progress) -> None:
    specs = [spec for spec in plan.places if spec.model and _tries_relations(plan, spec.name)]
    task = progress.add_task("", total=plan.graphs * len(specs))
    for spec in specs:
        progress.update(task, description=f"{NAME} at {spec.name}")
        try:
            report.models.append(
                compare_random_models(
                    spec.name, spec.model, count=plan.graphs, seed=plan.seed, progress=_advance(progress, task)
                )
            )
        except ToolchainError as error:
            report.not_run.append(NotRun(f"{NAME} at {spec.name}", str(error), plan.required))
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
