"""The command `tinyformer bench-kernels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from conformance.console import write_whole


def bench_kernels(
    case: Annotated[list[str] | None, typer.Option(help="Only cases with this in their name; may be repeated.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Chip to emulate; may be repeated.")] = None,
    sparsity: Annotated[
        list[int] | None,
        typer.Option(
            min=0, max=99, help="Per cent of blocks of weights that are zero; may be repeated. 70 by default."
        ),
    ] = None,
    compiler: Annotated[
        Literal["zig", "arm-none-eabi-gcc"] | None, typer.Option(help="zig by default, which comes with the package.")
    ] = None,
    opt: Annotated[Literal["O1", "O2", "O3", "Os"], typer.Option(help="Optimisation; zig makes O1 and O3 O2.")] = "O2",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and activations.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the results; --compare reads it.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Earlier --json: show what a change did.")] = None,
    svg: Annotated[Path | None, typer.Option(help="File for a plot of cycles against sparsity.")] = None,
) -> None:
    """Measure what each kernel costs a multiply-accumulate or element, beside CMSIS-NN and the goals.

    Instructions are exact; cycles are those of the timing model with memory that never waits. Every byte is held to the
    golden model; exits with 1 where one differs.
    """
    from conformance.kernel_bench import CMSIS_NN, PAPER, SPARSE_GOALS_AT, choose_cases, measure
    from conformance.kernel_bench_report import WIDE, as_json, plot, read_cycles, tables
    from conformance.places import find_toolchain

    earlier = read_cycles(compare) if compare else None
    console = Console()
    with Console(stderr=True).status("") as status:
        report = measure(
            choose_cases(case or []),
            target or ["stm32f746", "stm32f407"],
            sparsities=sparsity or [SPARSE_GOALS_AT],
            seed=seed,
            toolchain=find_toolchain(compiler, "cortex-m") if compiler else None,
            opt=f"-{opt}",
            progress=lambda what: status.update(f"Measuring {what}"),
        )
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    for table in tables(report, earlier):
        console.print(table)
    console.print(f"peer: {CMSIS_NN}; of layernorm {PAPER}", highlight=False)
    if json is not None:
        write_whole(json, as_json(report))
    if svg is not None:
        write_whole(svg, plot(report))
