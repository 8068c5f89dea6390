"""Model files by suffix: readers that packages register, and one clear error where there is none."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

import refsim
from refsim import readers
from refsim.errors import ModelError
from tests.refsim.test_engine import small_graph


def register(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    found = [EntryPoint(name, value, readers.GROUP) for name, value in entries.items()]
    monkeypatch.setattr(readers, "entry_points", lambda group: [e for e in found if e.group == group])


def test_the_project_reads_onnx() -> None:
    assert readers.find_reader(Path("model.ONNX")).__module__ == "codegen.onnx.load"


def test_another_package_can_add_a_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    package = ModuleType("other")
    package.read = lambda path, **options: seen.append((path, options)) or small_graph()
    monkeypatch.setitem(sys.modules, "other", package)
    register(monkeypatch, onnx="codegen.onnx.load:read", toy="other:read")
    model = refsim.load(tmp_path / "a.toy", profile="exact")
    assert model.graph.name == "small"
    ((path, options),) = seen
    assert path == tmp_path / "a.toy"
    assert options["profile"] == "exact"
    assert options["calibration"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.pb", r"m\.pb: no installed package reads \.pb; readable: \.onnx, \.toy\..*'refsim.readers'"),
        ("folder/model", r"no installed package reads files without a suffix"),
        ("m.toy", r"the reader for \.toy, nowhere:read, cannot be imported: No module named 'nowhere'"),
    ],
)
def test_no_reader_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    register(monkeypatch, onnx="codegen.onnx.load:read", toy="nowhere:read")
    with pytest.raises(ModelError, match=message):
        refsim.load(name)


def test_an_install_without_entry_points_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    with pytest.raises(ModelError, match=r"readable: none\..*pip install"):
        refsim.load("m.onnx")
