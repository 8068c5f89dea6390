"""`tinyformer ablate-compression`: what each technique of the compression brings, measured on a small budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.data import DATA_VARIABLE
from refsim.errors import TinyFormerError

if TYPE_CHECKING:
    from nas.space import Architecture


def ablate_compression(
    space: Annotated[str, typer.Argument(help="Name or .toml file of the space that the network is drawn from.")],
    data: Annotated[Path | None, typer.Option(envvar=DATA_VARIABLE, help="Folder with labelled images.")] = None,
    images: Annotated[int, typer.Option(min=1, help="To train on.")] = 10000,
    test_images: Annotated[int, typer.Option(min=1, help="For the accuracies.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Of training the network, and its teacher, before.")] = 20,
    prune_epochs: Annotated[int, typer.Option(min=1, help="Of training with gradual pruning.")] = 10,
    tune_epochs: Annotated[int, typer.Option(min=1, help="Of training what is left.")] = 10,
    sparsity: Annotated[float, typer.Option(min=0, max=0.99, help="Share of each layer's blocks that goes.")] = 0.7,
    block: Annotated[int, typer.Option(help="Weights of a block, 2 or 4.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the network, the images and the training.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; 1 makes a run repeatable.")] = 1,
    device: Annotated[str, typer.Option(help='As torch names it; "auto" takes a GPU if there is one.')] = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for the accuracies.")] = None,
) -> None:
    """Compress one trained network in several ways and compare the accuracy of the integer models.

    Scores (magnitude, Wanda, Fisher information of blocks or of whole heads and channels), a teacher (forward
    and reverse divergence) and quantisation-aware training are exchanged one at a time, and then used together.
    """
    try:
        import torch
        from rich.console import Console
        from rich.table import Table

        from nas.compression import Compression, ablate, variants
        from nas.data import draw, load_images
        from nas.evaluate import CALIBRATION_IMAGES, integer_accuracy
        from nas.layers import describe
        from nas.network import PathNetwork, weights
        from nas.search import check_images
        from nas.search_export import largest
        from nas.space import load_space
        from nas.training import Hardware, paper_schedule, train
        from refsim.files import write_whole
    except ModuleNotFoundError as error:
        raise TinyFormerError(
            f'the ablation needs {error.name}, which is not installed; install it with: pip install "tinyformer[nas]"'
        ) from error
    console = Console()
    torch.set_num_threads(threads)
    chosen, hardware = load_space(space), Hardware(device=device)
    training = draw(load_images(data, "train"), images, seed)
    check_images(chosen, training)
    test = draw(load_images(data, "test"), test_images, seed)
    schedule = paper_schedule(epochs, seed=seed, peak_lr=2e-3)

    def trained(architecture: Architecture, what: str) -> PathNetwork:
        console.print(f"Training {what}: {describe(architecture).parameter_count} parameters")
        model, _ = train(
            lambda: PathNetwork(describe(architecture)),
            training,
            None,
            config=schedule,
            hardware=hardware,
            console=console,
        )
        assert isinstance(model, PathNetwork)
        return model

    teacher = trained(largest(chosen), "the teacher")
    model = trained(_drawn(space, sparsity, block, seed), "the network")
    calibration = draw(training, CALIBRATION_IMAGES, seed).images
    table = Table("scores", "teacher", "quantisation", "accuracy")
    rows = [{"name": "dense", "accuracy": integer_accuracy(model.network, weights(model), calibration, test)}]
    table.add_row("dense", "", "", f"{rows[0]['accuracy']:.2%}")
    base = Compression(
        prune=paper_schedule(prune_epochs, seed=seed, peak_lr=1e-3),
        tune=paper_schedule(tune_epochs, seed=seed, peak_lr=5.5e-4),
    )
    ways = variants(base)
    for number, row in enumerate(
        ablate(model, teacher, training, test, settings=ways, hardware=hardware, console=console), 1
    ):
        console.print(f"{number} of {len(ways)}: {row.settings.name}: {row.accuracy:.2%}")
        rows.append({"name": row.settings.name, "accuracy": row.accuracy})
        table.add_row(*row.settings.name.split(", "), f"{row.accuracy:.2%}")
    console.print(table)
    if out is not None:
        write_whole(out, (json.dumps(rows, indent=1) + "\n").encode())


def _drawn(space: str, sparsity: float, block: int, seed: int) -> Architecture:
    """A path of the space with one pruning everywhere."""
    import dataclasses

    import numpy as np

    from nas.sampling import random_architecture
    from nas.space import load_space

    uniform = dataclasses.replace(load_space(space), sparsities=(sparsity,), blocks=(block,))
    return random_architecture(uniform, np.random.default_rng(seed))
