"""Blockwise pruning: masks, one-shot pruning and AGP (paper, section III-C; Zhu & Gupta, 2018).

A block is 2 or 4 weights along the input channels of a convolution or linear layer, or the 3 of one kernel row of a
depthwise convolution. Which blocks of a layer go is decided by a score for each weight, summed over the block
(`nas.scores`): magnitude unless told otherwise. How many go is the description's to say (`Layer.pruned_blocks`), so
the resources known before pruning are those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.layers import Layer
from nas.network import PathNetwork
from nas.writer import as_blocks, from_blocks
from refsim.errors import DataError

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
    mask: NDArray[np.bool_] = from_blocks(np.repeat(kept[:, None], layer.pruning.block, axis=1), layer)
    return mask


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
        for layer, weight in pruned_weights(model):
            if layer.name in masks:
                weight.mul_(masks[layer.name])


def one_shot_prune(model: PathNetwork, criterion: Criterion = magnitude) -> Masks:
    """Prune `model` in place to the sparsity of its description, without training (`OneShotPrune` in Algorithm 2)."""
    masks = make_masks(model, criterion(model))
    apply_masks(model, masks)
    return masks


def sparsity(model: PathNetwork) -> float:
    """Share of zeros among the weights of convolutions and linear layers."""
    zeros = total = 0
    for layer, module in model.layers():
        if layer.blocks and len(layer.weight or ()) > 1:
            zeros += int((module.weight == 0).sum())
            total += module.weight.numel()
    return zeros / total
