"""A process of its own that imports one file after another: what kills it, or never ends, is a finding."""

import contextlib
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from refsim.errors import TinyFormerError

SECONDS = 10
"""Processor time that one import may take."""

MEGABYTES = 2048
"""Memory that one import may add to the process."""

_STARTS = 60
"""Seconds that the process may take to start, and that an import may wait without computing."""


class Outcome(NamedTuple):
    """What an import did.

    Attributes:
        kind: "read", "refused", or what must not be: "escaped", "died", "hung", "memory".
        message: of the error.
        seconds: processor time.
        megabytes: memory that it added to the process's largest before.
    """

    kind: str
    message: str
    seconds: float
    megabytes: float


class Worker:
    """Runs `function(path)` in another process, which is started anew after a finding.

    Args:
        function: "module:name".
        seconds, megabytes: the limits of one call.
    """

    def __init__(self, function: str, *, seconds: int = SECONDS, megabytes: int = MEGABYTES) -> None:
        self._arguments = (function, seconds, megabytes)
        self._patience = seconds + _STARTS
        self._process: Any = None

    def run(self, path: Path) -> Outcome:
        if self._process is None:
            self._start()
        self._connection.send(path)
        try:
            if not self._connection.poll(self._patience):
                self._process.kill()
                outcome = Outcome("hung", "it waited without computing", self._patience, 0)
            else:
                outcome = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            killer = signal.Signals(-self._process.exitcode).name if self._process.exitcode < 0 else "exit"
            kind = "hung" if killer == "SIGXCPU" else "died"
            outcome = Outcome(kind, killer, self._arguments[1] if kind == "hung" else 0, 0)
        if outcome.kind not in ("read", "refused"):
            self.close()
        return outcome

    def close(self) -> None:
        if self._process is not None:
            self._connection.close()
            self._process.join(5)
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(_STARTS):
            raise RuntimeError("the worker does not start")
        self._connection.recv()


def _serve(connection: Connection, function: str, seconds: int, megabytes: int) -> None:
    module, name = function.split(":")
    call: Callable[[Path], object] = getattr(import_module(module), name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the files
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Twice the limit: below it memory that is touched counts and not what is only asked for.
    resource.setrlimit(resource.RLIMIT_DATA, (_status_bytes("VmData") + 2 * megabytes * 2**20,) * 2)
    connection.send("ready")
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other end is closed
        while True:
            connection.send(_measured(call, connection.recv(), seconds, megabytes))


def _measured(call: Callable[[Path], object], path: Path, seconds: int, megabytes: int) -> Outcome:
    before, start = _peak_megabytes(), time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(start) + 1 + seconds, hard))
    kind, message = "read", ""
    try:
        call(path)
    except TinyFormerError as error:
        kind, message = "refused", str(error)
    except BaseException as error:  # whatever else leaves an importer is what is looked for
        kind, message = "escaped", f"{type(error).__name__}: {error}"
    added = _peak_megabytes() - before
    if added > megabytes:
        kind, message = "memory", f"{added:,.0f} MB"
    return Outcome(kind, message, time.process_time() - start, added)


def _peak_megabytes() -> float:
    # Not getrusage's ru_maxrss: that begins with what the starting process had.
    return _status_bytes("VmHWM") / 2**20


def _status_bytes(field: str) -> int:
    """A field of the process's status that is in kilobytes, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
