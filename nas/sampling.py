"""Drawing supernets and single paths from a space, and varying them for an evolutionary search.

Everything is drawn uniformly and independently, from the generator handed over: the same seed gives the same result.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

import numpy as np

from nas.space import (
    Architecture,
    PathConfig,
    Pruning,
    Space,
    StageConfig,
    StagePath,
    SuperConfig,
)

_Config = TypeVar("_Config", SuperConfig, PathConfig)
_Item = TypeVar("_Item")
_CONFIGS = (SuperConfig, StageConfig, PathConfig, StagePath)


def random_super(space: Space, rng: np.random.Generator) -> SuperConfig:
    """A supernet of the space."""
    stages = tuple(
        StageConfig(_draw(stage.dims, rng), _draw(stage.mobilenets, rng), _draw(stage.transformers, rng))
        for stage in space.stages
    )
    return SuperConfig(stages, _draw(space.heads, rng), _draw(space.last_linear, rng))


def random_path(space: Space, supernet: SuperConfig, rng: np.random.Generator) -> PathConfig:
    """A single path through a supernet of the space, with a pruning for each module."""

    def prunings(count: int) -> tuple[Pruning, ...]:
        return tuple(Pruning(_draw(space.sparsities, rng), _draw(space.blocks, rng)) for _ in range(count))

    stages = []
    for stage, config in zip(space.stages, supernet.stages, strict=True):
        downsample = _draw(stage.downsamples, rng)
        expansions = tuple(_draw(stage.expansions, rng) for _ in range(config.mobilenets))
        encoders = tuple(_draw(stage.encoders, rng) for _ in range(config.transformers))
        mobilenet_pruning, transformer_pruning = prunings(config.mobilenets), prunings(config.transformers)
        (downsample_pruning,) = prunings(1)
        stages.append(
            StagePath(downsample, expansions, encoders, downsample_pruning, mobilenet_pruning, transformer_pruning)
        )
    pooling = _draw(space.poolings, rng)
    (head_pruning,) = prunings(1)
    return PathConfig(tuple(stages), pooling, head_pruning)


def random_architecture(space: Space, rng: np.random.Generator) -> Architecture:
    """A path through a supernet, both drawn from the space (`RandomSample` of the paper's Algorithm 1)."""
    supernet = random_super(space, rng)
    return Architecture(space.input_shape, space.classes, supernet, random_path(space, supernet, rng))


def mutate_super(space: Space, supernet: SuperConfig, rate: float, rng: np.random.Generator) -> SuperConfig:
    """The supernet with each choice, at probability `rate`, drawn anew (which may give the same again)."""
    return _mixed(supernet, random_super(space, rng), rate, rng)


def mutate_path(
    space: Space, supernet: SuperConfig, path: PathConfig, rate: float, rng: np.random.Generator
) -> PathConfig:
    """The path with each choice, at probability `rate`, drawn anew; a module's pruning is one choice."""
    return _mixed(path, random_path(space, supernet, rng), rate, rng)


def crossover(first: _Config, second: _Config, rng: np.random.Generator) -> _Config:
    """Each choice from one of two supernets, or of two paths through the same supernet, at equal odds."""
    return _mixed(first, second, 0.5, rng)


def _mixed(first: _Config, second: _Config, share: float, rng: np.random.Generator) -> _Config:
    """`first` with each choice, at probability `share`, from `second`."""

    def mixed(a: Any, b: Any) -> Any:
        if isinstance(a, _CONFIGS):
            return type(a)(**{f.name: mixed(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)})
        if isinstance(a, tuple):
            return tuple(mixed(x, y) for x, y in zip(a, b, strict=True))
        return b if rng.random() < share else a

    return cast(_Config, mixed(first, second))


def _draw(items: Sequence[_Item], rng: np.random.Generator) -> _Item:
    return items[int(rng.integers(len(items)))]
