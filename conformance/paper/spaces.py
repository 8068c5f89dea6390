"""Search spaces, analysed by `tinyformer analyse-space`: a program of its own, since nothing here imports nas."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codegen.code_size import MEASURED
from codegen.predictor import BUILT_IN, kernels_hash
from refsim.errors import TinyFormerError


def decided_by() -> dict[str, str]:
    """What decides the evaluation of a model: kernels, and what is known of their time and size."""
    digest = hashlib.sha256()
    for path in sorted([*BUILT_IN.glob("*.json"), MEASURED]):
        digest.update(path.read_bytes())
    return {"kernels": kernels_hash(), "predictors": digest.hexdigest()}


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
    with TemporaryDirectory() as folder:
        file = Path(folder) / "spaces.json"
        command = [sys.executable, "-m", "tinyformer", "analyse-space", *spaces, *options, "--json", str(file)]
        command += ["--svg", str(svg)] if svg else []
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=None, check=False)
        if done.returncode:
            raise TinyFormerError(f"{' '.join(command[1:])} failed; its message is above")
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["spaces"]
        return found
