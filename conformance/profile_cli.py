"""The command `tinyformer profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from conformance.console import Numerics, progress_bar, write_whole


def profile(
    model: Annotated[Path, typer.Argument(help="Quantised model: QDQ ONNX or .tflite.")],
    target: Annotated[str, typer.Option(help="Name (see `tinyformer targets`) or .toml file of the microcontroller.")],
    data: Annotated[Path | None, typer.Option(help="Samples, .npz; random bytes by default.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of samples; figures are their means.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of random bytes.")] = 0,
    numerics: Numerics = "litert",
    timing: Annotated[
        Literal["memory", "zero-wait"] | None,
        typer.Option(help="With waits for flash and RAM, or without; memory where the target describes it."),
    ] = None,
    compiler: Annotated[
        Literal["zig", "arm-none-eabi-gcc"] | None, typer.Option(help="zig by default, which comes with the package.")
    ] = None,
    opt: Annotated[Literal["O1", "O2", "O3", "Os"], typer.Option(help="Optimisation; zig makes O1 and O3 O2.")] = "O2",
    json: Annotated[Path | None, typer.Option(help="File for the profile; --compare reads it.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for a page with bars and flames.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Earlier --json: show what a change did.")] = None,
) -> None:
    """Show where a model's cycles go on a chip: time and energy, by layer and operator.

    Every tensor is held to the golden model; exits with 1 where one differs.
    """
    from conformance.models import read_model
    from conformance.places import find_toolchain
    from conformance.profile import as_json, compare_profiles, measure, read_profile
    from conformance.profile_report import WIDE, page, render, render_comparison
    from conformance.timing.cycles import Timing

    earlier = read_profile(compare) if compare else None
    under_test = read_model(model, data, images, seed=seed, numerics=numerics)
    with progress_bar() as progress:
        task = progress.add_task(f"{under_test.graph.name} on {target}", total=under_test.count)
        measured = measure(
            under_test,
            target,
            timing=Timing(timing) if timing else None,
            data=data.name if data else "random bytes",
            seed=None if data else seed,
            toolchain=find_toolchain(compiler, "cortex-m") if compiler else None,
            opt=f"-{opt}",
            progress=lambda: progress.advance(task),
        )
    comparison = compare_profiles(earlier, measured) if earlier else None
    if json is not None:
        write_whole(json, as_json(measured))
    if html is not None:
        write_whole(html, page(measured, comparison))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    console.print(render(measured, console.width))
    if comparison is not None:
        console.print(render_comparison(comparison, console.width))
