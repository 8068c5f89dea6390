"""SuperNAS: what a trial of a supernet does (paper, section III-B.3, Algorithm 2).

The loop over supernets, `EvolutionarySample` and `UpdateBest` are those of `nas.study`, for all searches the same. How
a supernet is trained comes from outside, so this module needs no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nas.executor import Result, Weights
from nas.resources import Limits, Resources
from nas.sampling import random_path
from nas.space import Architecture, PathConfig, Space, SuperConfig


class TrainedSupernet(Protocol):
    """A supernet with its weights."""

    @property
    def weights(self) -> Weights:
        """Of all candidates."""
        ...

    @property
    def images_per_second(self) -> float:
        """How fast it was trained."""
        ...

    def pruned_accuracy(self, path: PathConfig) -> float:
        """Accuracy of the integer model of a path, pruned at once and not tuned (lines 17 and 18)."""
        ...


@dataclass(frozen=True)
class Tested:
    """What `test_supernet` found.

    Attributes:
        paths: drawn before the answer was certain.
        exceeding: of them, those that need more memory than there is.
        passed: fewer than half of all exceed the limit.
    """

    paths: int
    exceeding: int
    passed: bool


def test_supernet(
    space: Space,
    supernet: SuperConfig,
    ram_bytes: Callable[[Architecture], int],
    limit: int,
    rng: np.random.Generator,
    paths: int = 100,
) -> Tested:
    """Whether fewer than half of some random paths exceed the limit for memory (`TestSupernet`).

    Args:
        space: that the paths are drawn from.
        supernet: they go through.
        ram_bytes: peak memory of an architecture.
        limit: for it.
        rng: source of the paths.
        paths: to draw; drawing ends as soon as the answer is certain.
    """
    exceeding = 0
    for drawn in range(1, paths + 1):
        path = random_path(space, supernet, rng)
        exceeding += ram_bytes(Architecture(space.input_shape, space.classes, supernet, path)) > limit
        if 2 * exceeding >= paths:
            return Tested(drawn, exceeding, passed=False)
        if 2 * (drawn - exceeding) > paths:
            break
    return Tested(drawn, exceeding, passed=True)


@dataclass(frozen=True, eq=False)
class SupernetTrial:
    """Lines 5 to 21 of Algorithm 2, for one supernet.

    Attributes:
        space: that is searched.
        resources: `ResourceEval`.
        limits: for the models.
        train: trains a supernet for a few epochs: (supernet, seed, folder for checkpoints).
        test_paths: of `test_supernet`.
        paths: drawn for the average accuracy, T_j; those that do not fit are left out of it.
    """

    space: Space
    resources: Callable[[Architecture], Resources]
    limits: Limits
    train: Callable[[SuperConfig, int, Path], TrainedSupernet]
    test_paths: int = 100
    paths: int = 10

    def __call__(self, supernet: SuperConfig, seed: int, folder: Path) -> Result:
        """The average accuracy of the paths that fit, or why the supernet is skipped."""
        rng = np.random.default_rng(seed)
        tested = test_supernet(
            self.space,
            supernet,
            lambda architecture: self.resources(architecture).ram_bytes,
            self.limits.ram_bytes,
            rng,
            self.test_paths,
        )
        facts: dict[str, Any] = {"tested": tested.paths, "exceeding": tested.exceeding}
        if not tested.passed:
            reason = f"RAM: {tested.exceeding} of {tested.paths} paths exceed the limit"
            return Result(None, {**facts, "skipped": reason})
        drawn = [random_path(self.space, supernet, rng) for _ in range(self.paths)]
        fitting = [path for path in drawn if self._fits(supernet, path)]
        facts["fitting"], facts["paths"] = len(fitting), len(drawn)
        if not fitting:
            return Result(None, {**facts, "skipped": f"none of {len(drawn)} paths is within the limits"})
        trained = self.train(supernet, seed, folder)
        accuracies = [trained.pruned_accuracy(path) for path in fitting]
        facts |= {"path_accuracies": accuracies, "images_per_second": trained.images_per_second}
        return Result(sum(accuracies) / len(accuracies), facts, weights=trained.weights)

    def _fits(self, supernet: SuperConfig, path: PathConfig) -> bool:
        architecture = Architecture(self.space.input_shape, self.space.classes, supernet, path)
        return not self.limits.exceeded(self.resources(architecture))
