"""The commands on a small classifier, from float ONNX to C."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import tinyformer
from codegen.cli import register
from codegen.program import build_program
from codegen.target import list_targets
from refsim.errors import DataError, ModelError, TargetError, TinyFormerError
from tests.codegen.graphs import two_branches
from tests.codegen.test_generate import attention_graph

EXAMPLE = Path(__file__).parents[2] / "examples" / "tinyformer_cifar10" / "model.onnx"
APP = typer.Typer()
register(APP)


def run(*arguments: object) -> str:
    """Output of a command that must succeed; its own errors propagate."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(APP, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def classifier(path: Path) -> None:
    """conv 3x3 - ReLU - global average pool - flatten - Gemm, on 3x8x8 images."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "b": rng.normal(0, 0.1, 8),
        "fc": rng.normal(0, 1, (5, 8)),
        "fb": rng.normal(0, 0.1, 5),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc", "fb"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with float.onnx, samples.npz and model.onnx."""
    folder = tmp_path_factory.mktemp("cli")
    classifier(folder / "float.onnx")
    rng = np.random.default_rng(0)
    images = np.clip(rng.normal(128, 40, (80, 1, 1, 3)) + rng.normal(0, 40, (80, 8, 8, 3)), 0, 255).astype(np.uint8)
    np.savez(folder / "samples.npz", images=images)
    out = folder / "model.onnx"
    text = run("quantize", folder / "float.onnx", "--calibration", folder / "samples.npz", "-o", out)
    assert "calibrated on 80 samples" in text
    return folder


def test_better_quantisation(work: Path, tmp_path: Path) -> None:
    files = (work / "float.onnx", "--calibration", work / "samples.npz")
    how = ("--calibrator", "mse", "--equalise", "--bias-correction", "--search", 3)
    text = run("quantize", *files, "-o", tmp_path / "m.onnx", *how)
    assert "pairs of layers" in text
    assert "3 evaluations: SQNR" in text
    assert (tmp_path / "m.onnx").read_bytes() != (work / "model.onnx").read_bytes()
    run("quantize", *files, "-o", tmp_path / "same.onnx", "--method", "minmax")
    assert (tmp_path / "same.onnx").read_bytes() == (work / "model.onnx").read_bytes()


def test_generate(work: Path) -> None:
    text = run("generate", work / "model.onnx", "--target", "stm32f746", "-o", work / "out", "--prefix", "tiny")
    assert (work / "out" / "tiny.h").is_file()
    assert "RAM: arena" in text
    (work / "out" / "mine.txt").write_text("mine")
    arguments = ("generate", work / "model.onnx", "--target", "stm32f407", "-o", work / "out")
    with pytest.raises(TinyFormerError, match="not generated"):
        run(*arguments)
    run(*arguments, "--force")
    assert (work / "out" / "model.h").is_file()


def test_inspect(work: Path) -> None:
    text = run("inspect", work / "model.onnx")
    for word in ("conv2d", "linear", "image", "logits", "lower bound", "multiply-accumulate"):
        assert word in text
    assert str(8 * 8 * 8 * 27) in text


def test_plan(work: Path, tmp_path: Path) -> None:
    text = run("plan", work / "model.onnx", "--svg", tmp_path / "new" / "arena.svg")
    for word in ("head-tail", "greedy", "local search", "lower bound", "scratch", "model's order"):
        assert word in text
    assert ElementTree.parse(tmp_path / "new" / "arena.svg").getroot().tag.endswith("svg")
    run("generate", work / "model.onnx", "--target", "stm32f746", "-o", tmp_path / "out")
    assert "stm32f746 has" in run("plan", work / "model.onnx", "--target", "stm32f746", "--svg", tmp_path / "arena.svg")
    assert (tmp_path / "arena.svg").read_bytes() == (tmp_path / "out" / "arena.svg").read_bytes()
    with pytest.raises(TinyFormerError, match="cannot be written"):
        run("plan", work / "model.onnx", "--svg", tmp_path)


def test_plan_tells_what_another_order_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen.load", lambda path, **_: two_branches())
    text = run("plan", "branches.onnx")
    assert "2 of 5 operators change places; in the model's order the arena has 2112 bytes." in text
    assert "1152" in text


@pytest.mark.parametrize("target", ["rp2040", "stm32f103", "stm32f746"])
def test_plan_of_a_network_with_attention(target: str) -> None:
    text = run("plan", EXAMPLE, "--target", target)
    assert "The steps run in the model's order." in text


def test_a_fused_attention_does_not_count_as_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = attention_graph(256)
    assert [step.operator for step in build_program(graph).steps] == ["attention"]
    monkeypatch.setattr("codegen.load", lambda path, **_: graph)
    assert "The steps run in the model's order." in run("plan", "attention.onnx")


def test_what_nobody_foresaw_is_no_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(path: Path, **_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr("codegen.load", broken)
    monkeypatch.setattr("sys.argv", ["tinyformer", "plan", "model.onnx"])
    with pytest.raises(SystemExit) as ended:
        tinyformer.main()
    assert ended.value.code == 3
    shown = capsys.readouterr().err
    assert "nobody foresaw this" in shown and "tinyformer itself failed" in shown


def test_targets_are_listed() -> None:
    text = run("targets")
    for name in list_targets():
        assert name in text


def test_bad_files_are_refused(work: Path, tmp_path: Path) -> None:
    model, data = work / "model.onnx", work / "samples.npz"
    with pytest.raises(ModelError, match=r"none\.onnx"):
        run("generate", tmp_path / "none.onnx", "--target", "stm32f746", "-o", tmp_path / "out")
    with pytest.raises(TargetError, match="unknown"):
        run("generate", model, "--target", "z80", "-o", tmp_path / "out")
    with pytest.raises(DataError, match=r"none\.npz.*cannot be read"):
        run("quantize", work / "float.onnx", "--calibration", tmp_path / "none.npz", "-o", tmp_path / "q.onnx")
    np.savez(tmp_path / "small.npz", images=np.zeros((2, 7, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"small\.npz.*must have the shape \(N, 3, 8, 8\)"):
        run("quantize", work / "float.onnx", "--calibration", tmp_path / "small.npz", "-o", tmp_path / "q.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(TinyFormerError, match=r"folder\.onnx cannot be written"):
        run("quantize", work / "float.onnx", "--calibration", data, "-o", tmp_path / "folder.onnx")
    assert not (tmp_path / "folder.onnx.part").exists()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "q.onnx").exists()
