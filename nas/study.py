"""Studies: what a search has tried and found, held by Optuna so that it stops, resumes and is shared.

A trial is asked for, claimed by this process, handed to an executor and told its result. Whoever runs a trial signs it
with host, process and a time that he renews; a trial whose owner is gone is failed and queued again by whoever notices
first. So a killed process, or a lost worker, costs the time of its trials and nothing else.
"""

import json
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from nas.arrays import save_arrays
from nas.evolution import ATTEMPT, DRAW, Config, Genes, draw_number
from nas.executor import Executor, Lost, Result, Work
from refsim.errors import DataError, TargetError, TinyFormerError

SETTINGS = "settings"
OWNER, BEAT = "owner", "beat"
SKIPPED = "skipped"

BEAT_S = 30.0
"""Seconds after which an owner renews the time on his trials."""

GRACE_S = 300.0
"""Seconds without renewal after which an owner on another machine counts as gone."""

ATTEMPTS = 3
"""Times that a configuration is begun before it is given up."""

LOSSES = 6
"""Trials lost one after the other that end a search."""

UNSIGNED_S = 60.0
"""Seconds after which a trial that nobody signed counts as abandoned: its process was killed as it asked for it."""

_POLL_S = 1.0
_TRIES = 2

Observer = Callable[[Sequence[FrozenTrial]], None]
"""Called with all trials of a study whenever one is begun or finished."""


def open_storage(text: str | None, folder: Path) -> BaseStorage:
    """Where studies are kept.

    Args:
        text: URL of a database as SQLAlchemy has it (``postgresql://...``), or the path of a journal file that ends in
            ".journal"; None for an SQLite file in `folder`.
        folder: of the search; it is made.

    Raises:
        DataError: it is neither, or cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{(folder / 'study.db').resolve()}" if text is None else text
    try:
        if "://" in url:
            waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
            return _database(url, waits)
        if url.endswith(".journal"):
            return JournalStorage(JournalFileBackend(url))
    except Exception as error:  # SQLAlchemy's, the database's driver's, or the missing driver's
        raise DataError(f"storage {url!r} cannot be opened: {str(error).splitlines()[0]}") from error
    raise DataError(
        f"storage {url!r} is neither the URL of a database, such as sqlite:///file.db, nor a file ending in .journal"
    )


def _database(url: str, engine: dict[str, Any]) -> RDBStorage:
    """A database, whose tables two processes may be about to make at the same moment."""
    for _ in range(_TRIES):
        try:
            return RDBStorage(url, engine_kwargs=engine)
        except (IntegrityError, OperationalError, ProgrammingError):
            time.sleep(_POLL_S)
    return RDBStorage(url, engine_kwargs=engine)


def open_study(storage: BaseStorage, name: str, sampler: BaseSampler, settings: Mapping[str, Any]) -> Study:
    """The study of that name, made where there is none yet.

    Args:
        storage: that holds it.
        name: of the study.
        sampler: of its trials.
        settings: all that decides what a trial gives, as JSON has it.

    Raises:
        DataError: the study was made with other settings.
    """
    study: Study = _quiet(
        lambda: optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, direction="maximize", load_if_exists=True
        )
    )
    wanted: dict[str, Any] = json.loads(json.dumps(settings))
    found = study.user_attrs.get(SETTINGS)
    if found is None:
        study.set_user_attr(SETTINGS, wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(["accuracy"])  # what dashboards write at the axis
    elif found != wanted:
        changed = ", ".join(
            f"{key} {_brief(found.get(key))} -> {_brief(wanted.get(key))}"
            for key in sorted({*found, *wanted})
            if found.get(key) != wanted.get(key)
        )
        raise DataError(
            f"study {name!r} was begun with other settings ({changed}); go on with the same, "
            "or choose another name or an empty output folder"
        )
    return study


def weights_path(folder: Path, number: int) -> Path:
    """Where the weights of a finished trial lie."""
    return folder / f"{number:04d}.npz"


def run_trials(
    study: Study,
    genes: Genes[Config],
    evaluate: Callable[[Config, int, Path], Result],
    executor: Executor,
    *,
    trials: int,
    seed: int,
    folder: Path,
    keep: int = 50,
    observe: Observer = lambda _: None,
) -> None:
    """Run trials until the study has `trials` that are finished or skipped, other processes' included.

    Args:
        study: asked for trials and told their results.
        genes: of the configurations.
        evaluate: what a trial does: (configuration, seed, folder for checkpoints) -> result.
        executor: where.
        trials: wanted in all.
        seed: of the search; each trial's own comes from it and the trial's draw.
        folder: receives the weights of finished trials.
        keep: of how many trials, the best; other weights are removed as better ones come.
        observe: is told of progress.

    Raises:
        TinyFormerError: trials were lost too often.
        Exception: what a trial raised. Whatever ends this, trials under way are queued again.
    """
    running: dict[int, optuna.Trial] = {}
    losses = 0
    try:
        with _heart(running):
            while True:
                requeue_abandoned(study)
                while len(running) < executor.slots and _open_places(study, trials) > 0:
                    with _uninterrupted():
                        trial = study.ask(genes.distributions)
                        draw = _sign(study, trial)
                        running[trial.number] = trial
                    work = Work(evaluate, genes.config(trial.params), _trial_seed(seed, draw), folder / f"{draw:04d}")
                    executor.submit(trial.number, work)
                    observe(study.get_trials(deepcopy=False))
                if not running:
                    if not _count(study, TrialState.RUNNING):
                        break
                    time.sleep(_POLL_S)  # another process' trial may be lost, and its place open again
                    continue
                number, result = executor.wait()
                if isinstance(result, Lost):
                    losses += 1
                    _fail(study, running.pop(number), result.reason)
                    if losses == LOSSES:
                        raise TinyFormerError(
                            f"{losses} trials were lost one after the other, the last one because: {result.reason}"
                        )
                    continue
                losses = 0
                _tell(study, running[number], result, folder)
                del running[number]
                _remove_weights(study, folder, keep)
                observe(study.get_trials(deepcopy=False))
    finally:
        executor.abandon()
        for trial in running.values():
            _fail(study, trial, "the search was stopped", counts=False)


def requeue_abandoned(study: Study) -> int:
    """Fail the running trials whose owner is gone and queue their configurations; how many there were."""
    found = [t for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if _abandoned(t)]
    for trial in found:
        _fail(study, trial, "its process was gone")
    return len(found)


def best_trial(study: Study) -> FrozenTrial:
    """The finished trial of the highest accuracy, the first of equals (`UpdateBest`).

    Raises:
        TargetError: all were skipped.
    """
    ranked = ranking(study)
    if ranked:
        return ranked[0]
    trials = study.get_trials(deepcopy=False)
    reasons = [str(t.user_attrs[SKIPPED]) for t in trials if SKIPPED in t.user_attrs]
    raise TargetError(
        f"study {study.study_name!r}: none of {len(reasons)} trials fits the target, the last one because of "
        f"{reasons[-1] if reasons else 'nothing'}; more trials, a smaller space or wider limits are needed"
    )


def ranking(study: Study) -> list[FrozenTrial]:
    """The finished trials, the most accurate first, of equals the earlier one."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(finished, key=lambda t: (-accuracy(t), t.number))


def accuracy(trial: FrozenTrial) -> float:
    """Of a finished trial, in [0, 1]."""
    assert trial.value is not None
    return float(trial.value)


def _open_places(study: Study, trials: int) -> int:
    return trials - _count(study, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def _count(study: Study, *states: TrialState) -> int:
    return len(study.get_trials(deepcopy=False, states=states))


def _tell(study: Study, trial: optuna.Trial, result: Result, folder: Path) -> None:
    for key, value in result.facts.items():
        trial.set_user_attr(key, value)
    if result.accuracy is None:
        _quiet(lambda: study.tell(trial, state=TrialState.PRUNED))
        return
    if result.weights:
        save_arrays(weights_path(folder, trial.number), result.weights)
    _quiet(lambda: study.tell(trial, result.accuracy))


def _remove_weights(study: Study, folder: Path, keep: int) -> None:
    """Keep the weights of the best trials alone. What is not among them now never will be, whoever adds trials."""
    for trial in ranking(study)[keep:]:
        weights_path(folder, trial.number).unlink(missing_ok=True)


def _fail(study: Study, trial: optuna.Trial | FrozenTrial, reason: str, *, counts: bool = True) -> None:
    """Fail a trial and queue its configuration again, unless another process did or too many attempts count."""
    attributes, parameters = trial.user_attrs, trial.params
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return
    attempt = attributes.get(ATTEMPT, 1)
    if DRAW in attributes and attempt < ATTEMPTS:
        again = {DRAW: attributes[DRAW], ATTEMPT: attempt + counts, "again": reason}
        study.enqueue_trial(parameters, user_attrs=again)


def _here() -> str:
    """This machine and, where processes are numbered anew, the container."""
    numbering = Path("/proc/self/ns/pid")
    return " ".join([socket.gethostname(), *([str(numbering.readlink())] if numbering.is_symlink() else [])])


def _gone(host: str, process: int) -> bool:
    """Whether it is certain that a process has ended."""
    if host != _here() or os.name == "nt":  # where signal 0 is no question
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _sign(study: Study, trial: optuna.Trial) -> int:
    """Say who runs a trial; its draw."""
    trial.set_user_attr(OWNER, {"host": _here(), "process": os.getpid()})
    trial.set_user_attr(BEAT, time.time())
    draw: int | None = trial.user_attrs.get(DRAW)
    if draw is None:
        draw = draw_number(study, study.trials[trial.number])
        trial.set_user_attr(DRAW, draw)
    return draw


def _abandoned(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get(OWNER)
    if owner is not None and _gone(**owner):
        return True
    if owner is None:
        return datetime.now() - (trial.datetime_start or datetime.now()) > timedelta(seconds=UNSIGNED_S)
    beat: float = trial.user_attrs.get(BEAT, time.time())
    return time.time() - beat > GRACE_S


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C waiting, so that no trial is begun without a signature."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _heart(running: Mapping[int, optuna.Trial]) -> Iterator[None]:
    """Renew the time on this process' trials."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            for trial in list(running.values()):
                try:
                    trial.set_user_attr(BEAT, time.time())
                except UpdateFinishedTrialError:
                    continue  # told in the meantime

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _trial_seed(seed: int, draw: int) -> int:
    return int(np.random.SeedSequence((seed, draw)).generate_state(1)[0])


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _quiet(act: Callable[[], Any]) -> Any:
    """Without Optuna's line for each trial: the progress bar says it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return act()
    finally:
        optuna.logging.set_verbosity(before)
