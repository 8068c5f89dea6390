"""Quantisation-aware training: the network computes with the values that the integer model will have.

Activations are rounded where one integer operator hands over to the next, to the scale and zero point that
`codegen.onnx.quantizer` takes from the same calibration images; weights as it rounds them, one scale for each output
channel. Both roundings are exact, tie for tie. Gradients pass straight through, and stop where a value was clamped.
Biases stay real: their int32 steps are too fine to matter.
"""

# mypy: allow-subclassing-any
# mypy: disable-error-code="no-untyped-call"
# ruff: noqa: D102 - hooks are documented in their base class
# (torch is optional: where it is not installed its classes have no types)

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from codegen.onnx.constants import affine
from codegen.onnx.inherit import SOFTMAX
from nas.data import LabelledImages
from nas.layers import Layer
from nas.network import PathNetwork, folded
from nas.pruning import KeepZeros
from nas.training import ANY_HARDWARE, EpochResult, Hook, TrainingConfig, batches, train
from refsim.errors import ModelError

_WEIGHT_LIMIT = 127


def round_half_away(x: Tensor) -> Tensor:
    """To the nearest integer, ties away from zero (`refsim.numerics.round_half_away`)."""
    magnitude = x.abs()
    whole = magnitude.floor()
    return x.sign() * (whole + (magnitude - whole >= 0.5))


def fake_quantise(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """What `refsim.TensorType.quantize` and `dequantize` make of real numbers, float32 in and out."""
    result: Tensor = _FakeQuantise.apply(x, scale, zero_point)
    return result


def fake_quantise_weight(weight: Tensor) -> Tensor:
    """The weight (outputs, ...) in the integers [-127, 127] of its channels' scales.

    An all-zero channel has the layer's scale, as in the quantiser; zeros stay zeros.
    """
    largest = weight.detach().double().flatten(1).abs().amax(dim=1)
    whole = largest.max()
    whole = torch.where(whole > 0, whole, torch.ones_like(whole))
    scale = (torch.where(largest > 0, largest, whole) / _WEIGHT_LIMIT).float()
    result: Tensor = _FakeQuantiseWeight.apply(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)))
    return result


class _FakeQuantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero_point: int) -> Tensor:
        steps = round_half_away(x.double() / scale) + zero_point
        inside = (steps >= -128) & (steps <= 127)
        ctx.save_for_backward(inside)
        return (steps.clamp(-128, 127) - zero_point).float() * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


class _FakeQuantiseWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        steps = round_half_away(weight.double() / scale.double()).clamp(-_WEIGHT_LIMIT, _WEIGHT_LIMIT)
        return steps.float() * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class FakeQuantisation(Hook):
    """Rounds the activations and weights of a folded network (`nas.network.Rounding`).

    As a hook of a training it measures the ranges anew before every epoch, on the same images.

    Attributes:
        calibration: network inputs, (N, channels, height, width).
        ranges: smallest and largest value of every activation on them.
    """

    def __init__(self, calibration: Tensor) -> None:
        self.calibration = calibration
        self.ranges: dict[str, tuple[float, float]] = {}
        self._measuring = False

    def attach(self, model: PathNetwork) -> None:
        """Measure the ranges of a network, and round in it from now on.

        Raises:
            ModelError: it still has batch normalisation, which an integer model has not.
        """
        if model.batch_norm:
            raise ModelError("quantisation-aware training needs a network without batch normalisation: fold it first")
        model.rounding = self
        self.ranges, self._measuring = {}, True
        with torch.no_grad():
            model(self.calibration.to(next(model.parameters()).device))
        self._measuring = False

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        assert isinstance(model, PathNetwork)
        self.attach(model)

    def activation(self, name: str, x: Tensor) -> Tensor:
        """Round an activation, or take note of its range."""
        if self._measuring:
            low, high = torch.aminmax(x)
            self.ranges[name] = float(low), float(high)
            return x
        return fake_quantise(x, *self.quantisation(name))

    def weight(self, layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
        """Round a weight."""
        return weight if self._measuring else fake_quantise_weight(weight)

    def quantisation(self, name: str) -> tuple[float, int]:
        """Scale and zero point of an activation."""
        if name.endswith(".softmax"):
            return SOFTMAX.scale, SOFTMAX.zero_point
        return affine(*self.ranges[name])


def train_quantised(
    model: PathNetwork,
    training: LabelledImages,
    validation: LabelledImages | None = None,
    *,
    config: TrainingConfig,
    calibration_images: int = 64,
    **options: Any,
) -> tuple[PathNetwork, list[EpochResult]]:
    """Fine-tune a network so that its weights suit the integer model; zeros stay zeros.

    Args:
        model: trained; a copy is folded and changed.
        training: images.
        validation: more, which only show how it is doing.
        config: of the training. Activations of 8 bits are no use in bfloat16, which has as many: it is switched off.
        calibration_images: training images on which ranges are measured, drawn with the config's seed.
        options: see `nas.training.train`.

    Returns:
        The network, without batch normalisation, its rounding switched off; and the history, whose accuracies are with
        rounding.
    """
    rounding = FakeQuantisation(torch.cat(list(batches(training, calibration_images, config.seed))))
    hooks = [KeepZeros(), rounding, *options.pop("hooks", ())]
    settings = replace(config, bfloat16=False)
    # Ranges change with every epoch, and are part of what would be compiled.
    options["hardware"] = replace(options.get("hardware", ANY_HARDWARE), compile=False)
    tuned, history = train(lambda: folded(model), training, validation, config=settings, hooks=hooks, **options)
    assert isinstance(tuned, PathNetwork)
    tuned.rounding = None
    return tuned, history
