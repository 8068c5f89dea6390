"""Files that appear together or not at all."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from refsim.errors import TinyFormerError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PREFIX = ".tinyformer-report-"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def publish(files: Mapping[str, bytes], folder: Path, stale: Iterable[str] = ()) -> tuple[Path, ...]:
    """Write files into a folder, all together or none.

    A folder that does not exist appears in one step, with all of them. In one that does, the files of an earlier run
    are taken away first and the new ones, complete by then, put there; meanwhile other runs wait, and so do Ctrl-C and
    SIGTERM. A run that is killed outright in between can leave files out, but never a half-written one, and never
    files of two runs.

    Args:
        files: content by name.
        folder: where they belong; what else lies in it stays.
        stale: further names of files of an earlier run, to be taken away.

    Returns:
        the files.

    Raises:
        TinyFormerError: they cannot be written; what was there before is there again.
    """
    try:
        if not _appear(files, folder):
            with _alone(folder), _uninterrupted():
                for left in folder.glob(f"{_PREFIX}*"):  # by a run that was killed: none that lives is here now
                    shutil.rmtree(left, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as temporary:
                    _replace(_write(files, Path(temporary)), list(files), folder, {*stale} - {*files})
    except OSError as error:
        raise TinyFormerError(f"reports cannot be written to {folder}: {error.strerror or error}") from error
    return tuple(folder / name for name in files)


def _write(files: Mapping[str, bytes], where: Path) -> Path:
    """Write the files into a new folder there."""
    new = where / "new"
    new.mkdir()
    for name, content in files.items():
        (new / name).write_bytes(content)
    return new


def _appear(files: Mapping[str, bytes], folder: Path) -> bool:
    """Whether the folder did not exist, and now does with all files."""
    if folder.exists():
        return False
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder.absolute().parent) as temporary:
        new = _write(files, Path(temporary))
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            return False  # another run was faster
    return True


def _replace(new: Path, names: list[str], folder: Path, stale: set[str]) -> None:
    """Put new files where those of an earlier run are; where that fails, the earlier ones are back."""
    old = new.with_name("old")
    old.mkdir()
    taken, placed = [], []
    try:
        for name in [*names, *stale]:
            if (folder / name).exists():
                (folder / name).replace(old / name)
                taken.append(name)
        for name in names:
            (new / name).replace(folder / name)
            placed.append(name)
    except OSError:
        for name in placed:
            (folder / name).unlink()
        for name in taken:
            (old / name).replace(folder / name)
        raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process that holds it."""
    if sys.platform == "win32":
        with (folder / ".tinyformer.lock").open("wb") as file:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            yield
    else:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait. They reach the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda got, _: waiting.append(got)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for caught in waiting:
            signal.raise_signal(caught)
