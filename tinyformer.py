"""The command line: gathers the sub-commands that the packages bring, and nothing else."""

import sys
from importlib.metadata import version

import codegen.cli
import conformance.cli
import typer
from rich.console import Console

import nas.cli
from refsim.errors import TinyFormerError

app = typer.Typer(
    name="tinyformer",
    help="Bit-exact simulator and kernel verification toolkit for sparse INT8 transformers on Cortex-M.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for package in (codegen.cli, conformance.cli, nas.cli):
    package.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tinyformer {version('tinyformer')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 2."""
    try:
        app()
    except TinyFormerError as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {' '.join(str(error).split())}", highlight=False, soft_wrap=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
