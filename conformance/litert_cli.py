"""The command `tinyformer litert`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from conformance.console import progress_bar

if TYPE_CHECKING:
    from conformance.litert import Agreement


def litert(
    model: Annotated[list[Path], typer.Argument(help="int8 .tflite files.")],
    samples: Annotated[int, typer.Option(min=0, help="Number of random samples; every tensor is compared.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the random bytes.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Real samples too, .npz: 'images' or 'inputs'.")] = None,
    mean: Annotated[float, typer.Option(help="Of uint8 images: the input is (pixel - mean) / std.")] = 0.0,
    std: Annotated[float, typer.Option(help="See --mean.")] = 1.0,
    real: Annotated[int, typer.Option(min=0, help="Of how many samples of --data every tensor is compared.")] = 1000,
    outputs: Annotated[bool, typer.Option(help="Compare the outputs of all samples of --data too.")] = False,
) -> None:
    """Hold the graphs of .tflite files to LiteRT's reference kernels, byte for byte; exits with 1 if one differs."""
    from codegen.tflite import load
    from conformance.litert import compare, random_samples
    from refsim.errors import located
    from refsim.samples import Preprocessing, model_inputs, read_archive

    table = Table("model", "samples")
    for column in ("tensors", "bytes", "differ", "same class", "times as fast"):
        table.add_column(column, justify="right")
    failed = False
    for path in model:
        graph = load(path)
        sets = {"random": (random_samples(graph, samples, seed), True)} if samples else {}
        if data is not None:
            with located(str(data)):
                given = model_inputs(read_archive(data), graph.input_shapes, Preprocessing(mean, std))
            bytes_ = {port.name: graph.tensors[port.tensor].quantize(given[port.name]) for port in graph.inputs}
            if real:
                sets[f"{data.name}, every tensor"] = ({name: x[:real] for name, x in bytes_.items()}, True)
            if outputs:
                sets[f"{data.name}, outputs"] = (bytes_, False)
        for name, (batch, every_tensor) in sets.items():
            with progress_bar() as progress:
                task = progress.add_task(f"{path.name}: {name}", total=len(next(iter(batch.values()))))
                found = compare(path, batch, every_tensor=every_tensor, progress=partial(progress.advance, task))
            failed |= bool(found.differing)
            table.add_row(*_row(path, name, found))
    Console().print(table)
    if failed:
        raise typer.Exit(1)


def _row(path: Path, name: str, found: Agreement) -> list[str]:
    differ = sum(found.differing.values())
    named = "".join(f"\n{tensor}: {wrong}" for tensor, wrong in found.differing.items())
    return [
        path.name,
        f"{name}: {found.samples}",
        str(found.tensors),
        str(found.bytes),
        f"{differ}{named}",
        str(found.same_class),
        f"{found.speedup:.0f}",
    ]
