"""A network of the TinyFormer paper's size with random weights: what a cost is measured on needs no training."""

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from codegen.onnx.writer import Activation, NetworkWriter

IMAGE = (3, 32, 32)
"""Channels, height and width of its input."""


@dataclass(frozen=True)
class Stage:
    """A DoT: downsample, MobileNetV2 and transformer module (paper, Fig. 3).

    Attributes:
        dim: channels, and width of a token.
        expansion: of the inverted residual.
        heads: of the attention.
        hidden: width inside the encoder's MLP.
    """

    dim: int
    expansion: int
    heads: int
    hidden: int


STAGES = (Stage(44, 3, 4, 88), Stage(192, 2, 4, 384))
"""256 tokens of 44 channels, then 64 of 192: the rows of the paper's Table IV."""

LAST_LINEAR = 768
"""Width of the last hidden layer (paper, Table I)."""

CLASSES = 10


def tinyformer(
    sparsity: float = 0.0, block: int = 4, seed: int = 0, stages: tuple[Stage, ...] = STAGES
) -> onnx.ModelProto:
    """A float network of two DoTs, sequence pooling and two linear layers, about 1.5 million weights.

    Of the weights of convolutions and linear layers the part `sparsity` is zero, in blocks along the input channels
    whose sum of magnitudes is least; depthwise convolutions and the first and the last layer stay dense, as is usual.

    Args:
        sparsity: part of the blocks that is zero, 0 <= sparsity < 1.
        block: weights of a block.
        seed: of the weights.
        stages: the DoTs; dimensions are multiples of `block`.

    Returns:
        ONNX with input "image", float32 (batch, 3, 32, 32), and output "logits", (batch, 10).
    """
    net = _RandomNetwork(sparsity, block, seed)
    writer = net.writer
    x, channels, side = "image", IMAGE[0], IMAGE[1]
    for index, stage in enumerate(stages):
        name = f"stage{index}"
        first = index == 0
        x = net.conv(x, channels, stage.dim, 3, f"{name}/downsample", stride=1 if first else 2, prune=not first)
        if first:
            x = writer.max_pool(x, (2, 2), f"{name}/downsample")
        channels, side = stage.dim, side // 2
        x = net.inverted_residual(x, channels, stage.expansion, f"{name}/mobilenet")
        x = net.conv(net.conv(x, channels, channels, 3, f"{name}/in3"), channels, channels, 1, f"{name}/in1")
        x = writer.to_tokens(x, side * side, channels, f"{name}/tokens")
        x = net.encoder(x, side * side, stage, f"{name}/encoder")
        x = writer.to_map(x, channels, side, side, f"{name}/map")
        x = net.conv(net.conv(x, channels, channels, 1, f"{name}/out1"), channels, channels, 3, f"{name}/out3")
    tokens = writer.to_tokens(x, side * side, channels, "pool/tokens")
    scores = net.linear(tokens, channels, 1, "pool/score", prune=False)
    pooled = writer.sequence_pool(scores, tokens, channels, "pool")
    y = net.linear(pooled, channels, LAST_LINEAR, "hidden", activation="relu")
    logits = net.linear(y, LAST_LINEAR, CLASSES, "head", prune=False)
    return writer.model("tinyformer", ("image", IMAGE), ("logits", (CLASSES,)), logits)


class _RandomNetwork:
    """Layers with random weights, the least blocks of which are zero."""

    def __init__(self, sparsity: float, block: int, seed: int) -> None:
        self.writer = NetworkWriter()
        self._sparsity, self._block = sparsity, block
        self._random = np.random.default_rng(seed)

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        groups: int = 1,
        prune: bool = True,
    ) -> str:
        """Convolution with "same" padding, its batch normalisation folded into weights and bias, and ReLU6."""
        weight = self._normal(outputs, kernel, kernel, inputs // groups, taps=kernel * kernel * inputs // groups)
        weight = self._pruned(weight) if prune else weight
        bias = self._small(outputs)
        return self.writer.conv(x, weight.transpose(0, 3, 1, 2), bias, name, stride=(stride, stride), groups=groups)

    def linear(
        self, x: str, inputs: int, outputs: int, name: str, *, activation: Activation = "none", prune: bool = True
    ) -> str:
        weight = self._normal(outputs, inputs, taps=inputs)
        weight = self._pruned(weight) if prune else weight
        return self.writer.linear(x, weight, self._small(outputs), name, activation=activation)

    def inverted_residual(self, x: str, channels: int, expansion: int, name: str) -> str:
        hidden = channels * expansion
        y = self.conv(x, channels, hidden, 1, f"{name}/expand")
        y = self.conv(y, hidden, hidden, 3, f"{name}/depthwise", groups=hidden, prune=False)
        return self.writer.add(x, self.conv(y, hidden, channels, 1, f"{name}/project"), name)

    def encoder(self, x: str, tokens: int, stage: Stage, name: str) -> str:
        dim = stage.dim
        normed = self._layer_norm(x, dim, f"{name}/norm1")
        query, key, value = (self.linear(normed, dim, dim, f"{name}/{part}") for part in ("query", "key", "value"))
        context = self.writer.attention(query, key, value, tokens, dim, stage.heads, f"{name}/attention")
        x = self.writer.add(x, self.linear(context, dim, dim, f"{name}/out"), f"{name}/residual1")
        y = self._layer_norm(x, dim, f"{name}/norm2")
        y = self.linear(y, dim, stage.hidden, f"{name}/fc1", activation="relu")
        return self.writer.add(x, self.linear(y, stage.hidden, dim, f"{name}/fc2"), f"{name}/residual2")

    def _layer_norm(self, x: str, dim: int, name: str) -> str:
        return self.writer.layer_norm(x, 1 + self._small(dim), self._small(dim), name)

    def _small(self, channels: int) -> NDArray[np.float32]:
        return np.float32(0.1) * self._normal(channels, taps=1)

    def _normal(self, *shape: int, taps: int) -> NDArray[np.float32]:
        """Weights that keep the variance of what they sum behind a ReLU (He et al., 2015)."""
        return (self._random.standard_normal(shape) * math.sqrt(2 / taps)).astype(np.float32)

    def _pruned(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weight, (outputs, ..., inputs), with its least blocks zero; what is left keeps the variance."""
        blocks = np.abs(weight).reshape(-1, self._block).sum(axis=1)
        kept = np.ones(blocks.size, np.float32)
        kept[np.argsort(blocks, kind="stable")[: round(self._sparsity * blocks.size)]] = 0
        share = max(float(kept.mean()), 1 / blocks.size)
        return weight * kept.repeat(self._block).reshape(weight.shape) / np.float32(math.sqrt(share))
