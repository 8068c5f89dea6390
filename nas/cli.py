"""Sub-commands of `tinyformer` that train networks. Importing this module does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.ablation_cli import ablate_compression
from nas.analysis_cli import analyse_space
from nas.baselines_cli import baselines
from nas.data import DATA_VARIABLE
from nas.search_cli import compress, search
from refsim.errors import TinyFormerError


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `app`."""
    app.command()(train)
    app.command()(analyse_space)
    app.command()(baselines)
    app.command()(search)
    app.command()(compress)
    app.command()(ablate_compression)


def train(
    data: Annotated[
        Path, typer.Option(envvar=DATA_VARIABLE, help="Folder with CIFAR-10: parquet files, pickles or class folders.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, samples and checkpoint.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Name or .toml file: train, prune and quantise its network; else the example is trained."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images, without a recipe.")] = 120,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; 1 makes a run repeatable.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split, the weights and the augmentation, without a recipe.")
    ] = 0,
) -> None:
    """Train a model by a recipe, or the example TinyFormer; an interrupted run continues where it stopped."""
    try:
        from nas.pipeline import train_to_onnx
        from nas.recipe import follow
        from nas.training import TrainingConfig
    except ModuleNotFoundError as error:
        raise TinyFormerError(
            f'training needs {error.name}, which is not installed; install it with: pip install "tinyformer[nas]"'
        ) from error
    if recipe is not None:
        deployed = follow(recipe, data, out, threads=threads)
        if deployed is not None:
            typer.echo(f"{deployed.folder}: {deployed.accuracy:.2%} of {deployed.test_images} test images, int8")
        return
    train_to_onnx(data, out, config=TrainingConfig(epochs=epochs, seed=seed), threads=threads)
