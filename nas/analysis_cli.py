"""`tinyformer analyse-space`: acceptance probabilities of search spaces, as in the paper's Fig. 9a."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nas.analysis import Reading, Round
    from nas.resources import Limits


def analyse_space(
    spaces: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SPACE]...", help="Names or .toml files; by default those of the paper's Fig. 9a."),
    ] = None,
    target: Annotated[
        str, typer.Option(help="Name (see `tinyformer targets`) or .toml file of the microcontroller that limits them.")
    ] = "stm32f746",
    samples: Annotated[int, typer.Option(min=1, help="Models drawn from each space.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawing.")] = 0,
    adjust: Annotated[
        bool, typer.Option("--adjust", help="Adjust the dimensions of spaces that are not accepted (Eq. 1-3).")
    ] = False,
    bound: Annotated[
        Literal["L_s", "L_m"], typer.Option(help="Limit that parameters are held against: flash or RAM.")
    ] = "L_s",
    count: Annotated[
        Literal["all", "effective"], typer.Option(help="Parameters that count: all, or those that are not pruned.")
    ] = "all",
    among: Annotated[
        Literal["sampled", "fitting"], typer.Option(help="What accepted models are a share of.")
    ] = "sampled",
    max_flash: Annotated[int | None, typer.Option(min=1, help="Bytes; the target's flash by default.")] = None,
    max_ram: Annotated[int | None, typer.Option(min=1, help="Bytes; the target's RAM by default.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Picture of the models' sizes to write.")] = None,
    json: Annotated[Path | None, typer.Option(help="File for every model drawn.")] = None,
) -> None:
    """Draw models from search spaces and show how many are accepted (Algorithm 1), in each reading of the paper."""
    from codegen.target import load_target
    from nas.analysis import Among, Bound, Count, Reading, Round, acceptance, as_json, draw_samples
    from nas.analysis import adjust as adjust_space
    from nas.analysis_picture import render_sizes
    from nas.resources import Limits, ResourceEval
    from nas.space import load_space
    from refsim.files import write_whole

    reading = Reading(Bound(bound), Count(count), Among(among))
    chip = load_target(target)
    limits, evaluate = Limits(max_flash or chip.code.size, max_ram or chip.data.size), ResourceEval(chip)
    loaded = [load_space(name) for name in spaces or ("small", "normal", "large")]
    rounds: list[Round] = []
    for space in loaded:
        with _progress(space.name, None if adjust else samples) as advance:
            if adjust:
                rounds += adjust_space(space, evaluate, limits, samples, seed=seed, reading=reading, advance=advance)
            else:
                drawn = draw_samples(space, evaluate, limits, samples, seed, advance)
                rounds.append(Round(space, acceptance(drawn, limits, reading), drawn))
    console = Console()
    console.print(_spaces_table(rounds))
    if not adjust:
        console.print(_readings_table(rounds, limits, reading))
    files = {svg: render_sizes(rounds, limits) if svg else "", json: as_json(rounds, limits, seed) if json else ""}
    for path, text in files.items():
        if path:
            write_whole(path, text.encode())
            console.print(f"Wrote {path}.", markup=False, highlight=False)


@contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; what to call after each model."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)


def _spaces_table(rounds: list[Round]) -> Table:
    """Dimensions and sizes of each space's models, and the acceptance probability; bold what is accepted."""
    from nas.analysis import ACCEPTED

    table = Table("space", "dimensions", "last linear", title="sizes, thousands of parameters", pad_edge=False)
    for column in ("least", "median", "most", "fit", "accepted"):
        table.add_column(column, justify="right")
    for step in rounds:
        sizes = sorted(sample.parameters for sample in step.samples)
        fits = [sample.fits for sample in step.samples]
        table.add_row(
            step.space.name,
            "; ".join(" ".join(map(str, stage.dims)) for stage in step.space.stages),
            " ".join(map(str, step.space.last_linear)),
            *(f"{size / 1000:.0f}" for size in (sizes[0], sizes[len(sizes) // 2], sizes[-1])),
            f"{sum(map(bool, fits)) / len(fits):.0%}" if None not in fits else "-",
            f"{step.acceptance.probability:.0%}",
            style="bold" if step.acceptance.probability > ACCEPTED else None,
        )
    return table


def _readings_table(rounds: list[Round], limits: Limits, chosen: Reading) -> Table:
    """The acceptance probability of each space in every reading, the chosen one first."""
    from nas.analysis import PRINTED, READINGS, acceptance

    table = Table(
        "bound", "parameters", "share of", title="acceptance probability (accepted / evaluated)", pad_edge=False
    )
    for step in rounds:
        table.add_column(step.space.name, justify="right")
    for reading in (chosen, *(other for other in READINGS if other != chosen)):
        found = [acceptance(step.samples, limits, reading) for step in rounds]
        note = " (as printed)" if reading == PRINTED else ""
        table.add_row(
            reading.bound.value,
            reading.count.value,
            reading.among.value + note,
            *(f"{one.probability:.0%} ({one.accepted}/{one.evaluated})" if one.evaluated else "-" for one in found),
            style="bold" if reading == chosen else None,
            end_section=reading == chosen,
        )
    return table
