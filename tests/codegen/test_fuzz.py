"""The fuzzer notices what must not be."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from rich.progress import Progress

from refsim.errors import ModelError
from tests.codegen.fuzz import Fuzzer, fuzz, import_file
from tests.codegen.fuzz_worker import Worker

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limits are Linux's")


def misbehave(path: Path) -> None:
    """Do what the file says."""
    match path.read_text():
        case "refuse":
            raise ModelError("no model")
        case "escape":
            raise KeyError("a bug")
        case "die":
            os.abort()
        case "hang":
            while time.process_time() < 3600:
                pass
        case "fill":
            np.ones(96 * 2**20, np.uint8)
        case "ask":
            np.empty(2**40, np.uint8)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    ours = np.ones(400 * 2**20, np.uint8)  # a child's account of its memory must not begin with its parent's
    worker = Worker(f"{__name__}:misbehave", seconds=1, megabytes=64)
    assert worker.run(Path(__file__)).kind == "read"
    del ours
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("pass", "read", ""),
        ("refuse", "refused", "no model"),
        ("escape", "escaped", "KeyError: 'a bug'"),
        ("die", "died", "SIGABRT"),
        ("hang", "hung", "SIGXCPU"),
        ("fill", "memory", "MB"),
        ("ask", "escaped", "MemoryError"),
    ],
)
def test_outcomes(worker: Worker, what: str, kind: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_text(what)
    outcome = worker.run(path)
    assert outcome.kind == kind
    assert message in outcome.message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_files_are_drawn_by_seed_and_findings_kept(worker: Worker, folder: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        fuzzer = Fuzzer(folder / name, 7, [])
        drawn.append([fuzzer.draw().read_bytes() for _ in range(40)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 30
    tally = fuzz(fuzzer, Worker(f"{__name__}:refuse_text"), 1e-9, folder / "failures", Progress(disable=True))
    ((what, kept),) = tally.findings.items()
    assert "escaped: UnicodeDecodeError" in what
    assert kept.is_file()


def refuse_text(path: Path) -> None:
    """A bug that every model shows."""
    raise UnicodeDecodeError("utf-8", b"", 0, 1, path.name)


def test_external_data_outside_is_refused(folder: Path) -> None:
    """What the fuzzer would call an escape."""
    import onnx

    (folder / "c").mkdir()
    fuzzer = Fuzzer(folder / "c", 1, [])
    data = next(data for name, data in fuzzer.originals if name == "quantised.onnx")
    for location in ("../outside.bin", "link.bin"):
        model = onnx.ModelProto.FromString(data)
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.add(key="location", value=location)
        path = fuzzer.folder / "quantised.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="outside the model's folder"):
            import_file(path)
