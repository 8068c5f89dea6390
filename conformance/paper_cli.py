"""The command `tinyformer paper`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from refsim.errors import TinyFormerError

SECTIONS = ("table2", "table3", "table4", "fig9", "fig10", "fig11")


def paper(
    section: Annotated[
        list[str] | None, typer.Argument(help=f"{', '.join(SECTIONS)}; all by default.", metavar="[SECTION]...")
    ] = None,
    document: Annotated[
        Path, typer.Option(help="Markdown file with a marked part for each section; results lie beside it.")
    ] = Path("docs/paper.md"),
    data: Annotated[Path | None, typer.Option(help="Labelled test images of CIFAR-10, .npz, for accuracies.")] = None,
    resnet8: Annotated[Path | None, typer.Option(help="MLPerf Tiny's ResNet-8, .tflite, for Table II.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what was measured with these kernels.")] = False,
) -> None:
    """The TinyFormer paper's tables and figures, made with this engine beside what the paper prints.

    Results are kept and used again while kernels, compiler and settings are the same. Without --data and --resnet8,
    what was measured with them earlier stays.
    """
    from conformance.paper.workspace import Workspace

    names = list(dict.fromkeys(section or SECTIONS))
    if unknown := [name for name in names if name not in SECTIONS]:
        raise TinyFormerError(f"the paper has no {unknown[0]!r} here; there are {', '.join(SECTIONS)}")
    console = Console()
    for name in names:
        with Console(stderr=True).status(name) as status:
            workspace = Workspace(document, data, resnet8, fresh, status.update)
            workspace.check(name)
            made = import_module(f"conformance.paper.{name}").build(workspace)
            workspace.write(name, made)
        for claim in made.claims:
            console.print(f"{claim.what}: {claim.here} (paper: {claim.paper}); {claim.verdict}", highlight=False)
    console.print(f"Wrote {document}.", markup=False, highlight=False)
