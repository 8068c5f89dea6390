"""Networks assembled from `nas.blocks`."""

# mypy: allow-subclassing-any
# (torch is optional: where it is not installed its classes have no types)
# ruff: noqa: D102 - `forward` is what the class's docstring describes

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from nas.blocks import LAYER_NORM_EPS, Activation, ConvBN, EncoderBlock, InvertedResidual, SeqPool, ToTokens


@dataclass(frozen=True)
class TinyFormerConfig:
    """Dimensions of a `TinyFormer`. The defaults are the CIFAR-10 example: 55 K parameters, 5.6 M multiplications."""

    image_size: int = 32
    classes: int = 10
    stem_channels: int = 24
    stem_expansion: int = 3
    dim: int = 48
    expansion: int = 2
    heads: int = 2
    hidden: int = 48
    encoders: tuple[Activation, ...] = ("relu", "gelu")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return (3, self.image_size, self.image_size)


class TinyFormer(nn.Module):
    """A small hybrid CNN-transformer in the style of the paper's single-path models (Fig. 3).

    Two downsample modules (convolution and max pooling, then a strided convolution), each followed by a MobileNetV2
    module; a transformer module on the resulting tokens; sequence pooling and a linear classifier.

    Input: float32 (batch, 3, image_size, image_size), (pixel - 128) / 128. Output: float32 logits (batch, classes).
    """

    def __init__(self, config: TinyFormerConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or TinyFormerConfig()
        self.stem = nn.Sequential(
            OrderedDict(
                conv=ConvBN(3, c.stem_channels),
                pool=nn.MaxPool2d(2),
                mobilenet=InvertedResidual(c.stem_channels, c.stem_channels, expansion=c.stem_expansion),
            )
        )
        self.down = nn.Sequential(
            OrderedDict(
                conv=ConvBN(c.stem_channels, c.dim, stride=2),
                mobilenet=InvertedResidual(c.dim, c.dim, expansion=c.expansion),
            )
        )
        self.tokens = ToTokens()
        self.encoders = nn.Sequential(*(EncoderBlock(c.dim, c.heads, c.hidden, act) for act in c.encoders))
        self.norm = nn.LayerNorm(c.dim, eps=LAYER_NORM_EPS)
        self.pool = SeqPool(c.dim)
        self.head = nn.Linear(c.dim, c.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoders(self.tokens(self.down(self.stem(x))))
        return cast(Tensor, self.head(self.pool(self.norm(x))))
