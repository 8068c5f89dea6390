"""How the trials of a search train: supernets for Algorithm 2, single paths for Algorithm 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from nas.data import LabelledImages
from nas.evaluate import integer_accuracy
from nas.executor import Weights
from nas.layers import Network, describe
from nas.network import PathNetwork, recalibrate, weights
from nas.pruning import iterative_prune, one_shot_prune
from nas.space import Architecture, PathConfig, Space, SuperConfig
from nas.supernet import Supernet, path_network, train_supernet
from nas.training import EpochResult, Hardware, TrainingConfig, batches, train

STATISTICS_IMAGES = 512
"""Training images on which a path's statistics of batch normalisation are taken."""


@dataclass(frozen=True, eq=False)
class Images:
    """What a search trains and judges on.

    Attributes:
        training: for weights.
        validation: for accuracies, none of them among the training images.
        calibration: for the ranges of activations; uint8 (N, height, width, channels).
    """

    training: LabelledImages
    validation: LabelledImages
    calibration: NDArray[np.uint8]

    def accuracy(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], threads: int) -> float:
        """Of the integer model of a network."""
        return integer_accuracy(network, parameters, self.calibration, self.validation, threads=threads)


@dataclass(frozen=True, eq=False)
class SupernetTrainer:
    """Trains a supernet by single path one-shot.

    Attributes:
        space: whose candidates it has.
        images: to train on.
        schedule: of the training; each trial brings its own seed.
        hardware: where to compute.
        threads: of the processor.
    """

    space: Space
    images: Images
    schedule: TrainingConfig
    hardware: Hardware
    threads: int = 1

    def __call__(self, supernet: SuperConfig, seed: int, folder: Path) -> _TrainedSupernet:
        """Train; an interrupted training goes on from its checkpoint in `folder`."""
        torch.set_num_threads(self.threads)
        model, history = train_supernet(
            self.space,
            supernet,
            self.images.training,
            schedule=replace(self.schedule, seed=seed),
            folder=folder,
            hardware=self.hardware,
            console=_quiet(),
        )
        return _TrainedSupernet(model, self.images, self.threads, _images_per_second(history))


@dataclass(frozen=True, eq=False)
class PathTrainer:
    """Trains a single path, from the supernet's weights, and prunes it gradually.

    Attributes:
        space, supernet: that the path goes through.
        shared: weights of the supernet.
        images: to train on.
        schedule: of the training before pruning.
        pruning: of the training with it.
        hardware: where to compute.
        threads: of the processor.
    """

    space: Space
    supernet: SuperConfig
    shared: Weights
    images: Images
    schedule: TrainingConfig
    pruning: TrainingConfig
    hardware: Hardware
    threads: int = 1

    def __call__(self, architecture: Architecture, seed: int, folder: Path) -> _PrunedPath:
        """Train and prune; what is interrupted goes on from its checkpoints in `folder`."""
        torch.set_num_threads(self.threads)
        inherited = self._inherited(architecture.path)
        trained, before = train(
            lambda: inherited,
            self.images.training,
            None,
            config=replace(self.schedule, seed=seed),
            folder=folder / "train",
            hardware=self.hardware,
            console=_quiet(),
        )
        assert isinstance(trained, PathNetwork)
        pruned, after = iterative_prune(
            trained,
            self.images.training,
            config=replace(self.pruning, seed=seed),
            folder=folder / "prune",
            hardware=self.hardware,
            console=_quiet(),
        )
        return _PrunedPath(pruned, self.images, self.threads, _images_per_second([*before, *after]))

    def _inherited(self, path: PathConfig) -> PathNetwork:
        supernet = Supernet(self.space, self.supernet)
        supernet.load_state_dict({name: torch.from_numpy(array) for name, array in self.shared.items()})
        return path_network(supernet, path)


def network_of(architecture: Architecture, state: Weights) -> PathNetwork:
    """A path with the weights that a trial kept."""
    model = PathNetwork(describe(architecture))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model


@dataclass(frozen=True, eq=False)
class _TrainedSupernet:
    """See `nas.supernas.TrainedSupernet`."""

    model: Supernet
    images: Images
    threads: int
    images_per_second: float

    @property
    def weights(self) -> Weights:
        return _state(self.model)

    def pruned_accuracy(self, path: PathConfig) -> float:
        model = path_network(self.model, path)
        one_shot_prune(model)
        device = next(model.parameters()).device
        recalibrate(model, (x.to(device) for x in batches(self.images.training, STATISTICS_IMAGES, seed=0)))
        return self.images.accuracy(model.network, weights(model), self.threads)


@dataclass(frozen=True, eq=False)
class _PrunedPath:
    """See `nas.sparsenas.PrunedPath`."""

    model: PathNetwork
    images: Images
    threads: int
    images_per_second: float

    @property
    def state(self) -> Weights:
        return _state(self.model)

    @property
    def weights(self) -> Mapping[str, NDArray[np.float32]]:
        return weights(self.model)

    def accuracy(self) -> float:
        return self.images.accuracy(self.model.network, self.weights, self.threads)


def _state(model: torch.nn.Module) -> Weights:
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def _images_per_second(history: Sequence[EpochResult]) -> float:
    """Over all epochs, which have the same number of images."""
    return len(history) / sum(1 / epoch.images_per_second for epoch in history)


def _quiet() -> Console:
    """For progress bars inside a trial: the search shows one of its own."""
    return Console(quiet=True)
