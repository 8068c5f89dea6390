"""The command `tinyformer verify`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from conformance.console import progress_bar
from refsim.errors import DataError, TinyFormerError, ToolchainError

if TYPE_CHECKING:
    from conformance.toolchain import Toolchain
    from conformance.verify.result import Report

SAMPLES = 8
"""Of the user's samples, those that run at every place by default."""

FAILED, BROKEN = 1, 3
_ALIASES = {"gcc": "arm-none-eabi-gcc"}


def verify(
    model: Annotated[Path, typer.Argument(help="Quantised model, QDQ ONNX.")],
    target: Annotated[list[str], typer.Option(help="Name or .toml file of the microcontroller; may be repeated.")],
    data: Annotated[Path | None, typer.Option(help="Samples, .npz: they run beside the adversarial ones.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of the data, how many run at every place.")] = SAMPLES,
    generated: Annotated[Path | None, typer.Option(help="Folder generated earlier: build the C in it.")] = None,
    compiler: Annotated[str | None, typer.Option(help="zig, gcc, or both: zig,gcc. By default zig.")] = None,
    opt: Annotated[str, typer.Option(help="Optimisation: O2, Os, O1, O3, or several: O2,Os.")] = "O2",
    optimise: Annotated[
        Literal["size", "speed", "balanced"], typer.Option(help="What sparse weights are encoded for.")
    ] = "balanced",
    max_ms: Annotated[float | None, typer.Option(help="Most milliseconds that a run may take, by estimate.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Most accuracy that int8 may cost, percentage points; needs --float, labels.")
    ] = None,
    float_model: Annotated[Path | None, typer.Option("--float", help="Float model, ONNX.")] = None,
    require: Annotated[list[str] | None, typer.Option(help="Check that must have run, such as qemu.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the reports.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random samples.")] = 0,
) -> None:
    """Validate a model's C before it is flashed: memory, every byte, every access, stack, time.

    Exits with 0 where everything passed, 1 where a check failed, 2 where the command or a file is wrong, 3 where the
    tool itself failed.
    """
    console = Console()
    try:
        found = _verify(
            model,
            target,
            data,
            samples,
            generated,
            compiler,
            opt,
            optimise,
            max_ms,
            max_drop,
            float_model,
            report,
            seed,
        )
        from conformance.verify.reports import print_report

        print_report(found, console)
        failed = _failed(found, require or [])
    except TinyFormerError:
        raise
    except Exception as error:
        Console(stderr=True).print_exception()
        raise typer.Exit(BROKEN) from error
    if failed:
        raise typer.Exit(FAILED)


def _verify(
    model: Path,
    targets: Sequence[str],
    data: Path | None,
    count: int,
    folder: Path | None,
    compilers: str | None,
    opts: str,
    optimise: str,
    max_ms: float | None,
    max_drop: float | None,
    float_model: Path | None,
    out: Path | None,
    seed: int,
) -> Report:
    """Run what the command line asks for, and write the reports."""
    from codegen.emit import Optimise
    from codegen.target import load_target
    from conformance.models import ModelUnderTest, read_model
    from conformance.verify.reports import append_step_summary, write_reports
    from conformance.verify.runner import Plan
    from conformance.verify.runner import verify as run

    if max_drop is not None and (float_model is None or data is None):
        raise DataError("--max-drop compares with a float model on labelled samples: give --float and --data")
    chips = [load_target(name) for name in dict.fromkeys(targets)]
    toolchains = _toolchains(compilers)
    levels = [f"-{level.lstrip('-')}" for level in dict.fromkeys(opts.split(","))]
    if unknown := [level for level in levels if level not in ("-O1", "-O2", "-O3", "-Os")]:
        raise TinyFormerError(f"there is no optimisation {unknown[0][1:]!r}; there are O1, O2, O3, Os")
    under_test = read_model(model, data, count, seed=seed)
    if data is None:
        under_test = ModelUnderTest(under_test.graph, {name: x[:0] for name, x in under_test.samples.items()})
    plan = Plan(
        path=model,
        model=under_test,
        targets=chips,
        toolchains=toolchains,
        opts=levels,
        data=data,
        folder=folder,
        optimise=Optimise(optimise),
        max_ms=max_ms,
        max_drop=max_drop,
        float_model=float_model,
        seed=seed,
        command=shlex.join(["tinyformer", *sys.argv[1:]]),
    )
    with progress_bar() as progress:
        task = progress.add_task("reading", total=plan.stages)

        def tell(what: str) -> None:
            progress.update(task, description=what, advance=1)

        found, attachments = run(plan, tell)
    if out is not None:
        write_reports(found, out, attachments)
    append_step_summary(found)
    return found


def _toolchains(names: str | None) -> list[Toolchain]:
    """The compilers named; the preferred one where none is.

    Raises:
        ToolchainError: one is not here.
    """
    from conformance.toolchain import arm_toolchains, available_toolchains

    if names is None:
        return [arm_toolchains()[0]]
    known = {status.name: status for status in available_toolchains() if status.kind == "cortex-m"}
    found = []
    for name in dict.fromkeys(_ALIASES.get(name, name) for name in names.split(",")):
        if name not in known:
            raise ToolchainError(f"there is no compiler {name!r}; there are {', '.join((*known, *_ALIASES))}")
        if (toolchain := known[name].toolchain) is None:
            raise ToolchainError(f"compiler {name}: {known[name].detail}")
        found.append(toolchain)
    return found


def _failed(report: Report, required: Sequence[str]) -> bool:
    """Whether a check failed, or one that had to run did not."""
    from conformance.verify.result import Outcome

    names = {check.name for check in report.checks}
    if unknown := [name for name in required if name not in names]:
        raise TinyFormerError(f"there is no check {unknown[0]!r}; there are {', '.join(sorted(names))}")
    skipped = any(check.name in required and check.outcome is Outcome.NOT_RUN for check in report.checks)
    return report.verdict is not Outcome.PASSED or skipped
