import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

optuna = pytest.importorskip("optuna", reason='optuna is not installed: pip install "tinyformer[nas]"')

from nas.arrays import load_arrays
from nas.evolution import Evolution, EvolutionarySampler, super_genes
from nas.executor import LocalExecutor, Lost, Result, Work
from nas.space import SuperConfig, load_space
from nas.study import (
    ATTEMPTS,
    GRACE_S,
    LOSSES,
    best_trial,
    open_storage,
    open_study,
    requeue_abandoned,
    run_trials,
    weights_path,
)
from refsim.errors import DataError, TargetError, TinyFormerError

GENES = super_genes(load_space("table1"))
State = optuna.trial.TrialState


def opened(folder: Path, settings: dict[str, Any] | None = None, storage: str | None = None) -> "optuna.Study":
    sampler = EvolutionarySampler(GENES, Evolution(random=3))
    return open_study(open_storage(storage, folder), "supernets", sampler, settings or {"seed": 0})


def states(study: "optuna.Study") -> list[str]:
    return [trial.state.name for trial in study.trials]


def by_width(supernet: SuperConfig, seed: int, folder: Path) -> Result:
    """Accurate in proportion to the last layer; four heads do not fit."""
    if supernet.heads == 4:
        return Result(None, {"skipped": "RAM: too many heads"})
    return Result(supernet.last_linear / 1024, {"seed": seed}, {"w": np.full(2, supernet.last_linear)})


def run(study: "optuna.Study", folder: Path, trials: int, evaluate: Any = by_width, executor: Any = None) -> None:
    run_trials(study, GENES, evaluate, executor or LocalExecutor(), trials=trials, seed=5, folder=folder)


def test_skipped_trials_count_and_have_no_accuracy(tmp_path: Path) -> None:
    study = opened(tmp_path)
    seen: list[int] = []
    run_trials(
        study,
        GENES,
        by_width,
        LocalExecutor(),
        trials=8,
        seed=5,
        folder=tmp_path,
        observe=lambda trials: seen.append(sum(t.state.is_finished() for t in trials)),
    )
    assert seen == [(told + 1) // 2 for told in range(16)], "as each is begun, and as it ends"
    for trial in study.trials:
        if trial.params["heads"] == 4:
            assert (trial.state, trial.user_attrs["skipped"]) == (State.PRUNED, "RAM: too many heads")
            assert not weights_path(tmp_path, trial.number).exists()
        else:
            assert (trial.state, trial.value) == (State.COMPLETE, trial.params["last_linear"] / 1024)
            assert load_arrays(weights_path(tmp_path, trial.number))["w"][0] == trial.params["last_linear"]


def test_weights_of_the_best_trials_stay(tmp_path: Path) -> None:
    study, here = opened(tmp_path), tmp_path / "weights"

    def on_disk() -> list[int]:
        return sorted(int(file.stem) for file in here.glob("*.npz"))

    for trials in (4, 12):  # the second run finds what the first one kept
        run_trials(study, GENES, by_width, LocalExecutor(), trials=trials, seed=5, folder=here, keep=2)
        finished = [t for t in study.trials if t.state == State.COMPLETE]
        best = sorted(finished, key=lambda t: (-t.params["last_linear"], t.number))[:2]
        assert on_disk() == sorted(t.number for t in best)
    assert len(finished) > 2, "an example that says something"
    assert {"PRUNED", "COMPLETE"} == set(states(study))


def test_the_best_is_the_first_of_the_highest(tmp_path: Path) -> None:
    study = opened(tmp_path)
    values = iter([0.2, 0.7, 0.3, 0.7])
    run(study, tmp_path, 4, lambda *_: Result(next(values), {}))
    assert best_trial(study).number == 1


def test_no_best_where_nothing_fits(tmp_path: Path) -> None:
    study = opened(tmp_path)
    run(study, tmp_path, 3, lambda *_: Result(None, {"skipped": "flash: 3 of 2 bytes"}))
    with pytest.raises(TargetError, match=r"none of 3 trials .* flash: 3 of 2 bytes"):
        best_trial(study)


def test_a_stopped_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = opened(tmp_path / "whole")
    run(whole, tmp_path / "whole", 9)

    def interrupted(supernet: SuperConfig, seed: int, folder: Path) -> Result:
        if folder.name == "0004":
            raise KeyboardInterrupt
        return by_width(supernet, seed, folder)

    with pytest.raises(KeyboardInterrupt):
        run(opened(tmp_path / "parts"), tmp_path / "parts", 9, interrupted)
    study = opened(tmp_path / "parts")
    assert states(study)[4:] == ["FAIL", "WAITING"]
    run(study, tmp_path / "parts", 9)
    finished = [t for t in study.trials if t.state != State.FAIL]
    assert len(finished) == 9
    assert finished[4].user_attrs["attempt"] == 1, "a stop is no attempt"
    for there, here in zip(whole.trials, finished, strict=True):
        assert (here.params, here.value, here.state) == (there.params, there.value, there.state)
        assert here.user_attrs.get("seed") == there.user_attrs.get("seed")


def test_a_search_has_all_it_asked_for(tmp_path: Path) -> None:
    run(opened(tmp_path), tmp_path, 3)
    run(opened(tmp_path), tmp_path, 3, executor=None)
    assert len(opened(tmp_path).trials) == 3


def test_other_settings_are_named(tmp_path: Path) -> None:
    opened(tmp_path, {"seed": 0, "target": "stm32f746"})
    with pytest.raises(DataError, match=r"target \"stm32f746\" -> \"stm32h743\""):
        opened(tmp_path, {"seed": 0, "target": "stm32h743"})


def test_journal_files_hold_studies(tmp_path: Path) -> None:
    journal = str(tmp_path / "studies.journal")
    run(opened(tmp_path, storage=journal), tmp_path, 4)
    assert len(opened(tmp_path, storage=journal).trials) == 4
    assert not (tmp_path / "study.db").exists()


@pytest.mark.parametrize("storage", ["studies.txt", "nosuchdatabase://host/name", "sqlite:////no/such/folder/x.db"])
def test_unusable_storage_is_named(tmp_path: Path, storage: str) -> None:
    with pytest.raises(DataError, match=storage):
        open_storage(storage, tmp_path)


class Losing:
    """An executor of two slots whose worker dies with the first `losses` pieces of work."""

    slots = 2

    def __init__(self, losses: int) -> None:
        self.left = losses
        self.queue: list[tuple[int, Work]] = []
        self.together = 0

    def submit(self, number: int, work: Work) -> None:
        self.queue.append((number, work))
        self.together = max(self.together, len(self.queue))

    def wait(self) -> tuple[int, Result | Lost]:
        number, work = self.queue.pop(0)
        if self.left:
            self.left -= 1
            return number, Lost("the worker died")
        return number, work.evaluate(work.config, work.seed, work.folder)

    def abandon(self) -> None:
        self.queue.clear()

    def close(self) -> None:
        pass


def test_a_lost_trial_is_repeated(tmp_path: Path) -> None:
    study, executor = opened(tmp_path), Losing(1)
    run(study, tmp_path, 4, executor=executor)
    assert executor.together == 2
    assert states(study).count("FAIL") == 1
    assert len(study.trials) == 5
    (again,) = [t for t in study.trials if "again" in t.user_attrs]
    assert (again.params, again.user_attrs["again"]) == (study.trials[0].params, "the worker died")


def test_a_configuration_is_given_up_in_the_end(tmp_path: Path) -> None:
    """Two slots: the first two configurations are lost in turn, the first of them for good."""
    study = opened(tmp_path)
    run(study, tmp_path, 2, executor=Losing(LOSSES - 1))
    lost = [t for t in study.trials if t.state == State.FAIL]
    attempts = [t.user_attrs.get("attempt", 1) for t in lost]
    assert max(attempts) == ATTEMPTS
    assert len(lost) == LOSSES - 1


def test_a_search_that_only_loses_ends(tmp_path: Path) -> None:
    with pytest.raises(TinyFormerError, match="6 trials were lost one after the other"):
        run(opened(tmp_path), tmp_path, 4, executor=Losing(100))


def test_trials_of_other_machines_count_as_abandoned_after_a_while(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for age in (GRACE_S / 2, GRACE_S * 2):
        trial = study.ask(GENES.distributions)
        trial.set_user_attr("owner", {"host": "elsewhere", "process": 1})
        trial.set_user_attr("draw", trial.number)
        trial.set_user_attr("beat", time.time() - age)
    assert requeue_abandoned(study) == 1
    assert states(study) == ["RUNNING", "FAIL", "WAITING"]
    assert requeue_abandoned(study) == 0


def test_a_trial_that_was_never_begun_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened(tmp_path / "whole")
    run(whole, tmp_path / "whole", 6)
    study = opened(tmp_path / "parts")
    run(study, tmp_path / "parts", 2)
    study.ask(GENES.distributions)  # and killed before it was signed
    assert requeue_abandoned(study) == 0
    monkeypatch.setattr("nas.study.UNSIGNED_S", -1.0)
    run(study, tmp_path / "parts", 6)
    finished = [t for t in study.trials if t.state != State.FAIL]
    assert len(study.trials) == 7
    assert [t.params for t in finished] == [t.params for t in whole.trials]


PROCESS = """
import sys, time
from pathlib import Path
from nas.executor import LocalExecutor
from tests.nas.test_study import by_width, opened, run
folder = Path(sys.argv[1])
def slow(supernet, seed, where):
    if where.name == "0002":
        print("working", flush=True)
        time.sleep(300)
    return by_width(supernet, seed, where)
run(opened(folder), folder, 6, slow)
"""


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS.replace("300", "0"), str(tmp_path)]
    root = Path(__file__).parents[2]
    both = [subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    trials = opened(tmp_path).trials
    assert len(trials) in (6, 7), "two that ask at once may add one"
    assert sorted(t.user_attrs["draw"] for t in trials) == list(range(len(trials)))
    assert all(t.state in (State.COMPLETE, State.PRUNED) for t in trials)


def test_a_killed_process_loses_its_trial_only(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    assert states(opened(tmp_path))[2:] == ["RUNNING"]
    assert requeue_abandoned(opened(tmp_path)) == 0, "its process is alive"
    process.send_signal(signal.SIGKILL)
    process.wait()
    study = opened(tmp_path)
    before = {t.number: t.value for t in study.trials if t.number < 2}
    run(study, tmp_path, 6)
    after = {t.number: t.value for t in study.trials if t.number < 2}
    assert after == before
    assert states(study).count("FAIL") == 1
    assert states(study).count("RUNNING") == 0
    assert len(study.trials) == 7
