"""A space whose networks run in milliseconds, and images that they learn in a few steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.data import LabelledImages
from nas.sampling import random_path, random_super
from nas.space import Architecture, Space, StageSpace
from refsim import Graph

SPACE = Space(
    "tiny",
    (3, 8, 8),
    2,
    (StageSpace(dims=(8,), mobilenets=(1,)), StageSpace(dims=(12,), mobilenets=(1,), transformers=(1,))),
    heads=(2,),
    last_linear=(16,),
)


def architecture(seed: int, space: Space = SPACE) -> Architecture:
    """A path through a supernet, drawn with `seed`."""
    rng = np.random.default_rng(seed)
    supernet = random_super(space, rng)
    return Architecture(space.input_shape, space.classes, supernet, random_path(space, supernet, rng))


def int8_weights(graph: Graph) -> list[NDArray[np.int8]]:
    """The weights of an integer model's operators."""
    values = (value for node in graph.nodes for value in vars(node.op).values())
    return [v for v in values if isinstance(v, np.ndarray) and v.dtype == np.int8 and v.ndim > 1]


def dark_and_bright(count: int, seed: int = 0, size: int = 8) -> LabelledImages:
    """Two classes that differ in brightness."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 160, (count, size, size, 3)) + 90 * labels[:, None, None, None]
    return LabelledImages(images.astype(np.uint8), labels.astype(np.int64))
