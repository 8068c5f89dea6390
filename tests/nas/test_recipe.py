"""A recipe from its file to models, C and a card; an interrupted run goes on, wrong files are told."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from codegen.onnx import load
from nas.recipe import follow, list_recipes, load_recipe
from refsim.errors import DataError
from tests.nas.tiny import dark_and_bright

MICRO = """
summary = "A micro network."
row = "tinyformer"
target = "stm32f746"
validation_images = 16
seed = 1

[architecture]
input_shape = [3, 8, 8]
classes = 2
[architecture.supernet]
stages = [{ dim = 8, mobilenets = 1, transformers = 0 }, { dim = 12, mobilenets = 0, transformers = 1 }]
heads = 2
last_linear = 16
[architecture.path]
pooling = "seqpool"
head_pruning = { sparsity = 0.5 }
[[architecture.path.stages]]
downsample = "conv-maxpool"
expansions = [2]
encoders = []
downsample_pruning = {}
mobilenet_pruning = [{ sparsity = 0.5, block = 2 }]
transformer_pruning = []
[[architecture.path.stages]]
downsample = "conv-stride2"
expansions = []
encoders = [{ mlp_ratio = 1.0 }]
downsample_pruning = {}
mobilenet_pruning = []
transformer_pruning = [{ sparsity = 0.5, block = 4 }]

[training]
epochs = 2
batch_size = 16
optimiser = "muon"
warmup_epochs = 0

[compression.prune]
epochs = 2
batch_size = 16
[compression.tune]
epochs = 0
batch_size = 16
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, count in (("train", 96), ("test", 32)):
        images = dark_and_bright(count, seed=count)
        np.savez(folder / f"{split}.npz", images=images.images, labels=images.labels)
    return folder


def test_a_recipe_ends_in_models_and_a_card(tmp_path: Path, data: Path) -> None:
    path, out = tmp_path / "micro.toml", tmp_path / "out"
    path.write_text(MICRO)
    deployed = follow(path, data, out)
    assert {"float.onnx", "model.onnx", "card.toml", "result.json", "c"} <= {p.name for p in out.iterdir()}
    card = tomllib.loads((out / "card.toml").read_text())
    assert card["training"] == "tinyformer train --recipe micro"
    assert card["data"] == "80 training images, 16 more held out for all choices; tested on 32 test images."
    assert card["epochs"] == 4
    result = json.loads((out / "result.json").read_text())
    assert card["accuracy"] == result["accuracy"]
    assert card["accuracy"]["int8"] == deployed.accuracy
    assert 0.3 < result["sparsity"] < 0.6
    assert load(out / "model.onnx").nodes

    written = (out / "model.onnx").read_bytes()
    (out / "model.onnx").unlink()
    follow(path, data, out)  # from the checkpoints
    assert (out / "model.onnx").read_bytes() == written


def test_built_in_recipes_describe_networks() -> None:
    assert list_recipes()
    for name in list_recipes():
        recipe = load_recipe(name)
        assert recipe.network.kept_parameter_count > 0
        assert recipe.training.epochs > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('optimiser = "muon"', 'optimiser = "adam"'), r"training: optimiser is 'adam'; known are 'adamw', 'muon'"),
        (('row = "tinyformer"', ""), r"lacks row"),
        (("epochs = 2", "epochs = "), r"is no valid TOML"),
        (("seed = 1", 'seed = 1\nbaseline = "cnn"'), r"has an architecture, or a baseline that is one of mobilenetv2"),
    ],
)
def test_wrong_recipes_are_told(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(MICRO.replace(*change))
    with pytest.raises(DataError, match=message):
        load_recipe(path)


def test_unknown_recipe_names_those_that_are_known() -> None:
    with pytest.raises(DataError, match=r"recipe 'cake' is unknown; built-in are "):
        load_recipe("cake")
