"""The command `tinyformer verify`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from conformance.console import Numerics, progress_bar
from refsim.errors import DataError, TinyFormerError, ToolchainError

if TYPE_CHECKING:
    from conformance.toolchain import Toolchain
    from conformance.verify.result import Report

SAMPLES = 8
"""Of the user's samples, those that run at every place by default."""

FAILED = 1
LEVELS = ("O1", "O2", "O3", "Os")
_ALIASES = {"gcc": "arm-none-eabi-gcc"}


def verify(
    model: Annotated[Path, typer.Argument(help="Quantised model: QDQ ONNX or .tflite.")],
    target: Annotated[list[str], typer.Option(help="Name or .toml file of the microcontroller; may be repeated.")],
    data: Annotated[Path | None, typer.Option(help="Samples, .npz: they run beside the adversarial ones.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of the data, how many run at every place.")] = SAMPLES,
    generated: Annotated[Path | None, typer.Option(help="Folder generated earlier: build the C in it.")] = None,
    elf: Annotated[Path | None, typer.Option(help="Linked image of yours, around the generated C: examine it.")] = None,
    map_file: Annotated[Path | None, typer.Option("--map", help="Map of --elf, for symbols that it lacks.")] = None,
    run_symbol: Annotated[str, typer.Option(help="The model's function in --elf.")] = "model_run",
    arena_symbol: Annotated[str, typer.Option(help="The variable in --elf that is the arena.")] = "arena",
    compiler: Annotated[
        list[str] | None, typer.Option(help="zig, gcc, or several: zig,gcc; may be repeated. By default zig.")
    ] = None,
    opt: Annotated[
        list[str] | None,
        typer.Option(help="Optimisation: O1, O2, O3, Os, or several: O2,Os; may be repeated. By default O2."),
    ] = None,
    optimise: Annotated[
        Literal["size", "speed", "balanced"], typer.Option(help="What sparse weights are encoded for.")
    ] = "balanced",
    numerics: Numerics = "litert",
    max_ms: Annotated[float | None, typer.Option(help="Most milliseconds that a run may take, by estimate.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Most accuracy that int8 may cost, percentage points; needs --float, labels.")
    ] = None,
    float_model: Annotated[Path | None, typer.Option("--float", help="Float model, ONNX.")] = None,
    flag: Annotated[list[str] | None, typer.Option(help="Further compiler flag; may be repeated.")] = None,
    check: Annotated[list[str] | None, typer.Option(help="Only this check; may be repeated.")] = None,
    require: Annotated[list[str] | None, typer.Option(help="Check that must have run, such as qemu.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the reports.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random samples.")] = 0,
) -> None:
    """Validate a model's C before it is flashed: memory, every byte, every access, stack, time.

    Exits with 0 where everything passed, 1 where a check failed, 2 where the command or a file is wrong, 3 where the
    tool itself failed.
    """
    from codegen.choose import Optimise
    from codegen.target import load_target
    from conformance.models import ModelUnderTest, read_model
    from conformance.verify.checks import Compiler
    from conformance.verify.given import Given, image_symbols
    from conformance.verify.reports import append_step_summary, print_report, write_reports
    from conformance.verify.runner import CHECKS, Plan
    from conformance.verify.runner import verify as run

    if max_drop is not None and (float_model is None or data is None):
        raise DataError("--max-drop compares with a float model on labelled samples: give --float and --data")
    if elf is None and map_file is not None:
        raise DataError("--map is the map of an image: give it with --elf")
    if elf is not None and len(target) != 1:
        raise DataError("--elf is an image for one chip: give one --target")
    image = Given(elf, image_symbols(elf, map_file), run_symbol, arena_symbol) if elf else None
    wanted = frozenset(_known("check", check or CHECKS, CHECKS))
    required = frozenset(_known("check", require or [], CHECKS))
    chips = [load_target(name) for name in dict.fromkeys(target)]
    levels = _known("optimisation", [level.lstrip("-") for level in _listed(opt) or ["O2"]], LEVELS)
    tools = _toolchains(_listed(compiler))
    compilers = [Compiler(tool, f"-{level}", tuple(flag or ())) for tool in tools for level in levels]
    under_test = read_model(model, data, samples, seed=seed, numerics=numerics)
    if data is None:
        under_test = ModelUnderTest(under_test.graph, {name: x[:0] for name, x in under_test.samples.items()})
    plan = Plan(
        path=model,
        model=under_test,
        targets=chips,
        compilers=compilers,
        wanted=wanted | required,
        data=data,
        folder=generated,
        given=image,
        optimise=Optimise(optimise),
        max_ms=max_ms,
        max_drop=max_drop,
        float_model=float_model,
        seed=seed,
        command=shlex.join(["tinyformer", *sys.argv[1:]]),
    )
    with progress_bar() as progress:
        task = progress.add_task("reading", total=plan.stages)
        found, attachments = run(plan, lambda what: progress.update(task, description=what, advance=1))
    if report is not None:
        write_reports(found, report, attachments)
    append_step_summary(found)
    print_report(found, Console())
    if not _safe(found, required):
        raise typer.Exit(FAILED)


def _known(kind: str, names: Iterable[str], known: Sequence[str]) -> list[str]:
    """The names, each once.

    Raises:
        TinyFormerError: one is not known.
    """
    if unknown := [name for name in names if name not in known]:
        raise TinyFormerError(f"there is no {kind} {unknown[0]!r}; there are {', '.join(known)}")
    return list(dict.fromkeys(names))


def _listed(given: Sequence[str] | None) -> list[str]:
    """An option's values: each may be several with commas between them, and the option may be repeated."""
    return [name for value in given or () for name in value.split(",")]


def _toolchains(names: Sequence[str]) -> list[Toolchain]:
    """The compilers named; the preferred one where none is.

    Raises:
        ToolchainError: one is not here.
    """
    from conformance.toolchain import arm_toolchains, available_toolchains

    if not names:
        return [arm_toolchains()[0]]
    known = {status.name: status for status in available_toolchains() if status.kind == "cortex-m"}
    found = []
    for name in dict.fromkeys(_ALIASES.get(name, name) for name in names):
        if name not in known:
            raise ToolchainError(f"there is no compiler {name!r}; there are {', '.join((*known, *_ALIASES))}")
        if (toolchain := known[name].toolchain) is None:
            raise ToolchainError(f"compiler {name}: {known[name].detail}")
        found.append(toolchain)
    return found


def _safe(report: Report, required: Set[str]) -> bool:
    """Whether nothing failed, something passed, and what had to run did."""
    from conformance.verify.result import Outcome

    skipped = any(check.name in required and check.outcome is Outcome.NOT_RUN for check in report.checks)
    return report.verdict is Outcome.PASSED and not skipped
