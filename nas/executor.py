"""Where trials run: in this process, or on the workers of a Ray cluster.

An executor takes work under a number and gives it back finished, or lost with its worker. It knows nothing of studies.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from refsim.errors import TinyFormerError

Weights = Mapping[str, NDArray[np.generic]]
"""State of a network by name."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a trial gave.

    Attributes:
        accuracy: in [0, 1], of integer models; None where the trial was skipped.
        facts: what is kept in the study, as JSON has it; "skipped" says why.
        weights: what is kept on disk.
    """

    accuracy: float | None
    facts: dict[str, Any]
    weights: Weights = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Work:
    """One trial to run: called where it runs, and so what it holds is sent there.

    Attributes:
        evaluate: (configuration, seed, folder for checkpoints) -> result.
        config: of the trial.
        seed: of everything random in it.
        folder: where its checkpoints may lie; a repetition of the trial gets the same.
    """

    evaluate: Callable[[Any, int, Path], Result]
    config: Any
    seed: int
    folder: Path


@dataclass(frozen=True)
class Lost:
    """The worker of a trial died."""

    reason: str


class Executor(Protocol):
    """Runs as many pieces of work at a time as it has slots."""

    @property
    def slots(self) -> int:
        """Pieces of work that may be under way at a time."""
        ...

    def submit(self, number: int, work: Work) -> None:
        """Begin a piece of work."""
        ...

    def wait(self) -> tuple[int, Result | Lost]:
        """The next finished piece of work and its number; one must be under way.

        Raises:
            Exception: what the work raised.
        """
        ...

    def abandon(self) -> None:
        """Give up what is under way."""
        ...

    def close(self) -> None:
        """Let go of the workers; nothing is submitted any more."""
        ...


class LocalExecutor:
    """One piece of work at a time, in this process, when it is waited for."""

    slots = 1

    def __init__(self) -> None:
        self._queue: deque[tuple[int, Work]] = deque()

    def submit(self, number: int, work: Work) -> None:
        """Remember the work."""
        self._queue.append((number, work))

    def wait(self) -> tuple[int, Result | Lost]:
        """Do it."""
        number, work = self._queue.popleft()
        return number, _evaluate(work.evaluate, work.config, work.seed, work.folder)

    def abandon(self) -> None:
        """Forget what was not begun."""
        self._queue.clear()

    def close(self) -> None:
        """There are no workers to let go of."""


class RayExecutor:
    """Work on the machines of a Ray cluster, each piece in a process of its own.

    Args:
        cpus, gpus: that a piece of work needs; a part of a GPU lets several share it.
        workers: pieces of work at a time; by default as many as the cluster has room for.
        address: of the cluster; by default the one that RAY_ADDRESS names, or else a cluster of this machine alone is
            started.

    Raises:
        TinyFormerError: Ray is not installed, the cluster is not reached, or has too little for one piece of work.
    """

    def __init__(
        self, *, cpus: float = 1, gpus: float = 0, workers: int | None = None, address: str | None = None
    ) -> None:
        try:
            import ray  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise TinyFormerError(
                "the ray executor needs ray, which is not installed; "
                'install it with: pip install "tinyformer[distributed]"'
            ) from error
        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the user's machines
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
            except ConnectionError as error:
                raise TinyFormerError(f"no Ray cluster at {address or 'RAY_ADDRESS'}: {error}") from error
        have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]  # untyped in some of Ray's releases
        room = int(min([have.get("CPU", 0) // cpus, *([have.get("GPU", 0) // gpus] if gpus else [])]))
        if room < 1:
            raise TinyFormerError(
                f"a trial needs {cpus:g} CPUs and {gpus:g} GPUs; the Ray cluster has {have.get('CPU', 0):g} and "
                f"{have.get('GPU', 0):g}"
            )
        self.slots = min(workers or room, room)
        # a lost worker is the study's affair: it counts and repeats the trial
        self._run = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, max_calls=1)(_evaluate)
        self._shared: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}

    def submit(self, number: int, work: Work) -> None:
        """Send the work to a worker; `evaluate`, which holds the data, travels once."""
        shared = self._shared.get(id(work.evaluate))
        if shared is None or shared[0] is not work.evaluate:
            shared = self._shared[id(work.evaluate)] = (work.evaluate, self._ray.put(work.evaluate))
        self._pending[self._run.remote(shared[1], work.config, work.seed, work.folder)] = number

    def wait(self) -> tuple[int, Result | Lost]:
        """The next piece that is finished or lost."""
        (done, *_), _ = self._ray.wait(list(self._pending), num_returns=1)
        number = self._pending.pop(done)
        exceptions = self._ray.exceptions
        try:
            result: Result = self._ray.get(done)
            return number, result
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError) as error:
            return number, Lost(str(error).strip().splitlines()[0])
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, TinyFormerError) else error) from None

    def abandon(self) -> None:
        """Stop the workers' processes."""
        for reference in self._pending:
            self._ray.cancel(reference, force=True)
        self._pending.clear()

    def close(self) -> None:
        """Leave the cluster, or end the one that was started."""
        self.abandon()
        self._shared.clear()
        if self._started:
            self._ray.shutdown()


def _evaluate(evaluate: Callable[[Any, int, Path], Result], config: Any, seed: int, folder: Path) -> Result:
    """Do a piece of work; its checkpoints have served their purpose when it is finished."""
    result = evaluate(config, seed, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return result
