"""Layers of the TinyFormer search space (paper, Fig. 3 and section III-B).

Every layer is written so that its ONNX export is a short chain of standard operators that quantise well: convolutions
carry BatchNorm and ReLU6 (a bounded range), query, key and value have projections of their own (hence ranges of their
own), and every softmax runs over the last axis.

Every module's `forward` is the function that its docstring describes. Shapes: feature maps are float32 (batch,
channels, height, width), token sequences float32 (batch, tokens, dim).
"""

# mypy: allow-subclassing-any
# (torch is optional: where it is not installed its classes have no types)
# ruff: noqa: D102 - see above

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, cast

import torch
from torch import Tensor, nn

from refsim.errors import ShapeError

Activation = Literal["relu", "gelu"]

LAYER_NORM_EPS = 1e-5


class ConvBN(nn.Sequential):
    """Convolution without bias, BatchNorm and, unless `activate` is False, ReLU6.

    "Same" padding for odd kernels: the output is (batch, `outputs`, ceil(height / stride), ceil(width / stride)).
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
        )
        layers["bn"] = nn.BatchNorm2d(outputs)
        if activate:
            layers["act"] = nn.ReLU6()
        super().__init__(layers)


class InvertedResidual(nn.Module):
    """MobileNetV2 block: expand 1x1, depthwise 3x3, project 1x1 without activation (Sandler et al., 2018).

    The input is added to the result when shapes allow it (stride 1 and `inputs` == `outputs`).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvBN(inputs, hidden, kernel=1)
        self.depthwise = ConvBN(hidden, hidden, stride=stride, groups=hidden)
        self.project = ConvBN(hidden, outputs, kernel=1, activate=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.project(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class SelfAttention(nn.Module):
    """Multi-head self-attention, softmax(Q K^T / sqrt(dim / heads)) V, with separate projections.

    Raises ShapeError when `dim` is not a multiple of `heads`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ShapeError(f"attention: dimension {dim} is not a multiple of the number of heads, {heads}")
        self.heads = heads
        self.scale = float((dim // heads) ** -0.5)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) -> (batch, heads, tokens, dim / heads)."""
        _, tokens, dim = x.shape
        return x.reshape(-1, tokens, self.heads, dim // self.heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        _, tokens, dim = x.shape
        query, key, value = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        weights = torch.softmax(query @ key.transpose(-2, -1) * self.scale, dim=-1)
        return cast(Tensor, self.out((weights @ value).transpose(1, 2).reshape(-1, tokens, dim)))


class EncoderBlock(nn.Module):
    """Pre-norm transformer encoder: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int = 2, hidden: int = 48, activation: Activation = "relu") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + cast(Tensor, self.fc2(self.act(self.fc1(self.norm2(x)))))


class ToTokens(nn.Module):
    """Feature map (batch, channels, height, width) -> tokens (batch, height * width, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class SeqPool(nn.Module):
    """Sequence pooling of the compact convolutional transformer (Hassani et al., 2021).

    A linear layer scores every token, softmax turns the scores into weights, and the weighted sum of the tokens,
    (batch, dim), is the result.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.score(x).transpose(1, 2), dim=-1)
        return (weights @ x).flatten(1)
