"""Supernets: all candidates of every choice module with weights of their own, trained one single path at a time.

Single path one-shot (Guo et al., 2020): each training step draws one candidate of every choice module, uniformly and
independently, and updates the weights of that path alone. A path's weights are then a subset of the supernet's, by
name.
"""

# mypy: allow-subclassing-any
# (torch is optional: where it is not installed its classes have no types)
# ruff: noqa: D102 - a module's `forward` is what its docstring describes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from nas.data import LabelledImages
from nas.layers import Network, describe, supernet_modules
from nas.network import Candidate, PathNetwork, attach
from nas.space import Architecture, PathConfig, Space, SuperConfig
from nas.training import ANY_HARDWARE, EpochResult, Hardware, Hook, TrainingConfig, train
from refsim.errors import ModelError


class Supernet(nn.Module):
    """A supernet: images (batch, channels, height, width) float32 -> logits (batch, classes), along one path.

    Attributes:
        space, config: what it was built from.
        choices: the candidates of every choice module, in execution order.
        active: which candidate of each the next call goes through.
    """

    def __init__(self, space: Space, config: SuperConfig) -> None:
        super().__init__()
        self.space, self.config = space, config
        self.choices = [
            tuple(Candidate(module, norm=True) for module in modules) for modules in supernet_modules(space, config)
        ]
        for candidates in self.choices:
            for candidate in candidates:
                attach(self, candidate)
        self.active: tuple[int, ...] = (0,) * len(self.choices)

    def forward(self, x: Tensor) -> Tensor:
        for candidates, index in zip(self.choices, self.active, strict=True):
            x = candidates[index](x)
        return x

    def choose(self, indices: Sequence[int]) -> None:
        """Let the next calls go through these candidates, one for each choice module.

        Raises:
            ModelError: there is no such candidate, or not one for each module.
        """
        counts = [len(candidates) for candidates in self.choices]
        if len(indices) != len(counts) or any(not 0 <= i < n for i, n in zip(indices, counts, strict=False)):
            raise ModelError(f"path {tuple(indices)} is none of a supernet whose modules have {counts} candidates")
        self.active = tuple(indices)

    def sample(self, generator: torch.Generator) -> tuple[int, ...]:
        """A path, uniform among all, and `choose` it."""
        self.choose([int(torch.randint(len(c), (1,), generator=generator)) for c in self.choices])
        return self.active

    def describe(self, path: PathConfig) -> Network:
        """The layers of a path, with its pruning."""
        return describe(Architecture(self.space.input_shape, self.space.classes, self.config, path))


class SinglePath(Hook):
    """Draws the path that each training step goes through."""

    def before_step(self, model: nn.Module, step: int, generator: torch.Generator) -> None:
        assert isinstance(model, Supernet)
        model.sample(generator)


def train_supernet(
    space: Space,
    config: SuperConfig,
    training: LabelledImages,
    *,
    schedule: TrainingConfig,
    folder: Path | None = None,
    hardware: Hardware = ANY_HARDWARE,
    console: Console | None = None,
) -> tuple[Supernet, list[EpochResult]]:
    """Train a supernet, one path drawn for each step.

    Args:
        space: whose candidates the supernet has.
        config: its dimensions and numbers of modules.
        training: images of the space's size.
        schedule: of the training; in Algorithm 2 10 epochs of the paper's.
        folder: of checkpoints, from which an interrupted training goes on.
        hardware: where to compute.
        console: of the progress bar.

    Raises:
        DataError: see `nas.training.train`.
    """
    model, history = train(
        lambda: Supernet(space, config),
        training,
        None,
        config=schedule,
        folder=folder,
        hooks=[SinglePath()],
        hardware=replace(hardware, compile=False),  # each step is another network
        console=console,
    )
    assert isinstance(model, Supernet)
    return model, history


def path_network(supernet: Supernet, path: PathConfig) -> PathNetwork:
    """The network of a path, with a copy of its weights and statistics.

    The statistics of batch normalisation are those of all paths mixed: see `nas.network.recalibrate`.

    Raises:
        ModelError: the path takes a candidate that the supernet does not have.
        ShapeError: the path has other numbers of modules than the supernet.
    """
    model = PathNetwork(supernet.describe(path))
    shared = supernet.state_dict()
    state = model.state_dict()
    for name, tensor in state.items():
        if name not in shared or shared[name].shape != tensor.shape:
            raise ModelError(
                f"the supernet has no parameter {name!r} of shape {tuple(tensor.shape)} that the path takes"
            )
        state[name] = shared[name]
    model.load_state_dict(state)
    model.to(next(supernet.parameters()).device)
    return model
