"""Blockwise pruning: masks, one-shot pruning and AGP (paper, section III-C; Zhu & Gupta, 2018).

A block is 2 or 4 weights along the input channels of a convolution or linear layer, or the 3 of one kernel row of a
depthwise convolution. Which blocks of a layer go is decided by a score for each weight, summed over the block
(`nas.scores`): magnitude unless told otherwise. How many go is the description's to say (`Layer.pruned_blocks`), so
the resources known before pruning are those after it.
"""

# ruff: noqa: D102 - hooks are documented in their base class

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.data import LabelledImages
from nas.layers import Layer
from nas.network import PARAMETRIC, PathNetwork, recalibrate
from nas.training import EpochResult, Hook, TrainingConfig, batches, train
from nas.writer import as_blocks, from_blocks
from refsim.errors import DataError

STATISTICS_IMAGES = 1024
"""Training images that statistics of batch normalisation are taken from."""

BlockScores = Mapping[str, NDArray[np.float64]]
"""Importance of every block of a layer, in the order of `nas.writer.as_blocks`, by the layer's name."""

Criterion = Callable[[PathNetwork], BlockScores]
"""Scores the blocks of all layers that are pruned, on the network as it is."""

Masks = dict[str, Tensor]
"""True where a weight stays, with the weight's shape, by the layer's name."""


@dataclass(frozen=True)
class Agp:
    """Automated gradual pruning: sparsity that rises fast at first and slows down towards its end.

    Attributes:
        begin: step of the first pruning, t_0.
        every: steps between two prunings, delta t.
        times: prunings after the first, n.
    """

    begin: int
    every: int
    times: int

    def __post_init__(self) -> None:
        if self.begin < 0 or self.every < 1 or self.times < 1:
            raise DataError(
                f"AGP from step {self.begin} every {self.every} steps, {self.times} times: "
                "begin must be at least 0, every and times at least 1"
            )

    @classmethod
    def over(cls, steps: int, most: int = 20) -> Agp:
        """From step 0 to step `steps` or shortly before, in at most `most` equal intervals."""
        every = max(1, -(-steps // most))
        return cls(0, every, max(1, steps // every))

    @property
    def end(self) -> int:
        """Step of the last pruning."""
        return self.begin + self.times * self.every

    def due(self, step: int) -> bool:
        """Whether to prune at `step`."""
        return self.begin <= step <= self.end and (step - self.begin) % self.every == 0

    def sparsity(self, step: int, final: float, initial: float = 0.0) -> float:
        """s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n delta t))^3; before the begin s_i, after the end s_f."""
        progress = min(max((step - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return final + (initial - final) * (1 - progress) ** 3


def block_sums(scores: NDArray[np.floating], layer: Layer) -> NDArray[np.float64]:
    """Sum over each block of a score for each weight (of the weight's shape)."""
    sums: NDArray[np.float64] = as_blocks(scores.astype(np.float64), layer).sum(axis=1)
    return sums


def magnitude(model: PathNetwork) -> dict[str, NDArray[np.float64]]:
    """The criterion of the paper: |w|, summed over each block."""
    return {
        layer.name: block_sums(np.abs(weight.detach().float().cpu().numpy()), layer)
        for layer, weight in pruned_weights(model)
    }


def pruned_weights(model: PathNetwork) -> list[tuple[Layer, Tensor]]:
    """The layers that their description prunes, with their weights."""
    return [(layer, module.weight) for layer, module in model.layers() if layer.pruned_blocks]


def block_mask(scores: NDArray[np.float64], layer: Layer, pruned: int) -> NDArray[np.bool_]:
    """Mask of a layer's weight without the `pruned` blocks of lowest score; of equal ones, the first go."""
    kept = np.ones(scores.size, bool)
    kept[np.argsort(scores, kind="stable")[:pruned]] = False
    return from_blocks(np.repeat(kept[:, None], layer.pruning.block, axis=1), layer)


def make_masks(model: PathNetwork, scores: BlockScores, sparsity: Callable[[float], float] | None = None) -> Masks:
    """Masks of all layers that are pruned.

    Args:
        model: whose weights they are for.
        scores: of its blocks.
        sparsity: from a layer's final sparsity to the one wanted now; the final one by default.
    """
    masks = {}
    for layer, weight in pruned_weights(model):
        count = layer.pruned_blocks
        if sparsity is not None:
            count = min(round(sparsity(layer.pruning.sparsity) * layer.blocks), count)
        masks[layer.name] = torch.from_numpy(block_mask(scores[layer.name], layer, count)).to(weight.device)
    return masks


def apply_masks(model: PathNetwork, masks: Masks) -> None:
    """Set the weights outside the masks to zero, in place."""
    with torch.no_grad():
        for layer, module in model.layers():
            if layer.name in masks:
                module.weight.masked_fill_(~masks[layer.name].to(module.weight.device), 0)


def present_masks(model: PathNetwork) -> Masks:
    """Masks of the zeros that the weights of convolutions and linear layers have already."""
    return {layer.name: module.weight.detach() != 0 for layer, module in model.layers() if layer.kind in PARAMETRIC}


class KeepZeros(Hook):
    """Holds weights at zero: those outside `masks`, or those that are zero when training begins."""

    def __init__(self, masks: Masks | None = None) -> None:
        self.masks = masks

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        assert isinstance(model, PathNetwork)
        self.masks = present_masks(model) if self.masks is None else self.masks

    def after_step(self, model: nn.Module, step: int) -> None:
        assert isinstance(model, PathNetwork)
        assert self.masks is not None
        apply_masks(model, self.masks)

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.masks = state["masks"]


class GradualPruning(Hook):
    """Prunes while a network trains: at each step that is due the lowest blocks, ever more; what is pruned stays so."""

    def __init__(self, agp: Agp, criterion: Criterion = magnitude) -> None:
        self.agp, self.criterion = agp, criterion
        self.masks: Masks = {}

    def after_step(self, model: nn.Module, step: int) -> None:
        assert isinstance(model, PathNetwork)
        apply_masks(model, self.masks)
        if self.agp.due(step):
            scores = self._pruned_first(model, self.criterion(model))
            self.masks = make_masks(model, scores, lambda final: self.agp.sparsity(step, final))
            apply_masks(model, self.masks)

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.masks = state["masks"]

    def _pruned_first(self, model: PathNetwork, scores: BlockScores) -> BlockScores:
        result = dict(scores)
        for layer, _ in pruned_weights(model):
            if layer.name in self.masks:
                kept = as_blocks(self.masks[layer.name].cpu().numpy(), layer).any(axis=1)
                result[layer.name] = np.where(kept, scores[layer.name], -np.inf)
        return result


def fine_tune(
    model: PathNetwork,
    training: LabelledImages,
    validation: LabelledImages | None = None,
    *,
    config: TrainingConfig,
    **options: Any,
) -> tuple[PathNetwork, list[EpochResult]]:
    """Train a copy of a pruned network; its zeros stay zeros.

    Args:
        model: with its weights.
        training: images.
        validation: more, which only show how it is doing.
        config: of the training.
        options: see `nas.training.train`.
    """
    hooks = [KeepZeros(), *options.pop("hooks", ())]
    tuned, history = train(lambda: copy.deepcopy(model), training, validation, config=config, hooks=hooks, **options)
    assert isinstance(tuned, PathNetwork)
    _settle(tuned, training, config)
    return tuned, history


def iterative_prune(
    model: PathNetwork,
    training: LabelledImages,
    validation: LabelledImages | None = None,
    *,
    config: TrainingConfig,
    criterion: Criterion = magnitude,
    agp: Agp | None = None,
    **options: Any,
) -> tuple[PathNetwork, list[EpochResult]]:
    """Prune gradually to the sparsity of the model's description while it trains (`IterativePrune`, Algorithm 3).

    Args:
        model: a path with its weights; a copy is changed.
        training: images.
        validation: more, which only show how it is doing.
        config: of the training.
        criterion: scores the blocks.
        agp: when to prune; by default over the first half of the steps, the second half then only trains.
        options: see `nas.training.train`.

    Raises:
        DataError: the schedule ends after the training, or see `nas.training.train`.
    """
    steps = config.epochs * (len(training) // config.batch_size)
    agp = agp or Agp.over(steps // 2)
    if agp.end >= steps:
        raise DataError(f"AGP prunes until step {agp.end}, the training has {steps}: more epochs or images are needed")
    pruned, history = train(
        lambda: copy.deepcopy(model),
        training,
        validation,
        config=config,
        hooks=[GradualPruning(agp, criterion), *options.pop("hooks", ())],
        **options,
    )
    assert isinstance(pruned, PathNetwork)
    _settle(pruned, training, config)
    return pruned, history


def _settle(model: PathNetwork, training: LabelledImages, config: TrainingConfig) -> None:
    """Statistics of batch normalisation for the weights as they are in the end; in a short run they lag behind."""
    device = next(model.parameters()).device
    recalibrate(model, (x.to(device) for x in batches(training, STATISTICS_IMAGES, config.seed)))


def one_shot_prune(model: PathNetwork, criterion: Criterion = magnitude) -> Masks:
    """Prune `model` in place to the sparsity of its description, without training (`OneShotPrune` in Algorithm 2)."""
    masks = make_masks(model, criterion(model))
    apply_masks(model, masks)
    return masks


def sparsity(model: PathNetwork) -> float:
    """Share of zeros among the weights of convolutions and linear layers."""
    zeros = total = 0
    for layer, module in model.layers():
        if layer.kind in PARAMETRIC:
            zeros += int((module.weight == 0).sum())
            total += module.weight.numel()
    return zeros / total
