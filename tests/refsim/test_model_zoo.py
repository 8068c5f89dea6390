"""Models by name: found, held to their cards, and one clear error where there is none."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest

import codegen
import refsim
from refsim import model_zoo
from refsim.errors import ModelError
from refsim.model_zoo import Accuracy, Card, Measured, card_text, read_card
from tests.refsim.conftest import Files

MEASURED = Measured("stm32f746", "zig 1 -O2", "abc", True, 8, 2, 100, 1000, 2000, 300, 400, 5000, 0.5, 15)
CARD = Card('A "small"\\ one.', "150 images", 'first\nsecond \\ """ third', Accuracy(150, 0.75, 1.0), row="cnn", seed=0)


@pytest.fixture
def zoo(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with one model, "small-net"."""
    folder = tmp_path / "zoo" / "small-net"
    folder.mkdir(parents=True)
    shutil.copy(files.model, folder / "model.onnx")
    card = dataclasses.replace(CARD, sha256=hashlib.sha256(files.model.read_bytes()).hexdigest(), measured=MEASURED)
    (folder / "card.toml").write_text(card_text(card), encoding="utf-8")
    monkeypatch.setattr(model_zoo, "FOLDER", folder.parent)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_model_is_loaded_by_its_name(zoo: Path, files: Files) -> None:
    model = refsim.load("small-net")
    assert model.graph.name == codegen.load("small-net").name == "small-net"
    assert model.path == zoo / "model.onnx"
    assert (model.predict(files.samples) == refsim.load(files.model).predict(files.samples)).all()
    assert codegen.load("small-net").nodes[0].name == codegen.load(files.model).nodes[0].name


def test_paths_are_left_alone(zoo: Path, tmp_path: Path) -> None:
    for path in ("small-net.onnx", tmp_path / "small-net", "zoo/small-net", "model.tflite"):
        assert model_zoo.model_file(path) == Path(path)
    (tmp_path / "small-net").write_bytes(b"")
    assert model_zoo.model_file("small-net") == Path("small-net"), "a file of that name comes first"


def test_an_unknown_name_lists_those_that_there_are(zoo: Path) -> None:
    for load in (refsim.load, codegen.load):
        with pytest.raises(ModelError, match=r"other: there is no such file, and no model .*; models: small-net$"):
            load("other")
    with pytest.raises(ModelError, match=r"other: no model of that name; models: small-net$"):
        model_zoo.card("other")


def test_a_file_that_is_not_the_cards_is_refused(zoo: Path) -> None:
    data = bytearray((zoo / "model.onnx").read_bytes())
    data[-1] ^= 1
    (zoo / "model.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"model small-net: SHA-256 of .* is [0-9a-f]{64}, its card says [0-9a-f]{64}"):
        refsim.load("small-net")
    (zoo / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model small-net: .*model\.onnx cannot be read"):
        refsim.load("small-net")


@pytest.mark.parametrize("card", [CARD, dataclasses.replace(CARD, measured=MEASURED, sha256="ab", epochs=3)])
def test_a_card_is_read_as_it_was_written(tmp_path: Path, card: Card) -> None:
    (tmp_path / "card.toml").write_text(card_text(card), encoding="utf-8")
    found = read_card(tmp_path / "card.toml")
    assert dataclasses.replace(found, training=found.training.strip()) == card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed = 0", 'seed = "0"'), r"seed is '0', which is no int"),
        (("seed = 0", "seed = true"), r"seed is True, which is no int"),
        (("seed = 0", "sede = 0"), r"unknown key 'sede'; the keys are summary, data"),
        (("int8 = 0.75", ""), r"\[accuracy\] lacks 'int8'"),
        (("[accuracy]", "[accuracies]"), r"unknown key 'accuracies'"),
        (("seed = 0", "seed = "), r"is no valid TOML"),
    ],
)
def test_a_wrong_card_is_a_clear_error(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "card.toml").write_text(card_text(CARD).replace(*change), encoding="utf-8")
    with pytest.raises(ModelError, match=rf"card .*{message}"):
        read_card(tmp_path / "card.toml")


def test_a_missing_card_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_card(tmp_path / "card.toml")


def test_sparsity_is_the_share_of_zeros() -> None:
    assert MEASURED.sparsity == 0.75
    assert dataclasses.replace(MEASURED, weights=0).sparsity == 0


@pytest.mark.parametrize("name", model_zoo.names())
def test_models_of_the_package_load_and_have_whole_cards(name: str) -> None:
    card = model_zoo.card(name)
    assert refsim.load(name).graph.name == name
    assert card.measured is not None
    assert card.training.strip() and card.accuracy.images == 10_000
