"""The command: exit codes, folders generated earlier, options, and what an interrupted run leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinyformer
from codegen.generate import generate
from codegen.onnx import load, quantize
from codegen.target import load_target
from conformance import verify_cli
from conformance.verify import runner
from tests.codegen.test_cli import classifier
from tests.codegen.tflite_cases import build

TARGET = "stm32f103"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with float.onnx, model.onnx, labelled samples and a generated folder."""
    folder = tmp_path_factory.mktemp("verify")
    classifier(folder / "float.onnx")
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1, (24, 3, 8, 8)).astype(np.float32)
    (folder / "model.onnx").write_bytes(quantize(folder / "float.onnx", {"image": samples}).SerializeToString())
    np.savez(folder / "samples.npz", inputs=samples, labels=rng.integers(0, 5, 24))
    generate(load(folder / "model.onnx"), load_target(TARGET), folder / "out")
    other = folder / "other"
    shutil.copytree(folder / "out", other)
    header = other / "model.h"
    header.write_text(re.sub(r"(Model SHA-256 +)[0-9a-f]{64}", rf"\g<1>{'0' * 64}", header.read_text()))
    return folder


def verify(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the program."""
    monkeypatch.setattr(sys, "argv", ["tinyformer", "verify", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        tinyformer.main()
    return int(ended.value.code or 0)


def outcomes(folder: Path) -> dict[str, str]:
    report = json.loads((folder / "report.json").read_text())
    return {check["name"]: check["outcome"] for check in report["checks"]}


def test_a_whole_validation(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--data", work / "samples.npz", "--float", work / "float.onnx", "--samples", 4, "--max-ms", 1000]
    out = tmp_path / "out"
    assert verify(monkeypatch, work / "model.onnx", "--target", TARGET, *options, "--report", out) == 0
    found = outcomes(out)
    assert list(found) == list(runner.CHECKS)
    assert {name for name, outcome in found.items() if outcome != "passed"} <= {"qemu"}  # which may be absent
    report = json.loads((out / "report.json").read_text())
    build = next(build for build in report["builds"] if build["target"] == TARGET)
    assert all(layer["instructions"] > 0 and layer["cycles"] > 0 for layer in build["layers"])
    assert any(layer["sqnr_db"] is not None for layer in build["layers"])


def test_a_limit_that_is_not_kept_fails(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = work / "model.onnx"
    assert verify(monkeypatch, model, "--target", TARGET, "--check", "latency", "--max-ms", 0.001) == 1


def test_accuracy_is_held_against_its_limit(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = ["--data", work / "samples.npz", "--float", work / "float.onnx", "--check", "accuracy"]
    common = [work / "model.onnx", "--target", TARGET, *labelled]
    assert verify(monkeypatch, *common, "--max-drop", 100) == 0
    assert verify(monkeypatch, *common, "--max-drop", -100) == 1


def test_a_folder_generated_earlier_is_what_is_built(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    options = ["--target", TARGET, "--generated", work / "out", "--check", "bit-exact", "--report", out]
    assert verify(monkeypatch, work / "model.onnx", *options) == 0
    hashes = json.loads((out / "report.json").read_text())["sources_sha256"]
    assert f"{TARGET}/model.c" in hashes


def test_a_folder_with_the_other_numerics_of_a_tflite_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build("FULLY_CONNECTED", 1).write(tmp_path / "small.tflite")
    monkeypatch.setattr(
        sys, "argv", f"tinyformer generate {model} --target {TARGET} --numerics cmsis-nn -o {tmp_path}/out".split()
    )
    tinyformer.app(standalone_mode=False)
    options = [model, "--target", TARGET, "--generated", tmp_path / "out", "--check", "bit-exact"]
    assert verify(monkeypatch, *options) == 2
    assert "was generated from another model" in (error := capsys.readouterr().err)
    assert "--numerics" in error
    assert verify(monkeypatch, *options, "--numerics", "cmsis-nn") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "stm32f9"], "target 'stm32f9' is unknown"),
        (["--target", TARGET, "--compiler", "tcc"], "no compiler 'tcc'"),
        (["--target", TARGET, "--opt", "O7"], "no optimisation 'O7'"),
        (["--target", TARGET, "--check", "luck"], "no check 'luck'"),
        (["--target", TARGET, "--require", "luck"], "no check 'luck'"),
        (["--target", TARGET, "--max-drop", "1"], "give --float and --data"),
        (["--target", TARGET, "--map", "image.map"], "give it with --elf"),
        (["--target", TARGET, "--elf", "absent.elf"], "absent.elf"),
        (["--target", TARGET, "--generated", "absent"], "holds no generated model"),
        (["--target", "stm32f746", "--generated", "{work}/other"], "was generated from another model"),
    ],
)
def test_wrong_usage_exits_with_2(
    options: list[str], message: str, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.replace("{work}", str(work)) for option in options]
    assert verify(monkeypatch, work / "model.onnx", *given) == 2
    assert message in capsys.readouterr().err


def test_an_unreadable_model_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.onnx"
    model.write_text("nothing")
    assert verify(monkeypatch, model, "--target", TARGET) == 2
    assert "error:" in capsys.readouterr().err


def test_a_required_check_that_did_not_run_fails(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--target", TARGET, "--check", "flash", "--require", "accuracy"]  # without labelled samples
    assert verify(monkeypatch, work / "model.onnx", *options) == 1


def test_a_failure_of_the_tool_exits_with_3(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(runner, "_accuracy", broken)
    out = tmp_path / "out"
    options = ["--target", TARGET, "--check", "accuracy", "--report", out]
    assert verify(monkeypatch, work / "model.onnx", *options) == 3
    assert "nobody foresaw this" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_run_that_is_stopped_leaves_no_report(number: signal.Signals, work: Path, tmp_path: Path) -> None:
    reports, ready = tmp_path / "reports", tmp_path / "ready"
    # Stops in the middle of the run: reports are written at its end.
    program = f"""
import pathlib, sys, time
from conformance.verify import runner
def wait(*_):
    pathlib.Path({str(ready)!r}).touch()
    time.sleep(60)
runner._examine_target = wait
import tinyformer
sys.argv = ["tinyformer", "verify", {str(work / "model.onnx")!r}, "--target", "{TARGET}", "--report", {str(reports)!r}]
tinyformer.main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not ready.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) != 0
    assert ready.exists()
    assert not reports.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ready"]


@pytest.mark.parametrize(
    ("given", "listed"), [(None, []), (["O2"], ["O2"]), (["O2,Os", "O3"], ["O2", "Os", "O3"])], ids=str
)
def test_options_are_lists_and_may_be_repeated(given: list[str] | None, listed: list[str]) -> None:
    assert verify_cli._listed(given) == listed
