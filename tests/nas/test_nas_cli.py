"""`tinyformer train` on a tiny data set, and its behaviour where torch is missing."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nas.cli import register
from refsim.errors import DataError, TinyFormerError


def application() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in [*((f"data_batch_{i}", 32) for i in range(1, 6)), ("test_batch", 20)]:
        labels = rng.integers(0, 10, count)
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels.tolist()}, protocol=2))


def test_importing_the_commands_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import typer, nas.cli; nas.cli.register(typer.Typer())"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_torch_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name in ("nas.pipeline", "nas.training", "nas.export", "nas.blocks")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(application(), ["train", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert type(result.exception) is TinyFormerError
    assert "training needs torch" in str(result.exception)
    assert 'pip install "tinyformer[nas]"' in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_train_writes_model_samples_and_report(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')
    pytest.importorskip("onnxscript", reason='onnxscript is not installed: pip install "tinyformer[nas]"')
    write_data(tmp_path)
    out = tmp_path / "out"
    arguments = ["train", "--out", str(out), "--epochs", "1"]
    result = CliRunner().invoke(application(), arguments, env={"TINYFORMER_DATA": str(tmp_path)})
    assert result.exception is None, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "calibration.npz", "checkpoint.pt", "float.onnx", "history.json", "report.json", "test.npz",
    ]  # fmt: skip

    calibration, sample = np.load(out / "calibration.npz"), np.load(out / "test.npz")
    assert calibration["images"].shape == (64, 32, 32, 3)
    assert calibration["images"].dtype == sample["images"].dtype == np.uint8
    assert sample["images"].shape == (20, 32, 32, 3)
    assert sample["labels"].dtype == np.int64

    batches = [pickle.loads((tmp_path / f"data_batch_{i}").read_bytes())[b"data"] for i in range(1, 6)]
    test = pickle.loads((tmp_path / "test_batch").read_bytes())
    pairs = {(row.tobytes(), label) for row, label in zip(test[b"data"], test[b"labels"], strict=True)}
    flat = sample["images"].transpose(0, 3, 1, 2).reshape(20, -1)
    assert {(row.tobytes(), int(label)) for row, label in zip(flat, sample["labels"], strict=True)} == pairs
    known = {row.tobytes() for batch in batches for row in batch}
    assert all(image.transpose(2, 0, 1).tobytes() in known for image in calibration["images"])

    report = json.loads((out / "report.json").read_text())
    assert report["parameters"] == 55_403
    assert report["training_images"] == 144
    assert report["test_accuracy"] == report["sample_accuracy"]


def test_missing_data_folder(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')
    pytest.importorskip("onnxscript", reason='onnxscript is not installed: pip install "tinyformer[nas]"')
    arguments = ["train", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(application(), arguments)
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "out").exists()
