import sys
from pathlib import Path

import pytest

from nas.executor import LocalExecutor, RayExecutor, Result, Work
from refsim.errors import DataError, TinyFormerError


def doubled(config: int, seed: int, folder: Path) -> Result:
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_text("epoch 1")
    return Result(config / 10, {"seed": seed})


def failing(config: int, seed: int, folder: Path) -> Result:
    raise DataError(f"config {config}: no good")


def test_local_executor_works_in_order_and_removes_checkpoints(tmp_path: Path) -> None:
    executor = LocalExecutor()
    executor.submit(4, Work(doubled, 1, 7, tmp_path / "a"))
    executor.submit(5, Work(doubled, 2, 8, tmp_path / "b"))
    number, result = executor.wait()
    assert number == 4
    assert isinstance(result, Result)
    assert (result.accuracy, result.facts) == (0.1, {"seed": 7})
    assert not (tmp_path / "a").exists()
    assert executor.wait()[0] == 5


def test_local_executor_passes_errors_on_and_keeps_checkpoints(tmp_path: Path) -> None:
    executor = LocalExecutor()
    (tmp_path / "a").mkdir()
    executor.submit(0, Work(failing, 3, 0, tmp_path / "a"))
    with pytest.raises(DataError, match="config 3"):
        executor.wait()
    assert (tmp_path / "a").exists()


def test_ray_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TinyFormerError, match="distributed"):
        RayExecutor()
