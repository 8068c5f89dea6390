"""`tinyformer zoo`: cards are shown, measured again, and written; the wheel brings the models."""

import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import refsim
from conformance import model_card
from conformance.model_card import differences
from refsim import model_zoo
from refsim.errors import ConformanceError, ModelError, TargetError, TinyFormerError
from refsim.model_zoo import Accuracy, Card, card_text
from tests.refsim.conftest import Files, files  # noqa: F401 - a fixture: the small classifier and its samples
from tinyformer import app

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def written(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811 - the fixture
    """A zoo with one model whose card the command has written."""
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "small-net").mkdir()
    (folder / "small-net" / "model.onnx").write_bytes(files.model.read_bytes())
    card = Card("[bold]Small[/] one.", "random images", "make it", Accuracy(1, 0.5, 1.0))
    (folder / "small-net" / "card.toml").write_text(card_text(card), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_zoo, "FOLDER", folder)
        run("small-net", "--update", "--data", files.data)
    return folder


@pytest.fixture
def zoo(written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(model_zoo, "FOLDER", written)
    return written


def run(*arguments: object) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["zoo", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_update_measures_the_model(zoo: Path, files: Files) -> None:  # noqa: F811 - the fixture
    card, model = model_zoo.card("small-net"), refsim.load("small-net")
    assert card.accuracy == Accuracy(150, model.evaluate(files.data, progress=False).accuracy, 1.0)
    measured = card.measured
    assert measured is not None and measured.fits and measured.latency_ms and measured.cycles
    assert measured.latency_ms == pytest.approx(measured.cycles / 216e3, abs=0.01)
    assert measured.weights == 3 * 8 * 9 + 8 * 8 + 8 * 4
    assert 0.98 * measured.weights < measured.nonzero_weights <= measured.weights
    assert measured.constant_bytes < measured.flash_bytes < 65536
    assert measured.arena_bytes < measured.ram_bytes < 16384
    assert measured.band_percent == 15


def test_update_measures_the_model_of_a_run(zoo: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo / "small-net", tmp_path / "run")
    card = model_zoo.card("small-net")
    (tmp_path / "run" / "card.toml").write_text(card_text(replace(card, sha256="", measured=None)), encoding="utf-8")
    run(tmp_path / "run", "--update")
    assert model_zoo.read_card(tmp_path / "run" / "card.toml") == card


def test_the_table_and_the_card(zoo: Path) -> None:
    table = run()
    assert re.search(r"small-net +\d+\.\d\d% +0% +\d+ +\d+ +\d ± 15 % +stm32f746", table)
    card = run("small-net")
    for text in ("[bold]Small[/] one.", "make it", "of 150 test images", "an estimate"):
        assert text in card
    with pytest.raises(ModelError, match="models: small-net"):
        run("other")


def test_check_passes_where_the_card_is_right(zoo: Path, files: Files) -> None:  # noqa: F811 - the fixture
    assert "small-net: as its card says" in run("--check", "--data", files.data)


def test_check_names_what_differs(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = model_zoo.card("small-net")
    assert card.measured is not None
    (tmp_path / "small-net").mkdir()
    (tmp_path / "small-net" / "model.onnx").write_bytes((zoo / "small-net" / "model.onnx").read_bytes())
    wrong = replace(card, measured=replace(card.measured, arena_bytes=7))
    (tmp_path / "small-net" / "card.toml").write_text(card_text(wrong), encoding="utf-8")
    monkeypatch.setattr(model_zoo, "FOLDER", tmp_path)
    with pytest.raises(ConformanceError, match=r"small-net: arena_bytes: card 7, found \d+$"):
        run("small-net", "--check")


def test_what_counts_as_a_difference(zoo: Path, files: Files) -> None:  # noqa: F811 - the fixture
    card = model_zoo.card("small-net")
    measured = card.measured
    assert measured is not None and measured.cycles
    assert differences(card, measured) == []
    slower = replace(measured, cycles=measured.cycles + 1)
    assert differences(card, slower) == [f"cycles: card {measured.cycles}, found {measured.cycles + 1}"]
    elsewhere = replace(slower, compiler="gcc 1 -O2")
    assert differences(card, elsewhere) == [], "another compiler may differ a little"
    assert differences(card, replace(elsewhere, cycles=2 * measured.cycles)) != []
    assert differences(card, replace(measured, cycles=None)) != []
    evaluation = refsim.load("small-net").evaluate(files.data, progress=False)
    assert differences(card, measured, evaluation) == []
    assert differences(replace(card, accuracy=Accuracy(150, 0.1)), measured, evaluation)[0].startswith("int8 accuracy")
    assert "--update" in differences(replace(card, measured=None), measured)[0]


def test_what_does_not_fit_has_sizes_and_no_time(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> None:
        raise TargetError("RAM")

    monkeypatch.setattr(model_card, "image_usage", too_large)
    measured, profile = model_card.measure(refsim.load("small-net").graph)
    assert not measured.fits and profile is None
    assert measured.cycles is None and measured.latency_ms is None
    assert measured.flash_bytes > measured.constant_bytes > 0


@pytest.mark.parametrize("options", [("--update",), ("small-net", "--update", "--check"), ("--data", "x.npz")])
def test_options_that_do_not_go_together(zoo: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(TinyFormerError):
        run(*options)


def test_the_wheel_brings_the_zoo() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"zoo": "refsim/zoo"}
