"""Recipes: everything that decides a trained, compressed model, in one file, and the run that follows it.

A recipe is a TOML file with the fields of `Recipe`. `tinyformer train` knows those in `nas/recipes/` by name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from rich.console import Console

from codegen.descriptions import list_descriptions, read_description
from codegen.generate import tool_version
from codegen.target import load_target
from nas import parallel
from nas.baselines import BASELINES
from nas.compression import Compression, compress
from nas.data import draw, hold_out, load_images
from nas.deployment import Deployed, deploy
from nas.evaluate import CALIBRATION_IMAGES
from nas.layers import Network, describe
from nas.network import PathNetwork, weights
from nas.pruning import sparsity
from nas.space import Architecture, from_dict
from nas.training import ANY_HARDWARE, Hardware, TrainingConfig, accuracy, train
from refsim.errors import DataError
from refsim.files import write_whole
from refsim.model_zoo import CARD, Accuracy, Card, card_text

RESULT = "result.json"

_BUILT_IN = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Attributes:
        summary: one sentence on the model, for its card.
        row: what it is in the paper's tables, for its card.
        target: the microcontroller.
        validation_images: held out of the training images; all choices that led to the recipe were made on them.
        seed: of the split and of the calibration images; each training has its own.
        training: of the dense network.
        compression: of that network.
        architecture: of the network, with the pruning to reach.
        baseline: a network of `nas.baselines` in its place; it stays dense.
    """

    summary: str
    row: str
    target: str
    validation_images: int
    seed: int
    training: TrainingConfig
    compression: Compression
    architecture: Architecture | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        if (self.architecture is None) == (self.baseline is None) or self.baseline not in (None, *BASELINES):
            raise DataError(f"a recipe has an architecture, or a baseline that is one of {', '.join(BASELINES)}")

    @property
    def network(self) -> Network:
        """The layers of the network."""
        return (
            BASELINES[self.baseline]() if self.baseline is not None else describe(cast(Architecture, self.architecture))
        )


def list_recipes() -> tuple[str, ...]:
    """Names of the built-in recipes, sorted."""
    return list_descriptions(_BUILT_IN)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: a built-in recipe's name or the path of a TOML file, which ends in ".toml".

    Raises:
        DataError: there is no such recipe, or the file is unreadable or wrong.
    """
    path, table = read_description("recipe", name_or_path, _BUILT_IN, DataError)
    return from_dict(Recipe, table, f"recipe file {path}")


def follow(
    name: str | Path,
    data: Path | None,
    out: Path,
    *,
    threads: int = 1,
    hardware: Hardware = ANY_HARDWARE,
    console: Console | None = None,
) -> Deployed | None:
    """Train, prune and quantise the network of a recipe, and write its models and C to `out`.

    Checkpoints of the dense training are in ``dense/``, those of the compression in ``prune/`` and ``tune/``: a run
    that was interrupted goes on from them. The models and C are those of `nas.deployment.deploy`; ``result.json`` has
    the accuracies on all test images, which serve for nothing else.

    Args:
        name: of the recipe, see `load_recipe`.
        data: folder of the images, None for TINYFORMER_DATA.
        out: folder to write to.
        threads: of the processor.
        hardware: where to compute.
        console: of the progress bars.

    Returns:
        What was made; None in all processes of a group (`nas.parallel`) but the first, which wrote it.

    Raises:
        DataError: there is no such recipe, the images cannot be used, or `out` holds a run of another recipe.
        TargetError: the model does not fit the target.
    """
    recipe = load_recipe(name)
    torch.set_num_threads(threads)
    parallel.join()
    console = (console or Console()) if parallel.rank() == 0 else Console(quiet=True)
    target = load_target(recipe.target)
    training, validation = hold_out(load_images(data, "train"), recipe.validation_images, recipe.seed)
    test = load_images(data, "test")
    calibration = draw(training, CALIBRATION_IMAGES, recipe.seed).images
    console.print("Training the dense network")
    dense, _ = train(
        lambda: PathNetwork(recipe.network),
        training,
        validation,
        config=recipe.training,
        folder=out / "dense",
        hardware=hardware,
        console=console,
    )
    assert isinstance(dense, PathNetwork)
    console.print("Pruning it")
    model = compress(
        dense,
        training,
        validation,
        settings=recipe.compression,
        teacher=None if recipe.compression.distillation is None else dense,
        folder=out,
        hardware=hardware,
        console=console,
    )
    dense_float, sparse_float = accuracy(dense, test), accuracy(model, test)
    if parallel.rank():
        return None
    deployed = deploy(
        model.network,
        weights(model),
        calibration=calibration,
        test=test,
        target=target,
        folder=out,
        threads=threads,
        must_fit=recipe.baseline is None,
    )
    accuracies = Accuracy(len(test), deployed.accuracy, sparse_float, dense_float)
    result = {
        "version": tool_version(),
        "recipe": asdict(recipe),
        "accuracy": asdict(accuracies),
        "sparsity": sparsity(model),
        "resources": asdict(deployed.resources),
    }
    write_whole(out / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    split = f"{len(training)} training images, {recipe.validation_images} more held out for all choices"
    card = Card(
        recipe.summary,
        f"{split}; tested on {len(test)} test images.",
        f"tinyformer train --recipe {Path(name).stem}",
        accuracies,
        row=recipe.row,
        epochs=sum(config.epochs for config in (recipe.training, recipe.compression.prune, recipe.compression.tune)),
        seed=recipe.seed,
    )
    write_whole(out / CARD, card_text(card).encode())
    return deployed
