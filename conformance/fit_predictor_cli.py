"""The command `tinyformer fit-predictor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from conformance.console import progress_bar, write_whole

_IN_SEARCH, _AT_RANDOM, _HELD_OUT = 30, 60, 12


def fit_predictor(
    core: Annotated[list[str] | None, typer.Option(help="Only this core; may be repeated.")] = None,
    compiler: Annotated[
        Literal["zig", "arm-none-eabi-gcc"] | None, typer.Option(help="zig by default, which comes with the package.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the fits; the package's own by default, where `predict` reads them.")
    ] = None,
) -> None:
    """Fit the predictor of cycles on emulated kernels, and report its error. Run it whenever kernels change.

    What has been measured is kept: a run that was interrupted goes on where it was.
    """
    from codegen.predictor import BUILT_IN, METRICS
    from conformance.fit_predictor import CHIPS, check_model, fit_core
    from conformance.places import find_toolchain
    from conformance.predictor_samples import draw_samples
    from conformance.runner import example_models

    toolchain = find_toolchain(compiler, "cortex-m") if compiler else None
    folder = output or BUILT_IN
    console = Console()
    predictors = []
    with progress_bar() as progress:
        task = progress.add_task("drawing samples", total=None)
        samples = draw_samples(seed, _IN_SEARCH, _AT_RANDOM, _HELD_OUT)
        for name in dict.fromkeys(core or CHIPS):
            progress.update(task, description=name, total=samples.count, completed=0)
            predictor = fit_core(name, samples, seed, toolchain=toolchain, progress=lambda: progress.advance(task))
            write_whole(folder / f"{name}.json", predictor.as_json())
            predictors.append(predictor)
        progress.update(task, description="models", total=None)
        models = [
            check_model(predictor, model, data, toolchain)
            for predictor in predictors
            for model, data in example_models().items()
        ]
    for metric in METRICS:
        title = f"Error of predicted {metric} on shapes held out, %: median / 90th percentile / worst"
        table = Table("kernel (shapes)", title=title)
        for predictor in predictors:
            table.add_column(predictor.core, justify="right")
        for kernel in predictors[0].errors[metric]:
            errors = [predictor.errors[metric][kernel] for predictor in predictors]
            cells = (" / ".join(f"{100 * v:.1f}" for v in (e.median, e.percentile90, e.worst)) for e in errors)
            table.add_row(f"{kernel.removeprefix('tnf_')} ({errors[0].samples})", *cells)
        console.print(table)
    for found in models:
        shown = ", ".join(f"{metric} {found.measured[metric]:,.0f} {found.error(metric):+.2%}" for metric in METRICS)
        console.print(f"{found.model} on {found.core}: {shown}", highlight=False)
