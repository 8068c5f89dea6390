"""The command `tinyformer fit-predictor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from conformance.console import progress_bar, write_whole

if TYPE_CHECKING:
    from codegen.predictor import HeldOutError, Predictor

_IN_SEARCH, _AT_RANDOM, _HELD_OUT = 60, 60, 12


def fit_predictor(
    core: Annotated[list[str] | None, typer.Option(help="Only this core at zero wait states; may be repeated.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="This chip's memories, and its core; may be repeated.")
    ] = None,
    compiler: Annotated[
        Literal["zig", "arm-none-eabi-gcc"] | None, typer.Option(help="zig by default, which comes with the package.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the fits; the package's own by default, where `predict` reads them.")
    ] = None,
) -> None:
    """Fit the predictor of cycles on emulated kernels, and report its error. Run it whenever kernels change.

    By default every core is fitted, and every target that has a fit. What has been measured is kept: a run that was
    interrupted goes on where it was.
    """
    from codegen.predictor import BUILT_IN, Predictor
    from codegen.target import list_targets, load_target
    from conformance.fit_predictor import CHIPS, check_model, fit_core, fit_waits
    from conformance.models import example_models
    from conformance.places import find_toolchain
    from conformance.predictor_samples import draw_samples

    toolchain = find_toolchain(compiler, "cortex-m") if compiler else None
    folder = output or BUILT_IN
    fitted = [name for name in list_targets() if (BUILT_IN / f"{name}.json").exists()]
    targets = [load_target(name) for name in target or ([] if core else fitted)]
    cores = dict.fromkeys([*(core or ([] if target else CHIPS)), *(t.core for t in targets)])
    console = Console()
    predictors: list[Predictor] = []
    with progress_bar() as progress:
        task = progress.add_task("drawing samples", total=None)
        samples = draw_samples(seed, _IN_SEARCH, _AT_RANDOM, _HELD_OUT)

        def advance() -> None:
            progress.advance(task)

        fits = {}
        for name in cores:
            progress.update(task, description=name, total=samples.count, completed=0)
            fits[name] = fit_core(name, samples, seed, toolchain=toolchain, progress=advance)
            write_whole(folder / f"{name}.json", fits[name].as_json())
            predictors.append(Predictor(fits[name]))
        for chip in targets:
            progress.update(task, description=chip.name, total=samples.count, completed=0)
            waits = fit_waits(chip, fits[chip.core], samples, seed, toolchain=toolchain, progress=advance)
            write_whole(folder / f"{chip.name}.json", waits.as_json())
            predictors.append(Predictor(fits[chip.core], waits, chip))
        progress.update(task, description="models", total=None)
        models = [
            check_model(predictor, model, data, toolchain)
            for predictor in predictors
            for model, data in example_models().items()
        ]
    console.print(_error_table(predictors))
    for found in models:
        shown = f"{found.measured:,.0f} cycles, predicted {found.error:+.2%}"
        console.print(f"{found.model} on {found.chip}: {shown}", highlight=False)


def _error_table(predictors: list[Predictor]) -> Table:
    """Errors of predicted cycles; for a target those of all cycles, its waits included."""
    columns = [
        (p.waits.name, p.waits.errors["waits"]) if p.waits else (p.core.name, p.core.errors["cycles"])
        for p in predictors
    ]
    title = "Error of predicted cycles on shapes held out, %: median / 90th percentile / worst"
    table = Table("kernel (shapes)", title=title)
    for name, _ in columns:
        table.add_column(name, justify="right")
    kernels = {kernel: error.samples for _, errors in columns for kernel, error in errors.items()}
    for kernel, samples in kernels.items():
        cells = (_error_cell(errors.get(kernel)) for _, errors in columns)
        table.add_row(f"{kernel.removeprefix('tnf_')} ({samples})", *cells)
    return table


def _error_cell(error: HeldOutError | None) -> str:
    """Empty where the core does not run the kernel."""
    figures = (error.median, error.percentile90, error.worst) if error else ()
    return " / ".join(f"{100 * figure:.1f}" for figure in figures)
