"""The command `tinyformer bench-models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from conformance.console import Numerics, write_whole

_WIDE = 132
"""Columns of a table that is not printed to a terminal."""


def bench_models(
    models: Annotated[list[Path], typer.Argument(help="Quantised models: QDQ ONNX or .tflite.")],
    target: Annotated[list[str] | None, typer.Option(help="Chip to emulate; may be repeated.")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="resnet8, dscnn or none, one for each model in order; by default the file's name tells."),
    ] = None,
    optimise: Annotated[
        Literal["size", "speed", "balanced"], typer.Option(help="What kernels are chosen for.")
    ] = "balanced",
    numerics: Numerics = "litert",
    compiler: Annotated[
        Literal["zig", "arm-none-eabi-gcc"] | None, typer.Option(help="zig by default, which comes with the package.")
    ] = None,
    opt: Annotated[Literal["O1", "O2", "O3", "Os"], typer.Option(help="Optimisation; zig makes O1 and O3 O2.")] = "O2",
    seed: Annotated[int, typer.Option(min=0, help="Of the sample, random bytes.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the results.")] = None,
) -> None:
    """Measure what whole models cost, beside CMSIS-NN, published boards and the goals for the networks of MLPerf Tiny.

    Cycles are those of the timing model: with memory that never waits, as the goal's and the peer's, and with the
    chip's flash and caches, as a board's. Every tensor is held to the golden model; exits with 1 where one differs.
    """
    from codegen.choose import Optimise
    from conformance.model_bench import as_json, measure, tables
    from conformance.places import find_toolchain

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
    with Console(stderr=True).status("") as status:
        report = measure(
            models,
            target or ["stm32h7a3", "stm32l4r5"],
            baselines=baseline or (),
            optimise=Optimise(optimise),
            numerics=numerics,
            seed=seed,
            toolchain=find_toolchain(compiler, "cortex-m") if compiler else None,
            opt=f"-{opt}",
            progress=lambda what: status.update(f"Measuring {what}"),
        )
    for table in tables(report):
        console.print(table)
    console.print(f"peer: {report.peer}; board: {report.board}", highlight=False)
    if json is not None:
        write_whole(json, as_json(report))
