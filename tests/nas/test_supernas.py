"""Algorithm 2 by hand: which paths count, what is skipped, what the average is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from nas import supernas
from nas.resources import Limits
from nas.sampling import random_path, random_super
from nas.space import Architecture, PathConfig, Space, SuperConfig, load_space
from tests.nas.fakes import by_expansion

SPACE = load_space("tiny")  # expansions 1 and 2, so 100 and 200 bytes of RAM
SUPERNET = random_super(SPACE, np.random.default_rng(0))
HERE = Path("nowhere")


def sequence(*ram: int) -> Callable[[Architecture], int]:
    values = iter(ram)
    return lambda _architecture: next(values)


@dataclass
class FakeSupernet:
    """Accurate by the sparsity of the head."""

    weights: dict[str, np.ndarray] = field(default_factory=lambda: {"w": np.zeros(1)})
    images_per_second: float = 900.0
    asked: list[PathConfig] = field(default_factory=list)

    def pruned_accuracy(self, path: PathConfig) -> float:
        self.asked.append(path)
        return path.head_pruning.sparsity


@dataclass
class FakeTraining:
    trained: list[tuple[SuperConfig, int, Path]] = field(default_factory=list)
    supernet: FakeSupernet = field(default_factory=FakeSupernet)

    def __call__(self, supernet: SuperConfig, seed: int, folder: Path) -> FakeSupernet:
        self.trained.append((supernet, seed, folder))
        return self.supernet


def trial(limits: Limits, training: FakeTraining, paths: int = 6, space: Space = SPACE) -> supernas.SupernetTrial:
    return supernas.SupernetTrial(space, by_expansion, limits, training, test_paths=10, paths=paths)


@pytest.mark.parametrize(
    ("ram", "expected"),
    [
        ([5, 5, 5], (3, 0, True)),  # three of four fit: the fourth is not looked at
        ([15, 5, 15, 5], (3, 2, False)),  # half exceed after three
        ([5, 15, 5, 15], (4, 2, False)),  # half exceed: skipped, as the paper has it
        ([10, 15, 10, 10], (4, 1, True)),  # at the limit is within it
    ],
)
def test_test_supernet_skips_where_half_exceed(ram: list[int], expected: tuple[int, int, bool]) -> None:
    found = supernas.test_supernet(SPACE, SUPERNET, sequence(*ram), 10, np.random.default_rng(0), paths=4)
    assert (found.paths, found.exceeding, found.passed) == expected


def test_average_is_over_the_paths_that_fit() -> None:
    # flash: what the head keeps, of 1000; RAM never exceeds
    training, limits = FakeTraining(), Limits(flash_bytes=550, ram_bytes=1000)
    result = trial(limits, training)(SUPERNET, 7, HERE)
    assert training.trained == [(SUPERNET, 7, HERE)]

    # the same draws: six of the test (more than half of ten fit), then six for the average
    rng = np.random.default_rng(7)
    drawn = [random_path(SPACE, SUPERNET, rng) for _ in range(6 + 6)][6:]
    fitting = [path for path in drawn if path.head_pruning.sparsity >= 0.5]
    assert 0 < len(fitting) < 6, "an example that says something"
    assert training.supernet.asked == fitting
    accuracies = [path.head_pruning.sparsity for path in fitting]
    assert result.accuracy == pytest.approx(np.mean(accuracies))
    assert result.facts == {
        "tested": 6,
        "exceeding": 0,
        "fitting": len(fitting),
        "paths": 6,
        "path_accuracies": accuracies,
        "images_per_second": 900.0,
    }
    assert result.weights == training.supernet.weights


def test_supernet_whose_paths_need_too_much_memory_is_not_trained() -> None:
    training = FakeTraining()
    result = trial(Limits(flash_bytes=2000, ram_bytes=50), training)(SUPERNET, 0, HERE)
    assert result.accuracy is None
    assert result.facts == {"tested": 5, "exceeding": 5, "skipped": "RAM: 5 of 5 paths exceed the limit"}
    assert not training.trained


def test_supernet_none_of_whose_paths_fits_is_not_trained() -> None:
    training = FakeTraining()
    result = trial(Limits(flash_bytes=2000, ram_bytes=2000, latency_ms=0.5), training, paths=3)(SUPERNET, 0, HERE)
    assert (result.accuracy, result.facts["skipped"]) == (None, "none of 3 paths is within the limits")
    assert not training.trained


def test_same_seed_same_paths() -> None:
    limits = Limits(flash_bytes=2000, ram_bytes=2000)
    asked = []
    for seed in (3, 3, 4):
        training = FakeTraining()
        trial(limits, training)(SUPERNET, seed, HERE)
        asked.append(training.supernet.asked)
    assert asked[0] == asked[1] != asked[2]
