"""Sub-commands of `tinyformer` that hold C to the golden model.

What takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from conformance.console import Numerics, progress_bar, write_whole
from conformance.exchange_cli import vectors
from conformance.fit_predictor_cli import fit_predictor
from conformance.kernel_bench_cli import bench_kernels
from conformance.litert_cli import litert
from conformance.model_bench_cli import bench_models
from conformance.network_bench_cli import bench_network
from conformance.paper_cli import paper
from conformance.profile_cli import profile
from conformance.validation_cli import validate_timing
from conformance.verify_cli import verify
from conformance.zoo_cli import zoo
from refsim.errors import DataError, TinyFormerError
from refsim.model_zoo import model_file


class Profile(StrEnum):
    """How much a conformance run does."""

    CI = "ci"
    THOROUGH = "thorough"


_CASES = {Profile.CI: 400, Profile.THOROUGH: 2000}
_GRAPHS = {Profile.CI: 3, Profile.THOROUGH: 30}
_RELATION_SHARE = 10
"""Relations take a case where operators take so many, unless they run alone."""
_EMULATED_SAMPLES = {Profile.CI: 32, Profile.THOROUGH: 128}
_CI_SEED = 0


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `app`."""
    app.command()(conformance)
    app.command()(profile)
    app.command()(bench)
    app.command()(bench_kernels)
    app.command()(bench_models)
    app.command()(bench_network)
    app.command()(fit_predictor)
    app.command()(validate_timing)
    app.command()(litert)
    app.command()(verify)
    app.command()(zoo)
    app.command()(paper)
    app.add_typer(vectors, name="vectors")


def conformance(
    profile: Annotated[Profile, typer.Option(help="ci: fixed seed; thorough: more places and cases.")] = Profile.CI,
    operator: Annotated[
        list[str] | None, typer.Option(help="Only this operator, or primitives; may be repeated.")
    ] = None,
    place: Annotated[list[str] | None, typer.Option(help="Only this place; may be repeated.")] = None,
    relation: Annotated[list[str] | None, typer.Option(help="Only this relation; may be repeated.")] = None,
    graphs: Annotated[int | None, typer.Option(min=0, help="Random networks to generate, build and run.")] = None,
    cases: Annotated[int | None, typer.Option(min=1, help="Cases for each operator.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the cases; random if thorough.")] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="QDQ ONNX or .tflite, not the examples; may be repeated.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Samples for --model, .npz; random bytes by default.")] = None,
    numerics: Numerics = "litert",
    images: Annotated[int | None, typer.Option(min=1, help="Samples of each model on an emulated chip.")] = None,
    models: Annotated[bool, typer.Option("--models/--no-models", help="Run the example models too.")] = True,
    failures: Annotated[Path, typer.Option(help="Folder for the smallest case of each mismatch.")] = Path(
        "conformance-failures"
    ),
    replay: Annotated[Path | None, typer.Option(help="Folder of a saved case: run it again, and no more.")] = None,
    json: Annotated[Path | None, typer.Option(help="File for the results.")] = None,
) -> None:
    """Hold C to the golden model, byte for byte: every operator, then whole models; and both to metamorphic relations.

    --operator, --relation or --model runs that alone. Exits with 1 if a byte differs, a relation does not hold, or
    something that had to run did not.
    """
    _check_hypothesis()
    from conformance.models import example_models
    from conformance.runner import Plan, choose_places, choose_relations, choose_subjects, execute

    console = Console()
    if replay is not None:
        _replay(replay, place or [], console)
        return
    thorough = profile is Profile.THOROUGH
    if data and not model:
        raise TinyFormerError("--data gives samples for a model: name the model with --model")
    everything = not (operator or relation or model)
    chosen = dict.fromkeys(model, data) if model else example_models() if models and everything else {}
    operators = choose_subjects(operator or []) if operator or not model else []
    number = cases or _CASES[profile]
    plan = Plan(
        profile=profile.value,
        seed=seed if seed is not None else secrets.randbelow(2**32) if thorough else _CI_SEED,
        cases=number,
        operators=[] if relation else operators,
        models=chosen,
        places=choose_places(place or [], thorough),
        required=bool(place),
        emulated_samples=images or _EMULATED_SAMPLES[profile],
        failures=failures,
        numerics=numerics,
        relations=choose_relations(relation or [], operator or []) if operators or relation else {},
        relation_cases=number if relation else -(-number // _RELATION_SHARE),
        graphs=graphs if graphs is not None else _GRAPHS[profile] if models and everything else 0,
    )
    console.print(f"Profile {plan.profile}, seed {plan.seed}.", highlight=False)
    with progress_bar() as progress:
        report = execute(plan, progress)
    console.print(report.render())
    if json is not None:
        write_whole(json, report.as_json())
    if not report.passed:
        raise typer.Exit(1)


def bench(
    model: Annotated[Path | None, typer.Argument(help="QDQ ONNX; the first example by default.")] = None,
    data: Annotated[Path | None, typer.Option(help="Samples for MODEL, .npz.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Chip to emulate; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Samples of one call; may be repeated.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Timed turns of each engine.")] = 25,
    json: Annotated[Path | None, typer.Option(help="File for the results.")] = None,
) -> None:
    """Measure the golden model's throughput beside ONNX Runtime's, and the cost of a sample on emulated chips.

    Both engines use as many threads and take turns in one process, so that their ratio means something on a noisy
    machine.
    """
    from conformance.bench import as_json, bench_table, emulated_table, measure, speed_table
    from conformance.models import example_models

    if model is None:
        if not (examples := example_models()):
            raise DataError("no example model beside the package: name a MODEL and its --data")
        model, data = next(iter(examples.items()))
    if data is None:
        raise DataError(f"{model}: samples are needed to measure: give --data samples.npz")
    model = model_file(model)
    console = Console()
    with Console(stderr=True).status("") as status:
        report = measure(
            model,
            data,
            targets=target or ["stm32f746", "stm32f407"],
            batches=batch or [64, 512, 2048],
            threads=threads,
            rounds=rounds,
            samples=4,
            progress=lambda what: status.update(f"Measuring {what}"),
        )
    console.print(bench_table(report))
    console.print(emulated_table(report))
    console.print(speed_table(report))
    console.print(", ".join(f"{name} {number}" for name, number in report.versions.items()), highlight=False)
    if json is not None:
        write_whole(json, as_json(report))


def _replay(folder: Path, places: list[str], console: Console) -> None:
    """Run a saved case again where it failed, or at the places named."""
    from conformance import vectors
    from conformance.replay import replay

    vector = vectors.load(folder)
    failed = False
    for name in places or [vector.place]:
        failure, holds = replay(vector, name)
        said = f"[bold red]differs[/]: {escape(failure)}" if failure else f"[green]{holds}[/]"
        console.print(f"{vector.case.op.name} at {name}: {said}", highlight=False, soft_wrap=True)
        failed |= bool(failure)
    if failed:
        raise typer.Exit(1)


def _check_hypothesis() -> None:
    """Say what to install where the one package that only this command needs is missing."""
    if find_spec("hypothesis") is None:
        raise TinyFormerError(
            "this command needs hypothesis, which is not installed; install it with: "
            'pip install "tinyformer[conformance]"'
        )
