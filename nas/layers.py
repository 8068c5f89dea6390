"""What a network of the search space consists of: named layers with shapes, in execution order, without torch.

The one place that says so. `nas.network` makes them torch modules and `nas.writer` an ONNX file; a layer called
``stages.0.downsample.conv-stride2.conv`` has the parameters ``stages.0.downsample.conv-stride2.conv.weight`` and
``.bias`` in each. Names hold the candidate, so the parameters of a single path are a subset of its supernet's.

Shapes are of one sample: feature maps (channels, height, width), tokens (tokens, dim), vectors (dim,).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from nas.space import (
    GRAIN,
    Architecture,
    Downsample,
    Encoder,
    Pooling,
    Pruning,
    Shape,
    Space,
    SuperConfig,
)
from refsim.errors import ShapeError

MODULE_INPUT = "input"
"""What the layers of a module call the tensor that enters it."""

DENSE = Pruning(0.0)

REDUCTION_EXPANSION = 4
"""Expansion of the inverted residual that halves height and width."""

DEPTHWISE_BLOCK = 3
"""Weights of a block of a depthwise convolution, along the kernel's width."""


class Kind(StrEnum):
    """What a layer computes from its inputs."""

    CONV = "conv"
    """Convolution with "same" padding for odd kernels; in training without bias, with batch normalisation behind it."""
    MAX_POOL = "max-pool"
    """Largest of each kernel's window, windows side by side; the last may reach beyond the edge."""
    TO_TOKENS = "to-tokens"
    """Feature map -> tokens, one for each position."""
    TO_MAP = "to-map"
    """Tokens -> feature map."""
    LAYER_NORM = "layer-norm"
    LINEAR = "linear"
    ATTENTION = "attention"
    """softmax(Q K^T / sqrt(dim / heads)) V of the projected queries, keys and values."""
    ADD = "add"
    SEQUENCE_POOL = "sequence-pool"
    """Scores (tokens, 1) and tokens -> softmax(scores)^T tokens (Hassani et al., 2021)."""
    MEAN = "mean"
    """Feature map -> mean of each channel."""


class Activation(StrEnum):
    """What follows a convolution or linear layer."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: unique in a supernet; the start of its parameters' names.
        kind: what it computes.
        inputs: names of the layers whose outputs it reads, or `MODULE_INPUT`.
        shape: of its output.
        weight: shape of its weight: convolution (outputs, inputs / groups, kernel height, kernel width), linear layer
            (outputs, inputs), layer norm (dim,); None without parameters.
        kernel, stride: of a convolution or pool: height, width.
        groups: of a convolution; as many as channels for a depthwise one.
        heads: of an attention.
        activation: after a convolution (and its batch normalisation) or linear layer.
        pruning: of its weight, its block the one that fits this layer.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    weight: tuple[int, ...] | None = None
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    heads: int = 1
    activation: Activation = Activation.NONE
    pruning: Pruning = DENSE

    @property
    def depthwise(self) -> bool:
        """Whether it is a depthwise convolution."""
        return self.weight is not None and self.groups > 1 and self.groups == self.weight[0]

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its parameters by name, batch normalisation folded: one weight and one bias, or none."""
        if self.weight is None:
            return {}
        return {f"{self.name}.weight": self.weight, f"{self.name}.bias": self.weight[:1]}

    @property
    def parameter_count(self) -> int:
        """Numbers in its parameters."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    @property
    def blocks(self) -> int:
        """Blocks of weights that pruning chooses from."""
        return math.prod(self.weight or (0,)) // self.pruning.block

    @property
    def pruned_blocks(self) -> int:
        """How many of them it takes: the share rounded, half to even; never all."""
        return min(round(self.pruning.sparsity * self.blocks), max(self.blocks - 1, 0))

    @property
    def kept_parameter_count(self) -> int:
        """Numbers in its parameters that pruning leaves."""
        return self.parameter_count - self.pruned_blocks * self.pruning.block


@dataclass(frozen=True)
class Module:
    """A choice module with one candidate taken: layers from `MODULE_INPUT` to the last of them.

    Attributes:
        name: of the choice, the same for all candidates: ``stages.0.downsample``.
        candidate: which one; empty where there is no choice.
        layers: in execution order.
    """

    name: str
    candidate: str
    layers: tuple[Layer, ...]

    @property
    def output(self) -> Layer:
        """The layer whose output leaves the module."""
        return self.layers[-1]


@dataclass(frozen=True)
class Network:
    """A single path: modules in execution order, each fed with the output of the one before.

    Attributes:
        input_shape: channels, height, width of one sample.
        classes: length of the output.
        modules: of the path.
    """

    input_shape: Shape
    classes: int
    modules: tuple[Module, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of all modules, in execution order."""
        return tuple(layer for module in self.modules for layer in module.layers)

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters by name, batch normalisation folded."""
        return {name: shape for layer in self.layers for name, shape in layer.parameters.items()}

    @property
    def parameter_count(self) -> int:
        """Numbers in all parameters, batch normalisation folded."""
        return sum(layer.parameter_count for layer in self.layers)

    @property
    def kept_parameter_count(self) -> int:
        """Those that pruning leaves, the paper's effective weights."""
        return sum(layer.kept_parameter_count for layer in self.layers)


def describe(architecture: Architecture) -> Network:
    """The layers of an architecture, each with the pruning of its module.

    The first convolution, whose few inputs are no whole block, the score of sequence pooling and the classifier stay
    dense.

    Raises:
        ShapeError: a dimension is no multiple of 4 or of the number of heads, or stages and paths do not match.
    """
    supernet, path = architecture.supernet, architecture.path
    _check(architecture.input_shape, supernet)
    counts = [(stage.mobilenets, stage.transformers) for stage in supernet.stages]
    taken = [(len(stage.expansions), len(stage.encoders)) for stage in path.stages]
    if counts != taken:
        raise ShapeError(f"the supernet has (mobilenets, transformers) {counts}, the path takes {taken}")
    modules = []
    shape = architecture.input_shape
    for index, (config, stage) in enumerate(zip(supernet.stages, path.stages, strict=True)):
        name = f"stages.{index}"
        modules.append(downsample(f"{name}.downsample", stage.downsample, shape, config.dim, stage.downsample_pruning))
        shape = map_shape(modules[-1])
        for j, (expansion, pruning) in enumerate(zip(stage.expansions, stage.mobilenet_pruning, strict=True)):
            modules.append(mobilenet(f"{name}.mobilenets.{j}", expansion, shape, pruning))
        for j, (encoder, pruning) in enumerate(zip(stage.encoders, stage.transformer_pruning, strict=True)):
            modules.append(transformer(f"{name}.transformers.{j}", encoder, shape, supernet.heads, pruning))
    modules.append(pool("pool", path.pooling, shape))
    modules.append(head("head", shape[0], supernet.last_linear, architecture.classes, path.head_pruning))
    return Network(architecture.input_shape, architecture.classes, tuple(modules))


def supernet_modules(space: Space, supernet: SuperConfig) -> tuple[tuple[Module, ...], ...]:
    """The candidates of every choice module of a supernet, dense, in execution order; the last is the head, alone.

    Raises:
        ShapeError: see `describe`.
    """
    _check(space.input_shape, supernet)
    choices: list[tuple[Module, ...]] = []
    shape = space.input_shape
    for index, (config, stage) in enumerate(zip(supernet.stages, space.stages, strict=True)):
        name = f"stages.{index}"
        choices.append(
            tuple(downsample(f"{name}.downsample", kind, shape, config.dim, DENSE) for kind in stage.downsamples)
        )
        shape = map_shape(choices[-1][0])
        for j in range(config.mobilenets):
            choices.append(tuple(mobilenet(f"{name}.mobilenets.{j}", e, shape, DENSE) for e in stage.expansions))
        for j in range(config.transformers):
            choices.append(
                tuple(
                    transformer(f"{name}.transformers.{j}", encoder, shape, supernet.heads, DENSE)
                    for encoder in stage.encoders
                )
            )
    choices.append(tuple(pool("pool", kind, shape) for kind in space.poolings))
    choices.append((head("head", shape[0], supernet.last_linear, space.classes, DENSE),))
    return tuple(choices)


def downsample(name: str, kind: Downsample, shape: Shape, dim: int, pruning: Pruning) -> Module:
    """Feature map of `shape` -> (dim, ceil(height / 2), ceil(width / 2)); a height of 1 stays."""
    build = Builder(f"{name}.{kind.value}", shape, pruning)
    halved = (min(2, shape[1]), 2)
    if kind is Downsample.STRIDED_CONV:
        build.conv("conv", dim, 3, stride=halved)
    elif kind is Downsample.CONV_POOL:
        build.conv("conv", dim, 3)
        build.add(
            "pool", Kind.MAX_POOL, (dim, -(-shape[1] // halved[0]), -(-shape[2] // 2)), kernel=halved, stride=halved
        )
    else:
        build.inverted_residual(dim, REDUCTION_EXPANSION, stride=halved)
    return Module(name, kind.value, tuple(build.layers))


def mobilenet(name: str, expansion: int, shape: Shape, pruning: Pruning) -> Module:
    """Inverted residual of MobileNetV2 (Sandler et al., 2018) that keeps the shape."""
    module = inverted_residual(f"{name}.e{expansion}", shape, shape[0], expansion, pruning=pruning)
    return replace(module, name=name, candidate=f"e{expansion}")


def inverted_residual(
    name: str, shape: Shape, outputs: int, expansion: int, stride: int = 1, *, pruning: Pruning = DENSE
) -> Module:
    """Inverted residual; its input is added where the shapes allow it, and expansion 1 expands nothing."""
    build = Builder(name, shape, pruning)
    project = build.inverted_residual(outputs, expansion, (stride, stride))
    if stride == 1 and outputs == shape[0]:
        build.add("add", Kind.ADD, shape, inputs=(MODULE_INPUT, project))
    return Module(name, "", tuple(build.layers))


def transformer(name: str, encoder: Encoder, shape: Shape, heads: int, pruning: Pruning) -> Module:
    """Conv 3x3 -> 1x1, pre-norm encoder on the positions as tokens, Conv 1x1 -> 3x3; it keeps the shape."""
    candidate = encoder.name
    build = Builder(f"{name}.{candidate}", shape, pruning)
    channels, height, width = shape
    tokens = (height * width, channels)
    hidden = max(GRAIN, round(channels * encoder.mlp_ratio / GRAIN) * GRAIN)
    if encoder.convolutions:
        build.conv("before3x3", channels, 3)
        build.conv("before1x1", channels, 1)
    x = build.add("tokens", Kind.TO_TOKENS, tokens)
    normed = build.norm("norm1")
    projections = tuple(build.linear(which, channels, inputs=(normed,)) for which in ("query", "key", "value"))
    build.add("attention", Kind.ATTENTION, tokens, inputs=projections, heads=heads)
    x = build.add("add1", Kind.ADD, tokens, inputs=(x, build.linear("out", channels)))
    build.norm("norm2")
    build.linear("fc1", hidden, activation=Activation.RELU)
    build.add("add2", Kind.ADD, tokens, inputs=(x, build.linear("fc2", channels)))
    build.add("map", Kind.TO_MAP, shape)
    if encoder.convolutions:
        build.conv("after1x1", channels, 1)
        build.conv("after3x3", channels, 3)
    return Module(name, candidate, tuple(build.layers))


def pool(name: str, kind: Pooling, shape: Shape) -> Module:
    """Feature map -> one vector of its channels: the mean, or tokens weighted by a learnt score."""
    build = Builder(f"{name}.{kind.value}", shape, DENSE)
    channels, height, width = shape
    if kind is Pooling.AVERAGE:
        build.add("mean", Kind.MEAN, (channels,))
    else:
        build.add("tokens", Kind.TO_TOKENS, (height * width, channels))
        normed = build.norm("norm")
        build.add("sum", Kind.SEQUENCE_POOL, (channels,), inputs=(build.linear("score", 1), normed))
    return Module(name, kind.value, tuple(build.layers))


def head(name: str, inputs: int, last_linear: int, classes: int, pruning: Pruning) -> Module:
    """Vector -> last hidden layer with ReLU -> logits."""
    build = Builder(name, (inputs,), pruning)
    build.linear("last", last_linear, activation=Activation.RELU)
    build.pruning = DENSE
    build.linear("classifier", classes)
    return Module(name, "", tuple(build.layers))


@dataclass
class Builder:
    """The layers of a module under construction; a layer reads the one before unless told otherwise."""

    prefix: str
    shape: tuple[int, ...]
    pruning: Pruning
    layers: list[Layer] = field(default_factory=list)

    def add(
        self,
        name: str,
        kind: Kind,
        shape: tuple[int, ...],
        *,
        inputs: Sequence[str] | None = None,
        weight: tuple[int, ...] | None = None,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        heads: int = 1,
        activation: Activation = Activation.NONE,
    ) -> str:
        """Append a layer; its name."""
        if inputs is None:
            inputs = (self.layers[-1].name if self.layers else MODULE_INPUT,)
        layer = Layer(
            name=f"{self.prefix}.{name}",
            kind=kind,
            inputs=tuple(inputs),
            shape=shape,
            weight=weight,
            kernel=kernel,
            stride=stride,
            groups=groups,
            heads=heads,
            activation=activation,
        )
        self.layers.append(replace(layer, pruning=self._fitting(layer)))
        self.shape = shape
        return layer.name

    def _fitting(self, layer: Layer) -> Pruning:
        """The module's pruning, for this layer: dense where the inputs are no whole blocks."""
        if layer.kind not in (Kind.CONV, Kind.LINEAR) or layer.weight is None or not self.pruning.sparsity:
            return DENSE
        if layer.depthwise:
            return replace(self.pruning, block=DEPTHWISE_BLOCK) if layer.kernel[1] == DEPTHWISE_BLOCK else DENSE
        return self.pruning if layer.weight[1] % self.pruning.block == 0 and layer.weight[0] > 1 else DENSE

    def conv(
        self,
        name: str,
        outputs: int,
        size: int,
        *,
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: Activation = Activation.RELU6,
    ) -> str:
        """A convolution; on a map of height 1 its kernel has height 1."""
        channels, height, width = self.shape
        kernel = (1 if height == 1 else size, size)
        shape = (outputs, -(-height // stride[0]), -(-width // stride[1]))
        weight = (outputs, channels // groups, *kernel)
        return self.add(
            name, Kind.CONV, shape, weight=weight, kernel=kernel, stride=stride, groups=groups, activation=activation
        )

    def inverted_residual(self, outputs: int, expansion: int, stride: tuple[int, int] = (1, 1)) -> str:
        """Expand 1x1, unless `expansion` is 1, depthwise 3x3, project 1x1 without activation."""
        hidden = self.shape[0] * expansion
        if expansion > 1:
            self.conv("expand", hidden, 1)
        self.conv("depthwise", hidden, 3, stride=stride, groups=hidden)
        return self.conv("project", outputs, 1, activation=Activation.NONE)

    def linear(
        self,
        name: str,
        outputs: int,
        *,
        inputs: Sequence[str] | None = None,
        activation: Activation = Activation.NONE,
    ) -> str:
        """A linear layer on the last axis; `inputs` has the shape of what came before."""
        *rest, channels = self._shape_of(inputs)
        return self.add(
            name, Kind.LINEAR, (*rest, outputs), inputs=inputs, weight=(outputs, channels), activation=activation
        )

    def norm(self, name: str) -> str:
        """Layer norm over the last axis."""
        return self.add(name, Kind.LAYER_NORM, self.shape, weight=self.shape[-1:])

    def _shape_of(self, inputs: Sequence[str] | None) -> tuple[int, ...]:
        if inputs is None:
            return self.shape
        return next(layer.shape for layer in self.layers if layer.name == inputs[0])


def map_shape(module: Module) -> Shape:
    """Of the feature map that leaves a module."""
    channels, height, width = module.output.shape
    return channels, height, width


def _check(input_shape: Shape, supernet: SuperConfig) -> None:
    """Check the dimensions that a user may set."""
    if min(input_shape) < 1:
        raise ShapeError(f"input shape {input_shape}: channels, height and width must be at least 1")
    for index, stage in enumerate(supernet.stages):
        if stage.dim < GRAIN or stage.dim % GRAIN:
            raise ShapeError(f"stage {index}: dimension {stage.dim} is not a positive multiple of {GRAIN}")
        if stage.dim % supernet.heads:
            raise ShapeError(f"stage {index}: dimension {stage.dim} is not a multiple of the {supernet.heads} heads")
