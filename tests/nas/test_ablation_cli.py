"""The ablation by command: its table, its figures as JSON, and that it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')
pytest.importorskip("optuna", reason='optuna is not installed: pip install "tinyformer[nas]"')

from nas import compression
from nas.ablation_cli import summary
from nas.compression import Compression
from refsim.errors import DataError
from tests.nas.tiny import dark_and_bright
from tinyformer import app


def test_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 256), ("test", 40)):
        data = dark_and_bright(count, seed=count, size=16)
        np.savez(tmp_path / f"{split}.npz", images=data.images, labels=data.labels)
    seen: list[Compression] = []

    def two(base: Compression) -> list[Compression]:
        seen.append(base)
        return [base, replace(base, criterion="wanda")]

    monkeypatch.setattr(compression, "variants", two)
    settings = {"images": 256, "epochs": 1, "prune-epochs": 1, "tune-epochs": 2, "block": 2, "test-images": 30}
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    out = tmp_path / "out"

    def ablated(runs: int, *others: str) -> str:
        command = ["ablate-compression", "tiny", "--data", str(tmp_path), "--out", str(out), "--runs", str(runs)]
        result = CliRunner().invoke(app, [*command, *options, *others], env={"COLUMNS": "120"}, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    ablated(2)
    first = json.loads((out / "ablation.json").read_text())["accuracies"]
    ways = ["magnitude, no teacher, PTQ", "wanda, no teacher, PTQ"]
    assert list(first) == ["dense", "teacher", *ways]
    for name in ways:
        assert all(value * 30 == pytest.approx(round(value * 30)) for value in first[name].values())
    assert {(base.prune.seed, base.prune.epochs, base.tune.epochs) for base in seen} == {(0, 1, 2), (1, 1, 2)}

    # another run beside those that are there
    said = ablated(3)
    accuracies = json.loads((out / "ablation.json").read_text())["accuracies"]
    assert {name: {run: found[run] for run in first[name]} for name, found in accuracies.items()} == first
    assert [list(accuracies[name]) for name in ways] == [["0", "1", "2"]] * 2
    assert "Run 3 of 3: wanda" in said
    assert "Run 2 of 3" not in said
    with pytest.raises(DataError, match="with other settings"):
        ablated(3, "--sparsity", "0.5")


def test_means_and_standard_errors() -> None:
    from rich.console import Console

    ways = {"magnitude, no teacher, PTQ": (0.5, 0.6, 0.7), "wanda, forward, aware": (0.52, 0.61, 0.72)}
    accuracies = {name: {str(run): value for run, value in enumerate(values)} for name, values in ways.items()}
    console = Console(width=120)
    with console.capture() as said:
        console.print(summary({"dense": {"0": 0.8}, "teacher": {"0": 0.9}} | accuracies))
    # standard deviations 0.1, 0.1002 and, of the differences 0.02, 0.01, 0.02, 0.00577; over the root of three
    assert "60.00 ± 5.77" in said.get()
    assert "61.67 ± 5.78" in said.get()
    assert "+1.67 ± 0.33" in said.get()


def test_images_of_another_size(tmp_path: Path) -> None:
    data = dark_and_bright(10)
    np.savez(tmp_path / "train.npz", images=data.images, labels=data.labels)
    result = CliRunner().invoke(app, ["ablate-compression", "tiny", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code != 0
    assert "images are 3x8x8; space 'tiny' is for 3x16x16" in str(result.exception)
