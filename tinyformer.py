"""The command line: gathers the sub-commands that the packages bring, and nothing else."""

import sys
from importlib.metadata import version

import typer
from rich.console import Console
from rich.markup import escape

import codegen.cli
import conformance.cli
import nas.cli
import refsim.cli
from refsim.errors import ConformanceError, TinyFormerError

app = typer.Typer(
    name="tinyformer",
    help="Bit-exact simulator and kernel verification toolkit for sparse INT8 transformers on Cortex-M.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for package in (codegen.cli, refsim.cli, conformance.cli, nas.cli):
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
    """Run the command line.

    An error is one line: exit code 1 where C and golden model differ, 2 for any other. What nobody foresaw is shown
    with its traceback and has exit code 3, so that it is not taken for a verdict.
    """
    try:
        app()
    except TinyFormerError as error:
        message = escape(" ".join(str(error).split()))
        Console(stderr=True).print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
        sys.exit(1 if isinstance(error, ConformanceError) else 2)
    except Exception:
        console = Console(stderr=True)
        console.print_exception()
        console.print("[bold red]error:[/] tinyformer itself failed; please report this with the lines above")
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
