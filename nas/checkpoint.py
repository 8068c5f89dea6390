"""State of a training run on disk: written whole or not at all, and resumed only by the run that wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from refsim.errors import DataError

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.json"


class Stateful(Protocol):
    """What a checkpoint keeps: a network, an optimiser, a training hook."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings and containers of these."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Take up what `state_dict` gave."""
        ...


def save(
    folder: Path, parts: Mapping[str, Stateful], settings: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> None:
    """Write ``checkpoint.pt`` and ``history.json`` to `folder`."""
    states = {name: part.state_dict() for name, part in parts.items()}
    state = {"config": dict(settings), "history": list(history), **states}
    write_whole(folder / CHECKPOINT, lambda path: torch.save(state, path))
    write_whole(folder / HISTORY, lambda path: path.write_text(json.dumps(history, indent=1) + "\n"))


def resume(folder: Path, parts: Mapping[str, Stateful], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Load the checkpoint in `folder`, if there is one, into `parts`.

    Returns:
        Its history; empty without a checkpoint.

    Raises:
        DataError: it is damaged, or belongs to a run with other settings.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return []
    remedy = "continue with the same settings, or choose an empty output folder"
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        saved = state["config"]
        if saved != settings:
            changed = ", ".join(
                f"{name} {saved.get(name)} -> {value}" for name, value in settings.items() if saved.get(name) != value
            )
            raise DataError(f"{path} belongs to a run with other settings ({changed}); {remedy}")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history: list[dict[str, Any]] = state["history"]
        return history
    except DataError:
        raise
    except Exception as error:  # torch.load raises whatever the damaged bytes provoke
        raise DataError(f"{path} cannot be resumed ({error}); {remedy}") from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write next to `path` and rename, so that an interruption leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)
