"""What CI systems are given: the GitHub action, the GitLab job, the pre-commit hook and the pytest plugin, run here."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.main import get_command

from conformance import pre_commit
from refsim.compiled import cache_folder
from tests.codegen.test_cli import classifier
from tinyformer import app

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; it comes with the extra dev")
pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
CACHE = cache_folder()
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from codegen.onnx import quantize

    folder = tmp_path_factory.mktemp("classifier")
    classifier(folder / "float.onnx")
    images = np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)
    onnx.save(quantize(folder / "float.onnx", {"image": images}), folder / "small.onnx")
    return folder / "small.onnx"


@pytest.fixture
def action() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    return loaded


def on_path(folder: Path, name: str, script: str) -> dict[str, str]:
    """The environment with one more command, a shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def in_bash(script: str, folder: Path, environment: dict[str, str]) -> int:
    """Run a script as GitHub does for `shell: bash`."""
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def known_options() -> set[str]:
    command: Any = get_command(app)
    return {option for parameter in command.commands["verify"].params for option in parameter.opts}


# The action


def verify_step(action: dict[str, Any], **inputs: str) -> tuple[str, dict[str, str]]:
    """The script of the step that verifies, and its environment for those inputs, filled in as GitHub does."""
    (step,) = (step for step in action["runs"]["steps"] if step.get("id") == "verify")
    values = {name: str(given.get("default", "")) for name, given in action["inputs"].items()} | inputs
    environment = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: values[found[1]], text)
        for name, text in step["env"].items()
    }
    return step["run"], environment


def test_action_is_whole(action: dict[str, Any]) -> None:
    steps = action["runs"]["steps"]
    assert action["runs"]["using"] == "composite"
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all(step["shell"] == "bash" for step in steps if "run" in step)
    assert all("description" in given for given in (*action["inputs"].values(), *action["outputs"].values()))
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(action["inputs"]), "every input is used, and no other"
    # An expression in a script would let an input's text run as a command.
    assert not [step for step in steps if "${{" in step.get("run", "")]


def test_action_knows_the_command_s_options(action: dict[str, Any]) -> None:
    script, _ = verify_step(action)
    assert set(re.findall(r"(--[a-z-]+) ", script)) <= known_options()


@needs_bash
def test_action_verifies_and_says_so(action: dict[str, Any], model: Path, tmp_path: Path) -> None:
    script, inputs = verify_step(action, model=str(model), target="stm32f746", report="out")
    outputs, summary = tmp_path / "outputs", tmp_path / "summary"
    environment = on_path(tmp_path / "bin", "tinyformer", f'exec "{sys.executable}" -m tinyformer "$@"')
    environment |= {**inputs, "GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(summary)}
    assert in_bash(script, tmp_path, environment) == 0
    assert outputs.read_text().splitlines() == ["report=out", "exit-code=0", "sarif=out/report.sarif"]
    assert {"report.json", "report.html", "junit.xml", "report.sarif"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert "stm32f746" in summary.read_text(encoding="utf-8")


@needs_bash
@pytest.mark.parametrize("code", [1, 2, 3])
def test_action_fails_with_the_command_and_passes_every_input(
    code: int, action: dict[str, Any], tmp_path: Path
) -> None:
    given = {
        "model": "my models/a $(touch spoilt) b.onnx",
        "target": "stm32f746, mine.toml",
        "data": "some data.npz",
        "compiler": "zig,gcc",
        "opt": "O2,Os",
        "numerics": "cmsis-nn",
        "max-ms": "50",
        "max-drop": "1.5",
        "float": "float.onnx",
        "require": "qemu,stack",
        "report": "out folder",
    }
    script, inputs = verify_step(action, **given)
    environment = on_path(tmp_path / "bin", "tinyformer", f'printf "%s\\n" "$@" > arguments; exit {code}')
    environment |= {**inputs, "GITHUB_OUTPUT": str(tmp_path / "outputs")}
    assert in_bash(script, tmp_path, environment) == code
    assert (tmp_path / "outputs").read_text().splitlines() == ["report=out folder", f"exit-code={code}"]
    assert (tmp_path / "arguments").read_text().splitlines() == [
        *("verify", given["model"], "--report", "out folder", "--target", "stm32f746", "--target", "mine.toml"),
        *("--require", "qemu", "--require", "stack", "--data", "some data.npz", "--compiler", "zig,gcc"),
        *("--opt", "O2,Os", "--numerics", "cmsis-nn"),
        *("--max-ms", "50", "--max-drop", "1.5", "--float", "float.onnx"),
    ]
    assert not (tmp_path / "spoilt").exists()


# GitLab


@needs_bash
def test_gitlab_job_runs_the_command(tmp_path: Path) -> None:
    file = yaml.safe_load((ROOT / "examples" / "ci" / "gitlab-ci.yml").read_text(encoding="utf-8"))
    job = file[".tinyformer-verify"]
    (script,) = job["script"]
    environment = on_path(tmp_path / "bin", "tinyformer", 'printf "%s\\n" "$@" > arguments; exit 1')
    environment |= {**job["variables"], "MODEL": "my model.onnx", "OPTIONS": "--max-ms 50 --data samples.npz"}
    assert in_bash(script, tmp_path, environment) == 1
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:2] == ["verify", "my model.onnx"]
    assert arguments[-4:] == ["--max-ms", "50", "--data", "samples.npz"]
    assert set(re.findall(r"--[a-z-]+", " ".join(arguments))) <= known_options()
    folder = arguments[arguments.index("--report") + 1]
    assert job["artifacts"]["paths"] == [folder]
    assert job["artifacts"]["reports"]["junit"] == f"{folder}/junit.xml"
    assert job["artifacts"]["when"] == "always"


# pre-commit


def hook() -> dict[str, Any]:
    (manifest,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert isinstance(manifest, dict)
    return manifest


def test_hook_s_manifest_is_valid() -> None:
    clientlib = pytest.importorskip("pre_commit.clientlib", reason="pre-commit is not installed")
    clientlib.load_manifest(ROOT / ".pre-commit-hooks.yaml")
    assert re.search(hook()["files"], "models/keyword.onnx")
    assert re.search(hook()["files"], "models/keyword.tflite")
    assert not re.search(hook()["files"], "models/keyword.onnx.md")


def test_hook_verifies_each_changed_model(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    entry = [sys.executable, *shlex.split(hook()["entry"])[1:], "--target", "stm32f746"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(*models: Path) -> "subprocess.CompletedProcess[str]":
        command = [*entry, *map(str, models)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run(model)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(broken, broken)
    assert done.returncode == 2
    assert done.stdout.count(f"== {broken}") == 2


def test_hook_tells_options_from_models() -> None:
    arguments = ["--target=stm32f746", "--float", "float.onnx", "a.onnx", "--data", "x.npz", "b c.onnx"]
    options = ["--target=stm32f746", "--float", "float.onnx", "--data", "x.npz"]
    assert pre_commit.split_arguments(arguments) == (options, ["a.onnx", "b c.onnx"])
    assert pre_commit.split_arguments(["--target"]) == (["--target"], [])
    assert pre_commit.main([]) == 0


def test_every_option_of_the_command_has_a_value() -> None:
    command: Any = get_command(app)
    assert not [p.name for p in command.commands["verify"].params if getattr(p, "is_flag", False)]


# pytest


def test_plugin_passes_and_fails(pytester: pytest.Pytester, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TINYFORMER_CACHE", str(CACHE))  # pytester gives its tests another home
    pytester.makeconftest('pytest_plugins = ["conformance.pytest_plugin"]')
    pytester.makepyfile(
        f"""
        from dataclasses import replace

        import pytest
        from conformance.verify.result import Check, Outcome
        from refsim.errors import DataError, TargetError

        MODEL = {str(model)!r}
        real = []

        def test_safe(verify_model):
            real.append(verify_model(MODEL, "stm32f746", max_ms=1000))
            assert real[0].verdict is Outcome.PASSED
            assert real[0].command == f"tinyformer verify {{MODEL}} --target stm32f746"

        # What follows gives its findings instead of finding them, which takes seconds.
        def gives(monkeypatch, *checks):
            report = replace(real[0], checks=(*real[0].checks, *checks))
            monkeypatch.setattr("conformance.pytest_plugin.verify", lambda plan: (report, {{}}))

        def test_too_slow(verify_model, monkeypatch):
            gives(monkeypatch, Check("latency", "chip zig -O2", Outcome.FAILED, "takes too long"))
            verify_model(MODEL, "stm32f746")

        def test_not_run(verify_model, monkeypatch):
            gives(monkeypatch, Check("emulator", "chip zig -O2", Outcome.NOT_RUN, "is absent"))
            verify_model(MODEL, "rp2040")
            verify_model(MODEL, "rp2040", require=["emulator"])

        def test_wrong_use(verify_model):
            with pytest.raises(DataError, match="needs a target"):
                verify_model(MODEL)
            with pytest.raises(TargetError, match="unknown"):
                verify_model(MODEL, "no-such-chip")
        """
    )
    result = pytester.runpytest_subprocess("--tinyformer-report", "reports", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["latency at chip zig -O2: takes too long", "emulator at *: is absent (not run, but required)"]
    )
    reports = {path.parent.name for path in pytester.path.glob("reports/*/report.json")}
    assert len(reports) == 3
    assert any("test_too_slow" in name for name in reports)
