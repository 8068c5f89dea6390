"""Files that appear whole or not at all."""

from pathlib import Path

from refsim.errors import TinyFormerError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, and its folder where that is missing; whatever was there stays until all is written.

    Raises:
        TinyFormerError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise TinyFormerError(f"{path} cannot be written: {error.strerror or error}") from error
