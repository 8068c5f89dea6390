"""The command `tinyformer bench-network`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from conformance.console import write_whole


def bench_network(
    target: Annotated[list[str] | None, typer.Option(help="Chip to emulate; may be repeated.")] = None,
    sparsity: Annotated[
        list[int] | None,
        typer.Option(min=0, max=95, help="Per cent of blocks of weights that are zero; may be repeated."),
    ] = None,
    block: Annotated[int, typer.Option(min=1, max=4, help="Weights of a block: 1, 2 or 4.")] = 4,
    optimise: Annotated[
        Literal["size", "speed", "balanced"], typer.Option(help="What sparse weights are encoded for.")
    ] = "balanced",
    compiler: Annotated[
        Literal["zig", "arm-none-eabi-gcc"] | None, typer.Option(help="zig by default, which comes with the package.")
    ] = None,
    opt: Annotated[Literal["O1", "O2", "O3", "Os"], typer.Option(help="Optimisation; zig makes O1 and O3 O2.")] = "O2",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and images.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the results.")] = None,
    svg: Annotated[Path | None, typer.Option(help="File for a plot of latency and storage against sparsity.")] = None,
) -> None:
    """Measure what a network of the TinyFormer paper's size costs by the sparsity of its weights.

    Instructions are exact; cycles are those of the timing model with memory that never waits, milliseconds with the
    chip's flash and caches. Every tensor is held to the golden model; exits with 1 where one differs.
    """
    from codegen.choose import Optimise
    from conformance.kernel_bench import CMSIS_NN
    from conformance.kernel_bench_report import WIDE
    from conformance.network_bench import as_json, measure, plot, table
    from conformance.places import find_toolchain

    console = Console()
    with Console(stderr=True).status("") as status:
        report = measure(
            target or ["stm32f746", "stm32f767", "stm32f407"],
            sparsity or [0, 40, 60, 70, 80, 90],
            block=block,
            optimise=Optimise(optimise),
            seed=seed,
            toolchain=find_toolchain(compiler, "cortex-m") if compiler else None,
            opt=f"-{opt}",
            progress=lambda what: status.update(f"Measuring {what}"),
        )
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    console.print(table(report))
    console.print(f"peer: the dense network, {CMSIS_NN}", highlight=False)
    if json is not None:
        write_whole(json, as_json(report))
    if svg is not None:
        write_whole(svg, plot(report))
