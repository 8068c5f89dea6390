"""Search spaces and what is sampled from them: plain data, without torch (paper, Table I and Fig. 3).

A supernet (`SuperConfig`) fixes dimensions and the number of modules. Each of its modules is a choice among candidates;
a single path (`PathConfig`) takes one candidate of each, and says how each module is pruned. An `Architecture` is the
two together: everything that decides a network but its weights.
"""

from dataclasses import dataclass
from enum import StrEnum

Shape = tuple[int, int, int]


class Downsample(StrEnum):
    """Candidates of the downsample module; each halves height and width."""

    CONV_POOL = "conv-maxpool"
    STRIDED_CONV = "conv-stride2"
    STRIDED_RESIDUAL = "inverted-residual-stride2"


class Pooling(StrEnum):
    """Candidates of the pooling module: tokens to one vector."""

    SEQUENCE = "seqpool"
    AVERAGE = "average"


@dataclass(frozen=True)
class Encoder:
    """A candidate of the transformer module.

    Conv 3x3 -> Conv 1x1, an encoder (attention and ReLU MLP) on the positions as tokens, Conv 1x1 -> Conv 3x3.

    Attributes:
        mlp_ratio: width inside the MLP, in that of a token.
        convolutions: the convolutions around the encoder, which stand for positional encoding; without them it is the
            encoder alone.
    """

    mlp_ratio: float = 2.0
    convolutions: bool = True

    @property
    def name(self) -> str:
        """Short name, part of parameters' names: ``mlp2``, ``mlp1_5-plain``."""
        return f"mlp{self.mlp_ratio:g}".replace(".", "_") + "-plain" * (not self.convolutions)


@dataclass(frozen=True)
class StageSpace:
    """Where one DoT is drawn from.

    Attributes:
        dims: channels; multiples of 4.
        mobilenets, transformers: how many modules of each kind.
        downsamples, expansions, encoders: the candidates of each module.
    """

    dims: tuple[int, ...]
    mobilenets: tuple[int, ...] = (1, 2)
    transformers: tuple[int, ...] = (1, 2)
    downsamples: tuple[Downsample, ...] = tuple(Downsample)
    expansions: tuple[int, ...] = (2, 3, 4)
    encoders: tuple[Encoder, ...] = (Encoder(2.0), Encoder(1.0), Encoder(2.0, convolutions=False))


@dataclass(frozen=True)
class Space:
    """S_super and S_sparse of the paper's Table I.

    Attributes:
        name: of the space.
        input_shape: channels, height, width of one sample. A signal has height 1.
        classes: of the classifier.
        stages: the DoTs.
        heads: of the attention.
        last_linear: width of the last hidden layer.
        poolings: candidates of the pooling module.
        sparsities: of a module, 0 or a share of its blocks of weights.
        blocks: weights of a block.
    """

    name: str
    input_shape: Shape
    classes: int
    stages: tuple[StageSpace, ...]
    heads: tuple[int, ...] = (1, 2, 4)
    last_linear: tuple[int, ...] = (512, 768, 1024)
    poolings: tuple[Pooling, ...] = tuple(Pooling)
    sparsities: tuple[float, ...] = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8)
    blocks: tuple[int, ...] = (2, 4)


@dataclass(frozen=True)
class StageConfig:
    """A DoT of a supernet: its dimension and how many modules it has."""

    dim: int
    mobilenets: int
    transformers: int


@dataclass(frozen=True)
class SuperConfig:
    """A supernet, c_super."""

    stages: tuple[StageConfig, ...]
    heads: int
    last_linear: int


@dataclass(frozen=True)
class Pruning:
    """How the convolutions and linear layers of a module are pruned; depthwise ones in blocks of 3 along the width.

    Attributes:
        sparsity: share of the blocks that is zero, 0 <= sparsity < 1.
        block: weights of a block along the input channels.
    """

    sparsity: float = 0.0
    block: int = 4


@dataclass(frozen=True)
class StagePath:
    """What a path takes in one DoT: a candidate of each module, and the module's pruning."""

    downsample: Downsample
    expansions: tuple[int, ...]
    encoders: tuple[Encoder, ...]
    downsample_pruning: Pruning
    mobilenet_pruning: tuple[Pruning, ...]
    transformer_pruning: tuple[Pruning, ...]


@dataclass(frozen=True)
class PathConfig:
    """A single path through a supernet, c_sparse."""

    stages: tuple[StagePath, ...]
    pooling: Pooling
    head_pruning: Pruning


@dataclass(frozen=True)
class Architecture:
    """Everything that decides a network but its weights.

    Attributes:
        input_shape: channels, height, width of one sample.
        classes: of the classifier.
        supernet: dimensions and numbers of modules.
        path: the candidate of each module and its pruning.
    """

    input_shape: Shape
    classes: int
    supernet: SuperConfig
    path: PathConfig
