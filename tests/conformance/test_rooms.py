"""The architecture holds: an operator is one name in five rooms, and imports point one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from refsim.ops import OPERATORS

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("refsim", "ckernels", "codegen", "conformance", "nas")
ALLOWED = {
    "refsim": set(),
    "ckernels": set(),
    "codegen": {"refsim", "ckernels"},
    "conformance": {"refsim", "ckernels", "codegen"},
    "nas": {"refsim", "ckernels", "codegen"},
    "tinyformer.py": set(PACKAGES),
}
ROOMS = {
    "refsim/ops": ".py",
    "ckernels/src": ".c",
    "codegen/emit": ".py",
    "codegen/loop_counts": ".py",
    "conformance/strategies": ".py",
}
SHARED = {"__init__", "base", "sparse", "tiles", "primitives"}


@pytest.mark.parametrize(("folder", "suffix"), ROOMS.items(), ids=list(ROOMS))
def test_each_room_has_every_operator_and_nothing_else(folder: str, suffix: str) -> None:
    stems = {path.stem.removesuffix("_dsp").removesuffix("_sparse") for path in (ROOT / folder).glob(f"*{suffix}")}
    assert stems - SHARED == set(OPERATORS)


def test_an_operator_lives_in_the_module_of_its_name() -> None:
    assert {name: cls.__module__ for name, cls in OPERATORS.items()} == {
        name: f"refsim.ops.{name}" for name in OPERATORS
    }


def modules() -> list[Path]:
    return sorted([*(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), ROOT / "tinyformer.py"])


def imported(source: str) -> Iterator[str]:
    """Top-level packages that a module imports anywhere, under TYPE_CHECKING and inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    found = set(imported(path.read_text(encoding="utf-8")))
    assert found & set(PACKAGES) <= ALLOWED[room] | {room}
    assert "tinyformer" not in found
    if room != "nas":
        assert not {name for name in found if name.startswith("torch")}, "torch belongs to nas"


def test_the_check_sees_every_form_of_import() -> None:
    source = "import a.b, c\nfrom d.e import f\ndef g():\n    import h as i\n    if True:\n        from j import *\n"
    assert set(imported(source)) == {"a", "c", "d", "h", "j"}


def test_the_check_sees_the_modules() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in modules()}
    assert found == {*PACKAGES, "tinyformer.py"}
