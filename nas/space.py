"""Search spaces and what is sampled from them: plain data, without torch (paper, Table I and Fig. 3).

A supernet (`SuperConfig`) fixes dimensions and the number of modules. Each of its modules is a choice among candidates;
a single path (`PathConfig`) takes one candidate of each, and says how each module is pruned. An `Architecture` is the
two together: everything that decides a network but its weights.

`load_space` reads the spaces in `nas/spaces/` and users' own TOML files; `as_dict` and `from_dict` turn all of these
into what JSON holds and back.
"""

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from codegen.descriptions import list_descriptions, read_description
from refsim.errors import DataError

Shape = tuple[int, int, int]

GRAIN = 4
"""Channels are multiples of it: whole blocks of weights, and whole words for the kernels."""

BLOCKS = (1, 2, 4)
"""Weights of a block that the encoder knows."""

_BUILT_IN = Path(__file__).parent / "spaces"
_Part = TypeVar("_Part")


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

    Raises:
        DataError: a choice is empty or out of range, or a dimension no multiple of 4 and of every number of heads.
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

    def __post_init__(self) -> None:
        where = f"space {self.name!r}"
        choices: dict[str, tuple[object, ...]] = {
            "stages": self.stages,
            "heads": self.heads,
            "last_linear": self.last_linear,
            "poolings": self.poolings,
            "sparsities": self.sparsities,
            "blocks": self.blocks,
        }
        for index, stage in enumerate(self.stages):
            fields = dataclasses.fields(stage)
            choices |= {f"stages[{index}].{field.name}": getattr(stage, field.name) for field in fields}
        for key, values in choices.items():
            # a network without transformers or MobileNetV2 modules is one: their number may be 0
            least = 0 if key.endswith((".mobilenets", ".transformers")) else 1
            if not values:
                raise DataError(f"{where}: {key} is empty; it needs at least one choice")
            for value in values:
                if isinstance(value, int) and value < least:
                    raise DataError(f"{where}: {key} has {value}; it must be at least {least}")
        if min(self.input_shape) < 1 or self.classes < 1:
            raise DataError(
                f"{where}: input_shape is {self.input_shape}, classes {self.classes}; they must be positive"
            )
        for dim in (dim for stage in self.stages for dim in stage.dims):
            if dim % self.grain:
                raise DataError(f"{where}: dimension {dim} is no multiple of {self.grain}, as 4 and the heads need it")
        for stage in self.stages:
            for encoder in stage.encoders:
                if not 0 < encoder.mlp_ratio <= 16:
                    raise DataError(f"{where}: mlp_ratio is {encoder.mlp_ratio}; it must be above 0 and at most 16")
        for sparsity in self.sparsities:
            if not 0 <= sparsity < 1:
                raise DataError(f"{where}: sparsity is {sparsity}; it must be at least 0 and below 1")
        if not set(self.blocks) <= set(BLOCKS):
            raise DataError(f"{where}: blocks are {self.blocks}; known are {BLOCKS}")

    @property
    def grain(self) -> int:
        """Every dimension is a multiple of it."""
        return math.lcm(GRAIN, *self.heads)


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


def list_spaces() -> tuple[str, ...]:
    """Names of the built-in spaces, sorted."""
    return list_descriptions(_BUILT_IN)


def load_space(name_or_path: str | Path) -> Space:
    """Read a space.

    Args:
        name_or_path: a built-in space's name (see `list_spaces`) or the path of a TOML file, which ends in ".toml".

    Raises:
        DataError: there is no such space, or the file is unreadable or wrong.
    """
    path, table = read_description("space", name_or_path, _BUILT_IN, DataError)
    return from_dict(Space, table, f"space file {path}")


def as_dict(value: Any) -> dict[str, Any]:
    """A dataclass of this module as JSON has it: dictionaries, lists, strings and numbers."""
    plain = _plain(value)
    assert isinstance(plain, dict)
    return plain


def from_dict(kind: type[_Part], table: dict[str, Any], where: str) -> _Part:
    """The dataclass `kind` from what `as_dict` gave, or a user wrote.

    Args:
        kind: the class, of this module or another.
        table: its fields; what has a default may be missing.
        where: the table comes from, for messages.

    Raises:
        DataError: naming the key that is missing, unknown or of the wrong type.
    """
    part = _part(kind, table, where)
    assert isinstance(part, kind)
    return part


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _part(kind: Any, value: Any, where: str) -> Any:
    """`value`, once it is of the type `kind`; whole numbers may stand where a float is due, and lists for tuples."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise DataError(f"{where} is {value!r}; it must be a table")
        types, fields = get_type_hints(kind), dataclasses.fields(kind)
        missing = sorted({f.name for f in fields if f.default is dataclasses.MISSING} - value.keys())
        unknown = sorted(value.keys() - types.keys())
        if missing or unknown:
            faults = [f"lacks {', '.join(missing)}"] * bool(missing)
            faults += [f"has unknown {', '.join(unknown)}"] * bool(unknown)
            raise DataError(f"{where} {' and '.join(faults)}; the keys are {', '.join(f.name for f in fields)}")
        return kind(**{name: _part(types[name], item, f"{where}: {name}") for name, item in value.items()})
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if not isinstance(value, list | tuple) or (items[-1] is not Ellipsis and len(value) != len(items)):
            count = "" if items[-1] is Ellipsis else f" of {len(items)}"
            raise DataError(f"{where} is {value!r}; it must be a list{count}")
        return tuple(_part(items[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if get_origin(kind) in (Union, UnionType):
        # TOML and JSON leave out what is None, or say so.
        return None if value is None else _part(get_args(kind)[0], value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise DataError(f"{where} is {value!r}; known are {', '.join(map(repr, get_args(kind)))}")
        return value
    if isinstance(kind, type) and issubclass(kind, Enum):
        if value not in [member.value for member in kind]:
            raise DataError(f"{where} is {value!r}; known are {', '.join(member.value for member in kind)}")
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise DataError(f"{where} is {value!r}; it must be of type {kind.__name__}")
    return value
