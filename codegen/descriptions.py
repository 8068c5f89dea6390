"""Descriptions in TOML: those of a folder of the project by their names, users' own by their paths."""

import tomllib
from pathlib import Path
from typing import Any

from refsim.errors import TinyFormerError


def list_descriptions(folder: Path) -> tuple[str, ...]:
    """Names of the built-in ones, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def read_description(
    what: str, name_or_path: str | Path, folder: Path, error: type[TinyFormerError]
) -> tuple[Path, dict[str, Any]]:
    """Find and read one.

    Args:
        what: it describes, for messages, such as "target".
        name_or_path: a name in `folder`, or the path of a TOML file, which ends in ".toml".
        folder: of the built-in ones.
        error: raised when there is no such name, or the file is unreadable or no TOML.

    Returns:
        Its path, and its content.
    """
    text, known = str(name_or_path), list_descriptions(folder)
    if text in known:
        path = folder / f"{text}.toml"
    elif text.endswith(".toml"):
        path = Path(text)
    else:
        raise error(f"{what} {text!r} is unknown; built-in are {', '.join(known)}, or give a path to a .toml file")
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as found:
        raise error(f"{what} file {path} cannot be read ({found.strerror}); built-in are {', '.join(known)}") from found
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as found:
        raise error(f"{what} file {path} is no valid TOML: {found}") from found
