"""State of a training run on disk: written whole or not at all, and resumed only by the run that wrote it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from refsim.errors import DataError
from refsim.files import write_whole

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
    """Write ``checkpoint.pt`` and ``history.json`` to `folder`.

    Raises:
        TinyFormerError: they cannot be written; what was there is still there.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    state = {"config": dict(settings), "history": list(history), **states}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(folder / CHECKPOINT, buffer.getvalue())
    write_whole(folder / HISTORY, (json.dumps(history, indent=1) + "\n").encode())


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
