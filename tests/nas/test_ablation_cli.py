"""The ablation by command: a table, and the same figures as JSON."""

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
from nas.compression import Compression
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
    settings = {"images": 256, "test-images": 30, "epochs": 1, "prune-epochs": 1, "tune-epochs": 2, "block": 2}
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    out = tmp_path / "rows.json"
    result = CliRunner().invoke(
        app,
        ["ablate-compression", "tiny", "--data", str(tmp_path), "--out", str(out), *options],
        env={"COLUMNS": "120"},
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())
    assert [row["name"] for row in rows] == ["dense", "magnitude, no teacher, PTQ", "wanda, no teacher, PTQ"]
    for row in rows:
        assert row["accuracy"] * 30 == pytest.approx(round(row["accuracy"] * 30))
        assert f"{row['accuracy']:.2%}" in result.output
    assert (seen[0].prune.epochs, seen[0].tune.epochs) == (1, 2)


def test_images_of_another_size(tmp_path: Path) -> None:
    data = dark_and_bright(10)
    np.savez(tmp_path / "train.npz", images=data.images, labels=data.labels)
    result = CliRunner().invoke(app, ["ablate-compression", "tiny", "--data", str(tmp_path)])
    assert result.exit_code != 0
    assert "images are 3x8x8; space 'tiny' is for 3x16x16" in str(result.exception)
