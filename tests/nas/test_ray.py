"""Ray workers, one of them killed: two processes of this machine, started by the test."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason='optuna is not installed: pip install "tinyformer[nas]"')
pytest.importorskip("ray", reason='ray is not installed: pip install "tinyformer[distributed]"')

from nas.evolution import Evolution, EvolutionarySampler, Genes, super_genes
from nas.executor import RayExecutor, Result, Work
from nas.space import SuperConfig, load_space
from nas.study import open_storage, open_study, run_trials
from refsim.errors import DataError

GENES: Genes[SuperConfig] = super_genes(load_space("tiny"))


class Trial:
    """Waits to be killed where `victim` says so, the first time."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __call__(self, supernet: SuperConfig, seed: int, folder: Path) -> Result:
        note = self.notes / folder.name
        attempts = int(note.read_text().split()[0]) if note.exists() else 0
        note.write_text(f"{attempts + 1} {os.getpid()}")
        if folder.name == "0001" and not attempts:
            time.sleep(300)
        return Result(supernet.last_linear / 100, {"seed": seed})


@pytest.fixture
def executor() -> Iterator[RayExecutor]:
    made = RayExecutor(cpus=0.5, workers=2)
    yield made
    made.close()


def test_a_killed_worker_costs_its_trial_only(tmp_path: Path, executor: RayExecutor) -> None:
    def kill_when_it_works() -> None:
        note = tmp_path / "0001"
        while not note.exists() or not note.read_text():
            time.sleep(0.1)
        os.kill(int(note.read_text().split()[1]), signal.SIGKILL)

    study = open_study(
        open_storage(None, tmp_path / "out"), "supernets", EvolutionarySampler(GENES, Evolution(random=2)), {}
    )
    killer = threading.Thread(target=kill_when_it_works)
    killer.start()
    run_trials(study, GENES, Trial(tmp_path), executor, trials=5, seed=0, folder=tmp_path / "out")
    killer.join()
    trials = study.get_trials()
    lost = [t for t in trials if t.state.name == "FAIL"]
    assert [t.number for t in lost] == [1]
    assert [t.state.name for t in trials if t.number != 1] == ["COMPLETE"] * 5
    (again,) = [t for t in trials if "again" in t.user_attrs]
    assert again.params == lost[0].params
    assert again.user_attrs["attempt"] == 2
    # every other trial ran once
    runs = {note.name: int(note.read_text().split()[0]) for note in tmp_path.glob("0*")}
    assert runs == {name: 2 if name == "0001" else 1 for name in runs}


def test_an_error_in_a_worker_arrives_here(tmp_path: Path, executor: RayExecutor) -> None:
    executor.submit(3, Work(_failing, None, 0, tmp_path))
    with pytest.raises(DataError, match="no good"):
        executor.wait()


def _failing(_config: None, _seed: int, _folder: Path) -> Result:
    raise DataError("no good")
