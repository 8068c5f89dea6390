"""Alternatives to magnitude for what pruning keeps: activations (Wanda) and Fisher information.

* Wanda (Sun et al., 2024): |w| times the L2 norm of the input channel that meets it, over the calibration images. There
  weights compete within a row; here within the layer, whose number of blocks is fixed.
* Fisher (Kwon et al., 2022): with a mask variable m = 1 in front of a part of the network, the loss changes by about
  F / 2 when the part goes, F = mean over samples of (dL/dm)^2. Parts are blocks of weights, or whole heads of an
  attention and hidden channels ("filters") of an MLP or inverted residual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nas.augmentation import normalise
from nas.data import LabelledImages
from nas.layers import Kind, Layer, Module
from nas.network import PathNetwork, Rounding
from nas.pruning import Criterion, Masks, block_sums, magnitude, pruned_weights
from nas.writer import as_blocks

_BATCH = 64


def wanda(images: NDArray[np.uint8]) -> Criterion:
    """|w| * ||x||_2, summed over each block.

    Args:
        images: calibration images (N, height, width, channels).
    """

    def criterion(model: PathNetwork) -> dict[str, NDArray[np.float64]]:
        norms = input_norms(model, images)
        scores = {}
        for layer, weight in pruned_weights(model):
            magnitudes = weight.detach().double().abs().cpu().numpy()
            norm = norms[layer.name].reshape((-1, 1) if layer.depthwise else (1, -1))
            scores[layer.name] = block_sums(magnitudes * norm.reshape(*norm.shape, *[1] * (magnitudes.ndim - 2)), layer)
        return scores

    return criterion


def input_norms(model: PathNetwork, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """L2 norm, over images and positions, of each input channel of each convolution and linear layer, by its name."""
    record = _InputNorms()
    with _observed(model, record), torch.no_grad():
        for batch, _ in _batches(model, LabelledImages(images, np.zeros(len(images), np.int64))):
            model(batch)
    return {name: np.sqrt(squares.cpu().numpy()) for name, squares in record.squares.items()}


def fisher(data: LabelledImages) -> Criterion:
    """Fisher information of each block: mean over samples of (sum over the block of w * dL/dw)^2.

    Args:
        data: calibration images with labels; one backward pass for each.
    """

    def criterion(model: PathNetwork) -> dict[str, NDArray[np.float64]]:
        pruned = pruned_weights(model)
        sums = {layer.name: np.zeros(layer.blocks) for layer, _ in pruned}
        with _observed(model, None):
            for batch, labels in _batches(model, data, size=1):
                loss = functional.cross_entropy(model(batch), labels)
                gradients = torch.autograd.grad(loss, [weight for _, weight in pruned])
                for (layer, weight), gradient in zip(pruned, gradients, strict=True):
                    products = (weight.detach() * gradient).double().cpu().numpy()
                    sums[layer.name] += block_sums(products, layer) ** 2
        return {name: total / len(data) for name, total in sums.items()}

    return criterion


@dataclass(frozen=True)
class Units:
    """Parts of a module that can go as a whole: heads of an attention, or hidden channels.

    Attributes:
        name: of the activation that they make up, in equal shares of its channels.
        count: of units.
        producers: layers whose output channels are the units'.
        consumer: the layer whose input channels they are.
        cost: multiplications and additions of one unit, for one sample.
    """

    name: str
    count: int
    producers: tuple[Layer, ...]
    consumer: Layer
    cost: int


def units_of(model: PathNetwork) -> list[Units]:
    """Heads and hidden channels of a network, module by module."""
    return [units for candidate in model.candidates for units in _units(candidate.description)]


def unit_importance(model: PathNetwork, data: LabelledImages) -> dict[str, NDArray[np.float64]]:
    """Fisher information (units,) of the mask in front of each unit, by `Units.name`."""
    wanted = {units.name: units.count for units in units_of(model)}
    sums = {name: np.zeros(count) for name, count in wanted.items()}
    record = _Activations(frozenset(wanted))
    with _observed(model, record):
        for batch, labels in _batches(model, data):
            # The sum of the losses: a sample's own gradient in its own activation, for samples do not meet.
            loss = functional.cross_entropy(model(batch), labels, reduction="sum")
            gradients = torch.autograd.grad(loss, list(record.seen.values()))
            for (name, x), gradient in zip(record.seen.items(), gradients, strict=True):
                products = (x.detach() * gradient).double()
                if products.ndim == 4:  # a feature map: channels last
                    products = products.permute(0, 2, 3, 1)
                per_unit = products.flatten(1, -2).sum(dim=1).reshape(len(batch), wanted[name], -1).sum(dim=2)
                sums[name] += (per_unit**2).sum(dim=0).cpu().numpy()
    return {name: total / len(data) for name, total in sums.items()}


def units_first(data: LabelledImages, share: float = 0.25) -> Criterion:
    """Magnitude, but the blocks of whole heads and hidden channels that `unit_masks` lets go come first.

    Args:
        data: calibration images with labels.
        share: of the units' cost that goes as whole units.
    """

    def criterion(model: PathNetwork) -> dict[str, NDArray[np.float64]]:
        scores = magnitude(model)
        masks = unit_masks(model, unit_importance(model, data), share)
        for layer, _ in pruned_weights(model):
            if layer.name in masks:
                kept = as_blocks(masks[layer.name].cpu().numpy(), layer).any(axis=1)
                scores[layer.name] = np.where(kept, scores[layer.name], -1.0)
        return scores

    return criterion


def unit_masks(model: PathNetwork, importance: Mapping[str, NDArray[np.float64]], share: float) -> Masks:
    """Masks without the units that matter least for what they cost.

    Units go in the order of importance over cost, among all modules, until `share` of the cost of all is gone; each
    module keeps one. What goes are the weights that make a unit and those that read it.

    Args:
        model: whose weights the masks are for.
        importance: of its units.
        share: of the units' cost, in [0, 1).
    """
    groups = units_of(model)
    budget = share * sum(units.cost * units.count for units in groups)
    ranked = sorted(
        ((importance[units.name][i] / units.cost, k, i) for k, units in enumerate(groups) for i in range(units.count))
    )
    kept = [np.ones(units.count, bool) for units in groups]
    for _, k, i in ranked:
        if groups[k].cost > budget or kept[k].sum() == 1:
            continue
        kept[k][i] = False
        budget -= groups[k].cost
    masks: Masks = {}
    parameters = {layer.name: module.weight for layer, module in model.layers()}
    for units, keep in zip(groups, kept, strict=True):
        for axis, layers in ((0, units.producers), (1, (units.consumer,))):
            for layer in layers:
                weight = parameters[layer.name]
                channels = torch.from_numpy(np.repeat(keep, weight.shape[axis] // units.count)).to(weight.device)
                shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
                masks[layer.name] = channels.reshape(shape).expand(weight.shape).clone()
    return masks


def _units(module: Module) -> list[Units]:
    layers = {layer.name: layer for layer in module.layers}
    readers = {name: layer for layer in module.layers for name in layer.inputs}
    found = []
    for layer in module.layers:
        if layer.kind is Kind.ATTENTION:
            found.append((layer.name, layer.heads, tuple(layers[name] for name in layer.inputs)))
        elif layer.depthwise and layer.inputs[0] in layers:  # with expansion 1 its channels are the module's input
            found.append((layer.name, layer.shape[0], (layers[layer.inputs[0]], layer)))
        elif layer.kind is Kind.LINEAR and readers.get(layer.name, layer).kind is Kind.LINEAR and len(layer.shape) > 1:
            found.append((layer.name, layer.shape[-1], (layer,)))
    return [
        Units(name, count, producers, readers[name], sum(map(_macs, (*producers, readers[name]))) // count)
        for name, count, producers in found
        if readers[name].kind in (Kind.CONV, Kind.LINEAR)
    ]


def _macs(layer: Layer) -> int:
    """Multiplications and additions of a layer, for one sample."""
    assert layer.weight is not None
    positions = int(np.prod(layer.shape[1:] if layer.kind is Kind.CONV else layer.shape[:-1]))
    return positions * int(np.prod(layer.weight))


class _InputNorms:
    """Sums the squares of each input channel."""

    def __init__(self) -> None:
        self.squares: dict[str, Tensor] = {}

    def activation(self, name: str, x: Tensor) -> Tensor:
        return x

    def weight(self, layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
        channels = 1 if layer.kind is Kind.CONV else x.ndim - 1
        squares = (x.double() ** 2).sum(dim=[axis for axis in range(x.ndim) if axis != channels])
        self.squares[layer.name] = self.squares.get(layer.name, torch.zeros_like(squares)) + squares
        return weight


class _Activations:
    """Keeps the activations of some names."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.seen: dict[str, Tensor] = {}

    def activation(self, name: str, x: Tensor) -> Tensor:
        if name in self.names:
            self.seen[name] = x
        return x

    def weight(self, layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
        return weight


@contextmanager
def _observed(model: PathNetwork, record: Rounding | None) -> Iterator[None]:
    """Let `record` see what passes in evaluation; afterwards the network goes on as before, training if it was."""
    before, model.rounding = model.rounding, record
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.rounding = before
        model.train(was_training)


def _batches(model: PathNetwork, data: LabelledImages, size: int = _BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    device = next(model.parameters()).device
    for start in range(0, len(data), size):
        part = data.take(slice(start, start + size))
        yield normalise(torch.from_numpy(part.images)).to(device), torch.from_numpy(part.labels).to(device)
