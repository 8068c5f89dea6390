"""Algorithm 3 by hand: what is skipped before training and after, and what a trial keeps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.executor import Result
from nas.resources import Limits, Resources
from nas.sampling import random_path, random_super
from nas.space import Architecture, load_space
from nas.sparsenas import Evaluation, PathTrial
from tests.nas.fakes import by_expansion, made_up

SPACE = load_space("tiny")
SUPERNET = random_super(SPACE, np.random.default_rng(0))
PATH = random_path(SPACE, SUPERNET, np.random.default_rng(1))
FOLDER = Path("checkpoints")


@dataclass
class FakePath:
    """Trained to an accuracy."""

    value: float
    state: dict[str, NDArray[np.float32]] = field(default_factory=lambda: {"bn": np.ones(1, np.float32)})
    weights: dict[str, NDArray[np.float32]] = field(default_factory=lambda: {"w": np.ones(1, np.float32)})
    images_per_second: float = 900.0

    def accuracy(self) -> float:
        return self.value


@dataclass
class FakeTraining:
    trained: list[tuple[Architecture, int, Path]] = field(default_factory=list)

    def __call__(self, architecture: Architecture, seed: int, folder: Path) -> FakePath:
        self.trained.append((architecture, seed, folder))
        return FakePath(0.75)


def evaluation(before: Resources, after: Resources) -> Evaluation:
    def resources(_: Architecture, weights: Mapping[str, NDArray[np.float32]] | None = None) -> Resources:
        return before if weights is None else after

    return resources


WIDE = Limits(flash_bytes=100_000, ram_bytes=1000, latency_ms=5.0)


def run(before: Resources, after: Resources, limits: Limits = WIDE) -> tuple[Result, FakeTraining]:
    training = FakeTraining()
    trial = PathTrial(SPACE, SUPERNET, evaluation(before, after), limits, training)
    return trial(PATH, 11, FOLDER), training


def test_a_path_that_fits_is_trained_and_keeps_what_it_takes() -> None:
    exact = made_up(ram=900, flash=90_000, latency_ms=4.5)
    result, training = run(made_up(ram=800, flash=80_000, latency_ms=4), exact)
    architecture = Architecture(SPACE.input_shape, SPACE.classes, SUPERNET, PATH)
    assert training.trained == [(architecture, 11, FOLDER)]
    assert result.accuracy == 0.75
    assert result.facts == {
        "resources": asdict(exact),
        "flash_bytes": 90_000,
        "ram_bytes": 900,
        "latency_ms": 4.5,
        "images_per_second": 900.0,
    }
    assert result.weights.keys() == {"bn"}, "what training goes on from, not what is deployed"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (made_up(ram=1001, latency_ms=1), "RAM: 1001 of 1000 bytes (before training)"),
        (made_up(flash=100_001, latency_ms=1), "flash: 100001 of 100000 bytes (before training)"),
        (made_up(latency_ms=5.1), "latency: 5.1 of 5.0 ms (before training)"),
    ],
)
def test_a_path_that_does_not_fit_is_not_trained(before: Resources, reason: str) -> None:
    result, training = run(before, made_up())
    assert (result.accuracy, result.facts["skipped"]) == (None, reason)
    assert result.facts["resources"] == asdict(before)
    assert not training.trained


def test_a_path_whose_trained_weights_do_not_fit_is_skipped() -> None:
    result, training = run(made_up(latency_ms=1), made_up(flash=100_004, latency_ms=1))
    assert (result.accuracy, result.facts["skipped"]) == (None, "flash: 100004 of 100000 bytes (as trained)")
    assert len(training.trained) == 1
    assert not result.weights


def test_weights_that_cannot_fit_are_not_even_evaluated() -> None:
    def never(*_: object) -> Resources:
        raise AssertionError("evaluated")

    trial = PathTrial(SPACE, SUPERNET, never, replace(WIDE, flash_bytes=100), FakeTraining())
    assert trial(PATH, 0, FOLDER).facts == {"skipped": "flash: the weights alone exceed the limit"}


def test_evolution_finds_the_best_path_that_fits(tmp_path: Path) -> None:
    """The whole of Algorithm 3 with made-up accuracies: sparser heads fit, expansion 2 does not."""
    pytest.importorskip("optuna", reason='optuna is not installed: pip install "tinyformer[nas]"')
    from nas.evolution import Evolution, EvolutionarySampler, path_genes
    from nas.executor import LocalExecutor
    from nas.study import best_trial, open_storage, open_study, run_trials

    def resources(architecture: Architecture, weights: object = None) -> Resources:
        return by_expansion(architecture)

    def train(architecture: Architecture, seed: int, folder: Path) -> FakePath:
        return FakePath(1 - architecture.path.head_pruning.sparsity)

    limits = Limits(flash_bytes=100_000, ram_bytes=100)
    genes = path_genes(SPACE, SUPERNET)
    trial = PathTrial(SPACE, SUPERNET, resources, limits, train)
    study = open_study(open_storage(None, tmp_path), "paths", EvolutionarySampler(genes, Evolution(random=6)), {})
    run_trials(study, genes, trial, LocalExecutor(), trials=25, seed=0, folder=tmp_path)
    fitting = [t for t in study.trials if t.params["stages.0.expansions.0"] == 1]
    assert [t for t in study.trials if t.state.name == "COMPLETE"] == fitting
    assert len(study.trials) == 25
    assert len(fitting) > 25 / 2, "children of paths that fit mostly do"
    assert best_trial(study).value == max(t.value for t in fitting) == 1.0
