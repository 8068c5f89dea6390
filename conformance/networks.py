"""A network of the TinyFormer paper's size with random weights: what a cost is measured on needs no training."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
    net = _Network(sparsity, block, seed)
    x, channels, side = "image", IMAGE[0], IMAGE[1]
    for stage in stages:
        first = channels == IMAGE[0]
        x = net.conv(x, channels, stage.dim, 3, stride=1 if first else 2, prune=not first)
        if first:
            x = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        channels, side = stage.dim, side // 2
        x = net.inverted_residual(x, channels, stage.expansion)
        x = net.conv(net.conv(x, channels, channels, 3), channels, channels, 1)
        x = net.node("Reshape", x, net.ints(0, channels, side * side))
        x = net.encoder(net.node("Transpose", x, perm=[0, 2, 1]), side * side, stage)
        x = net.node("Transpose", x, perm=[0, 2, 1])
        x = net.node("Reshape", x, net.ints(0, channels, side, side))
        x = net.conv(net.conv(x, channels, channels, 1), channels, channels, 3)
    tokens = net.node("Transpose", net.node("Reshape", x, net.ints(0, channels, side * side)), perm=[0, 2, 1])
    weights = net.node("Transpose", net.linear(tokens, channels, 1, prune=False), perm=[0, 2, 1])
    pooled = net.node("MatMul", net.node("Softmax", weights, axis=-1), tokens)
    y = net.node("Relu", net.linear(net.node("Reshape", pooled, net.ints(0, channels)), channels, LAST_LINEAR))
    return net.model(net.linear(y, LAST_LINEAR, CLASSES, prune=False))


class _Network:
    """An ONNX graph under construction; a tensor is its name."""

    def __init__(self, sparsity: float, block: int, seed: int) -> None:
        self._sparsity, self._block = sparsity, block
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, prune: bool = True
    ) -> str:
        """Convolution with "same" padding, its batch normalisation folded into weights and bias, and ReLU6."""
        weight = self._normal(outputs, kernel, kernel, inputs // groups, taps=kernel * kernel * inputs // groups)
        weight = self._pruned(weight) if prune else weight
        y = self.node(
            "Conv",
            x,
            self._constant(weight.transpose(0, 3, 1, 2)),
            self._constant(0.1 * self._normal(outputs, taps=1)),
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            strides=[stride, stride],
            group=groups,
        )
        return self.node("Clip", y, self._constant(np.float32(0)), self._constant(np.float32(6)))

    def linear(self, x: str, inputs: int, outputs: int, *, prune: bool = True) -> str:
        weight = self._normal(outputs, inputs, taps=inputs)
        weight = self._pruned(weight) if prune else weight
        y = self.node("MatMul", x, self._constant(weight.T))
        return self.node("Add", y, self._constant(0.1 * self._normal(outputs, taps=1)))

    def inverted_residual(self, x: str, channels: int, expansion: int) -> str:
        hidden = channels * expansion
        y = self.conv(x, channels, hidden, 1)
        y = self.conv(y, hidden, hidden, 3, groups=hidden, prune=False)
        return self.node("Add", x, self.conv(y, hidden, channels, 1))

    def encoder(self, x: str, tokens: int, stage: Stage) -> str:
        dim, heads = stage.dim, stage.heads
        normed = self._layer_norm(x, dim)
        query, key, value = (self._split(self.linear(normed, dim, dim), tokens, stage) for _ in range(3))
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 1, 3, 2]))
        scores = self.node("Mul", scores, self._constant(np.float32((dim // heads) ** -0.5)))
        context = self.node("MatMul", self.node("Softmax", scores, axis=-1), value)
        context = self.node("Reshape", self.node("Transpose", context, perm=[0, 2, 1, 3]), self.ints(0, tokens, dim))
        x = self.node("Add", x, self.linear(context, dim, dim))
        y = self.node("Relu", self.linear(self._layer_norm(x, dim), dim, stage.hidden))
        return self.node("Add", x, self.linear(y, stage.hidden, dim))

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            [*self._nodes, helper.make_node("Identity", [output], ["logits"], name="logits")],
            "tinyformer",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *IMAGE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _split(self, x: str, tokens: int, stage: Stage) -> str:
        """(batch, tokens, dim) -> (batch, heads, tokens, dim / heads)."""
        shape = self.ints(0, tokens, stage.heads, stage.dim // stage.heads)
        return self.node("Transpose", self.node("Reshape", x, shape), perm=[0, 2, 1, 3])

    def _layer_norm(self, x: str, dim: int) -> str:
        gamma = self._constant(1 + 0.1 * self._normal(dim, taps=1))
        beta = self._constant(0.1 * self._normal(dim, taps=1))
        return self.node("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-5)

    def _constant(self, value: NDArray[Any] | np.float32) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

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
