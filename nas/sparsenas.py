"""SparseNAS, selection stage: what a trial of a single path does (paper, section III-C.1, Algorithm 3).

The loop over paths, `EvolutionarySample` and `UpdateBest` are those of `nas.study`. How a path is trained and pruned
comes from outside, so this module needs no torch. The compression stage is `nas.compression`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.executor import Result, Weights
from nas.layers import describe
from nas.resources import Limits, Resources
from nas.space import Architecture, PathConfig, Space, SuperConfig

RESOURCES = "resources"
"""The fact that holds what a model takes, as `Resources` has it."""

SPEED = "images_per_second"
"""The fact that says how fast a network was trained."""


class PrunedPath(Protocol):
    """A single path with its weights, trained and pruned."""

    @property
    def state(self) -> Weights:
        """What training goes on from."""
        ...

    @property
    def weights(self) -> Mapping[str, NDArray[np.float32]]:
        """What is deployed (`nas.writer.Weights`)."""
        ...

    @property
    def images_per_second(self) -> float:
        """How fast it was trained."""
        ...

    def accuracy(self) -> float:
        """Of the integer model (`AccuracyEval`, after quantisation)."""
        ...


class Evaluation(Protocol):
    """`nas.resources.ResourceEval`: of random masks, or of weights."""

    def __call__(
        self, architecture: Architecture, weights: Mapping[str, NDArray[np.float32]] | None = None
    ) -> Resources:
        """What an architecture takes."""
        ...


@dataclass(frozen=True, eq=False)
class PathTrial:
    """Lines 5 to 12 of Algorithm 3, for one path.

    What a model takes is asked twice: before training with random masks, so that no time is spent on one that does not
    fit, and afterwards with the weights that would be generated.

    Attributes:
        space: that is searched.
        supernet: that the paths go through.
        resources: `ResourceEval`.
        limits: for the models; with a latency among them the search is one for a chip's time as well, as in HAT (Wang
            et al., 2020).
        train: trains a path for a few epochs and prunes it gradually: (architecture, seed, folder for checkpoints).
    """

    space: Space
    supernet: SuperConfig
    resources: Evaluation
    limits: Limits
    train: Callable[[Architecture, int, Path], PrunedPath]

    def architecture(self, path: PathConfig) -> Architecture:
        """Of a path through the supernet."""
        return Architecture(self.space.input_shape, self.space.classes, self.supernet, path)

    def __call__(self, path: PathConfig, seed: int, folder: Path) -> Result:
        """The accuracy of the path's integer model, or why it is skipped."""
        architecture = self.architecture(path)
        if self.limits.surely_exceeded(describe(architecture)):
            return Result(None, {"skipped": "flash: the weights alone exceed the limit"})
        skipped = self._exceeding(self.resources(architecture), "before training")
        if skipped:
            return skipped
        trained = self.train(architecture, seed, folder)
        resources = self.resources(architecture, trained.weights)
        skipped = self._exceeding(resources, "as trained")
        if skipped:
            return skipped
        facts = {**_taken(resources), SPEED: trained.images_per_second}
        return Result(trained.accuracy(), facts, weights=trained.state)

    def _exceeding(self, resources: Resources, when: str) -> Result | None:
        reasons = self.limits.exceeded(resources)
        if not reasons:
            return None
        return Result(None, {**_taken(resources), "skipped": f"{', '.join(reasons)} ({when})"})


def _taken(resources: Resources) -> dict[str, Any]:
    """What a model takes, and what limits are about as numbers of their own, which Optuna's dashboard has axes for."""
    return {
        RESOURCES: asdict(resources),
        "flash_bytes": resources.flash_bytes,
        "ram_bytes": resources.ram_bytes,
        "latency_ms": resources.latency_ms,
    }
