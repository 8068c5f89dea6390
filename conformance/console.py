"""What the commands of this package share: an option, a progress bar, and files that appear whole or not at all."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from refsim import files

Numerics = Annotated[
    Literal["litert", "cmsis-nn"], typer.Option(help="Whose bytes a .tflite model gives, as for `tinyformer generate`.")
]


def progress_bar() -> Progress:
    """A bar on stderr that is gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        TinyFormerError: it cannot be written.
    """
    files.write_whole(path, text.encode())
