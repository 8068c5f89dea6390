"""The library's commands, their page and their JSON."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import refsim
from refsim.cli import register
from refsim.errors import DataError, ModelError, QuantizationError, TinyFormerError
from tests.refsim.conftest import Files

APP = typer.Typer()
register(APP)


def run(*arguments: object, columns: int = 200) -> str:
    """Output of a command that must succeed; its own errors propagate."""
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(APP, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_accuracy_of_both_models(files: Files) -> None:
    expected = refsim.load(files.model).evaluate(files.data, progress=False)
    text = run("accuracy", files.model, "--float", files.float_model, "--data", files.data)
    assert "150 samples" in text
    assert re.search(r"float +ONNX Runtime +100\.00%", text)
    assert re.search(rf"int8 +refsim +{expected.accuracy:.2%}", text)
    assert f"int8 - float: {100 * (expected.accuracy - 1):+.2f} points" in text


def test_accuracy_alone_with_classes(files: Files) -> None:
    text = run("accuracy", files.model, "--data", files.data, "--classes")
    assert "ONNX Runtime" not in text
    assert "recall" in text
    quantised_here = run("accuracy", files.float_model, "--data", files.data, "--calibration", files.data)
    assert "refsim" in quantised_here


def test_accuracy_writes_what_it_measured(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    text = run("accuracy", files.model, "--float", files.float_model, "--data", files.data, "--json", path)
    assert f"Wrote {path}." in text
    expected = refsim.load(files.model).evaluate(files.data, progress=False)
    found = json.loads(path.read_text())
    assert set(found) == {"int8", "float"}
    assert found["int8"]["accuracy"] == expected.accuracy
    assert found["int8"]["top"] == {str(k): share for k, share in expected.top.items()}
    assert [row["correct"] for row in found["int8"]["classes"]] == np.diag(expected.confusion).tolist()
    assert (found["float"]["samples"], found["float"]["accuracy"]) == (expected.samples, 1.0)


def test_pixels_are_prepared_as_the_options_say(files: Files, tmp_path: Path) -> None:
    images = np.clip(files.samples.transpose(0, 2, 3, 1) * 40 + 128, 0, 255).astype(np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=files.labels)
    good = run("accuracy", files.model, "--data", tmp_path / "images.npz", "--std", "40")
    skewed = run("accuracy", files.model, "--data", tmp_path / "images.npz", "--std", "40", "--mean", "250")
    share = [float(re.findall(r"([\d.]+)%", text)[0]) for text in (good, skewed)]
    assert share[0] > 85 > share[1]


def test_compare_writes_table_page_and_json(files: Files, tmp_path: Path) -> None:
    page, data = tmp_path / "out" / "page.html", tmp_path / "out" / "data.json"
    arguments = ("--float", files.float_model, "--data", files.data, "--sensitivity", "--html", page, "--json", data)
    text = run("compare", files.model, *arguments)
    assert "beside float.onnx: where most is lost" in text
    assert "which costs most" in text
    assert "same class on" in text
    measured = json.loads(data.read_text())
    found = refsim.load(files.model).compare(files.float_model, files.data, progress=False)
    assert [layer["node"] for layer in measured["layers"]] == [layer.node for layer in found.layers]
    assert measured["layers"][0]["sqnr_db"] == found.layers[0].sqnr_db
    assert sum(measured["layers"][0]["histogram"]) == 150 * 36 * 8
    assert len(measured["sensitivity"]["layers"]) == len(found.layers)
    html = page.read_text()
    inside = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert inside is not None
    assert json.loads(inside[1]) == measured
    assert not re.search(r"(src|href)=|https?://|@import", html)
    narrow = run("compare", files.model, "--data", files.data, columns=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "beside the dequantised graph" in narrow


def test_compare_counts_the_bytes_of_onnx_runtime(files: Files) -> None:
    text = run("compare", files.model, "--data", files.data, "--onnxruntime", "--limit", 50)
    assert re.search(r"conv2d +14,400 +\d+ +0\.\d\d%", text)
    assert "50 samples; ONNX Runtime" in text
    assert "same class on" in text


def test_ablation_prints_its_table(files: Files) -> None:
    text = run("ablate-layernorm", files.model, "--float", files.float_model, "--data", files.data, "--bits", "7,3,0")
    assert "1 LayerNorms, 150 samples" in text
    for variant in ("float", "int8, 7 scale bits, the paper's", "int8, 3 scale bits", "int8, 0 scale bits, naive"):
        assert variant in text
    with pytest.raises(TinyFormerError, match="--bits takes whole numbers"):
        run("ablate-layernorm", files.model, "--data", files.data, "--bits", "seven")
    with pytest.raises(QuantizationError, match="takes 0 to 14 scale bits"):
        run("ablate-layernorm", files.model, "--data", files.data, "--bits", "20")


def test_bad_files_are_refused_and_nothing_is_left(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx"):
        run("accuracy", tmp_path / "none.onnx", "--data", files.data)
    with pytest.raises(ModelError, match=r"\.txt"):
        run("accuracy", tmp_path / "none.txt", "--data", files.data)
    np.savez(tmp_path / "unlabelled.npz", inputs=files.samples)
    with pytest.raises(DataError, match="no array 'labels'"):
        run("accuracy", files.model, "--data", tmp_path / "unlabelled.npz")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(TinyFormerError, match=r"folder\.html cannot be written"):
        run("compare", files.model, "--data", files.data, "--html", tmp_path / "folder.html")
    assert not (tmp_path / "folder.html.part").exists()
