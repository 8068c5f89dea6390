"""Compiled code is kept between runs, and never kept beyond an edit of what it was compiled from."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import refsim
from refsim import compiled

PACKAGE = Path(refsim.__file__).parent
PROGRAM = (
    "import numpy as np; from refsim.ops.requantize import Requantize, requantize_batch;"
    "from refsim.ops import Requantization;"
    "y = Requantize(0, Requantization.from_real(0.5, 0)).run(np.array([[3, -3]], np.int8));"
    "print(y.tolist(), sum(requantize_batch.stats.cache_hits.values()))"
)


def run(folder: Path, cache: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "TINYFORMER_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_second_start_uses_kept_code_and_an_edited_primitive_is_compiled_anew(tmp_path):
    copy = tmp_path / "refsim"
    copy.mkdir()
    for source in PACKAGE.rglob("*.py"):
        target = copy / source.relative_to(PACKAGE)
        target.parent.mkdir(exist_ok=True)
        target.write_text(source.read_text())
    cache = tmp_path / "cache"
    assert run(tmp_path, cache) == "[[2, -1]] 0"
    assert run(tmp_path, cache) == "[[2, -1]] 1"
    numerics = copy / "numerics.py"
    rounding = "(np.int64(1) << (t - np.int64(1)))) >> t"
    assert numerics.read_text().count(rounding) == 1
    numerics.write_text(numerics.read_text().replace(rounding, "np.int64(0)) >> t"))
    assert run(tmp_path, cache) == "[[1, -2]] 0"


def test_functions_compiled_into_others_live_in_the_shared_modules():
    for source in (PACKAGE / "ops").glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refsim.ops."):
                assert all(name.name[0].isupper() or node.module == "refsim.ops.base" for name in node.names), source
    assert all((PACKAGE / name).is_file() for name in compiled.SHARED_MODULES)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TINYFORMER_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert compiled.cache_folder() == Path.home() / ".cache" / "tinyformer"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled.cache_folder() == tmp_path / "tinyformer"
    monkeypatch.setenv("TINYFORMER_CACHE", str(tmp_path / "own"))
    assert compiled.cache_folder() == tmp_path / "own"
