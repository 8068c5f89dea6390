"""The command that sets the cycle model beside published measurements."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from conformance.console import write_whole
from refsim.errors import ConformanceError, DataError


def validate_timing(
    compiler: Annotated[
        str | None, typer.Option(help="Compiler of the kernels; arm-none-eabi-gcc by default where it is here.")
    ] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only cases whose name holds this; may be repeated.")] = None,
    json: Annotated[Path | None, typer.Option(help="File for the results.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="File for the tables of docs/cycle-model.md.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for a plot, .svg: published against estimated.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make the bands found those that estimates are printed with.")
    ] = False,
) -> None:
    """Estimate programs whose run time was published, and show the error of each.

    Exits with 1 where a measurement lies outside the error band that estimates are printed with. The bands rest on
    kernels built by the compiler that they were updated with; those of another compiler are only shown.
    """
    from conformance.validation import report
    from conformance.validation.band import BANDS_FILE, band_compiler, bands_as_json
    from conformance.validation.cases import load_cases
    from conformance.validation.runner import choose_toolchain, outside, validate

    wanted = [part.lower() for part in case or []]
    chosen = [c for c in load_cases() if not wanted or any(part in c.name.lower() for part in wanted)]
    if not chosen:
        raise DataError(f"no case is called {' or '.join(wanted)}; there are {', '.join(c.name for c in load_cases())}")
    if update and wanted:
        raise DataError("--update needs every case: leave --case out")
    tool = choose_toolchain(compiler)
    with Console(stderr=True).status("") as status:
        found = validate(chosen, tool, lambda what: status.update(f"Running {what}"))
    Console().print(report.render(found))
    for path, text in ((json, report.as_json), (markdown, report.markdown), (plot, report.plot)):
        if path is not None:
            write_whole(path, text(found))
    if update:
        write_whole(BANDS_FILE, bands_as_json(found.bands, tool.name, tool.version))
    elif tool.name == band_compiler() and (beyond := outside(found)):
        raise ConformanceError(f"outside the error band: {'; '.join(beyond)}; look at what changed, or pass --update")
