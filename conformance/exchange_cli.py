"""The commands that write test vectors for other engines, and hold an engine to them."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from conformance.console import progress_bar, write_whole

vectors = typer.Typer(help="Test vectors for other engines: write a suite, run an engine on it.", no_args_is_help=True)


@vectors.command()
def export(
    folder: Annotated[Path, typer.Argument(help="New folder for the suite.")],
    operator: Annotated[list[str] | None, typer.Option(help="Only this operator; may be repeated.")] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases for each operator.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cases.")] = 0,
    model: Annotated[
        list[Path] | None, typer.Option(help="QDQ ONNX or .tflite, not the examples; may be repeated.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Samples for --model, .npz; random bytes by default.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each model, every tensor of each.")] = 2,
    models: Annotated[bool, typer.Option("--models/--no-models", help="Write models too.")] = True,
) -> None:
    """Write a suite of operators, whole models and descriptors that must be refused (docs/vectors.md).

    --operator or --model writes that alone.
    """
    from conformance.exchange.export import export as write
    from conformance.models import example_models, read_model
    from conformance.runner import choose_operators

    chosen = dict.fromkeys(model, data) if model else example_models() if models and not operator else {}
    operators = choose_operators(operator or []) if operator or not model else []
    with progress_bar() as progress:
        task = progress.add_task("writing vectors", total=len(operators) + len(chosen))
        read = [read_model(path, samples_file, samples) for path, samples_file in chosen.items()]
        count = write(
            folder,
            operators,
            read,
            count=cases,
            samples=samples,
            seed=seed,
            progress=lambda: progress.advance(task),
        )
    Console().print(f"{folder}: {count:,} cases", highlight=False)


@vectors.command()
def run(
    folder: Annotated[Path, typer.Argument(help="A suite that `export` wrote.")],
    engine: Annotated[str, typer.Option(help="Command of the engine; a case's folder and one for outputs follow.")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one case.")] = 60.0,
    json: Annotated[Path | None, typer.Option(help="File for the results.")] = None,
) -> None:
    """Hold an engine to a suite, byte for byte. Exits with 1 where a case differs or nothing could be computed."""
    from conformance.exchange import engine as engines

    with progress_bar() as progress:
        task = progress.add_task("running cases", total=len(engines.read_index(folder)))
        trial = engines.run(folder, shlex.split(engine), timeout=timeout, progress=lambda: progress.advance(task))
    Console().print(trial.render())
    if json is not None:
        write_whole(json, trial.as_json())
    if not trial.passed:
        raise typer.Exit(1)
