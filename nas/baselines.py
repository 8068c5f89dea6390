"""The networks that the paper's Table II compares with, in the layers of the search space.

They are trained, quantised and measured as searched networks are, and keep the originals' widths and depths. Where an
original uses what the space has not, the nearest that it has stands in, as each function says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nas.layers import (
    DENSE,
    Activation,
    Builder,
    Kind,
    Module,
    Network,
    inverted_residual,
    map_shape,
    pool,
    transformer,
)
from nas.space import Encoder, Pooling, Shape

_INPUT: Shape = (3, 32, 32)
_CLASSES = 10


def mobilenet_v2() -> Network:
    """MobileNetV2 of width 1 (Sandler et al., 2018), with stride 1 in its stem and second stage for images of 32x32."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    modules = [_conv("stem", _INPUT, 32, 3)]
    for stage, (expansion, channels, count, stride) in enumerate(stages):
        for i in range(count):
            name, shape = f"stages.{stage}.{i}", map_shape(modules[-1])
            modules.append(inverted_residual(name, shape, channels, expansion, stride if i == 0 else 1))
    modules.append(_conv("last", map_shape(modules[-1]), 1280, 1))
    return _classified(modules, Pooling.AVERAGE)


def cct_7_3x1() -> Network:
    """CCT-7/3x1 (Hassani et al., 2021): 256 tokens of 256 channels, 7 encoders of 4 heads.

    Max pooling has windows of 2x2 instead of 3x3, the MLPs have ReLU instead of GELU, the convolution has batch
    normalisation instead of a bias, and no embedding of positions is learnt.
    """
    build = Builder("tokenizer", _INPUT, DENSE)
    build.conv("conv", 256, 3, activation=Activation.RELU)
    build.add("pool", Kind.MAX_POOL, (256, 16, 16), kernel=(2, 2), stride=(2, 2))
    modules = [Module("tokenizer", "", tuple(build.layers))]
    modules += [_encoder(f"encoders.{i}", (256, 16, 16), heads=4) for i in range(7)]
    return _classified(modules, Pooling.SEQUENCE)


def mobilevit_xs() -> Network:
    """A network like MobileViT-XS (Mehta & Rastegari, 2022), with stride 1 in its stem and last stage for 32x32.

    Every token attends to all others, not to those at its place in each patch of 2x2; what the encoders give goes on
    alone, not joined with their input; ReLU6 and ReLU stand for SiLU.
    """
    modules = [_conv("stem", _INPUT, 16, 3), inverted_residual("stages.0", (16, 32, 32), 32, 4, 1)]
    for i, stride in enumerate((2, 1, 1)):
        modules.append(inverted_residual(f"stages.1.{i}", map_shape(modules[-1]), 48, 4, stride))
    for stage, (channels, dim, count, stride) in enumerate(((64, 96, 2, 2), (80, 120, 4, 2), (96, 144, 3, 1)), start=2):
        name = f"stages.{stage}"
        modules.append(inverted_residual(f"{name}.down", map_shape(modules[-1]), channels, 4, stride))
        modules.append(_conv(f"{name}.before3x3", map_shape(modules[-1]), channels, 3))
        modules.append(_conv(f"{name}.before1x1", map_shape(modules[-1]), dim, 1))
        modules += [_encoder(f"{name}.encoders.{i}", map_shape(modules[-1]), heads=4) for i in range(count)]
        modules.append(_conv(f"{name}.after1x1", map_shape(modules[-1]), channels, 1))
        modules.append(_conv(f"{name}.after3x3", map_shape(modules[-1]), channels, 3))
    modules.append(_conv("last", map_shape(modules[-1]), 384, 1))
    return _classified(modules, Pooling.AVERAGE)


def cnn() -> Network:
    """A plain CNN: seven 3x3 convolutions of 32 to 128 channels, of which three halve height and width."""
    modules: list[Module] = []
    for i, (channels, stride) in enumerate(((32, 1), (32, 2), (64, 1), (64, 2), (128, 1), (128, 2), (128, 1))):
        shape = map_shape(modules[-1]) if modules else _INPUT
        modules.append(_conv(f"convs.{i}", shape, channels, 3, stride))
    return _classified(modules, Pooling.AVERAGE)


BASELINES: Mapping[str, Callable[[], Network]] = MappingProxyType(
    {"mobilenetv2": mobilenet_v2, "cct-7-3x1": cct_7_3x1, "mobilevit-xs": mobilevit_xs, "cnn": cnn}
)
"""The networks by name."""


def _conv(name: str, shape: Shape, outputs: int, size: int, stride: int = 1) -> Module:
    build = Builder(name, shape, DENSE)
    build.conv("conv", outputs, size, stride=(stride, stride))
    return Module(name, "", tuple(build.layers))


def _encoder(name: str, shape: Shape, heads: int) -> Module:
    return transformer(name, Encoder(2.0, convolutions=False), shape, heads, DENSE)


def _classified(modules: list[Module], pooling: Pooling) -> Network:
    pooled = pool("pool", pooling, map_shape(modules[-1]))
    build = Builder("head", pooled.output.shape, DENSE)
    build.linear("classifier", _CLASSES)
    return Network(_INPUT, _CLASSES, (*modules, pooled, Module("head", "", tuple(build.layers))))
