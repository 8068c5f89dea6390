"""What nas knows of spaces and networks, by commands of its own: nothing here imports nas."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from refsim.errors import TinyFormerError


def analyse(spaces: tuple[str, ...], *options: str, svg: Path | None = None) -> list[dict[str, Any]]:
    """Draw models from spaces and evaluate what they take.

    Args:
        spaces: their names.
        options: of the command.
        svg: file for its picture.

    Returns:
        For each space its "space", "probability" and "samples" (docs/nas.md).

    Raises:
        TinyFormerError: the command failed.
    """
    picture = ("--svg", str(svg)) if svg else ()
    found: list[dict[str, Any]] = _run("analyse-space", *spaces, *options, *picture)["spaces"]
    return found


def baselines() -> dict[str, dict[str, Any]]:
    """What the networks of Table II take with random weights, by name.

    Raises:
        TinyFormerError: the command failed.
    """
    found: dict[str, dict[str, Any]] = _run("baselines")
    return found


def _run(*arguments: str) -> Any:
    """What a command writes with --json; it tells of its progress itself."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tinyformer", *arguments, "--json", str(file)]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise TinyFormerError(f"`tinyformer {' '.join(arguments)}` failed; its message is above")
        return json.loads(file.read_text(encoding="utf-8"))
