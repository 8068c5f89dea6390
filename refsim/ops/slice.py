"""Slice: a regular part of a tensor (docs/numerics.md, slice)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.errors import ShapeError
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class Slice(Operator):
    """Along each axis take sizes[axis] elements from starts[axis], steps[axis] apart.

    Attributes:
        starts, sizes, steps: one entry for each axis of one sample; starts >= 0, sizes and steps >= 1.

    Raises:
        ShapeError: lengths differ or a value is out of range.
    """

    name: ClassVar[str] = "slice"

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.starts) == len(self.sizes) == len(self.steps):
            raise ShapeError("slice needs a start, a size and a step for each axis")
        if any(n < 0 for n in self.starts) or any(n < 1 for n in (*self.sizes, *self.steps)):
            raise ShapeError(f"slice needs starts >= 0, sizes and steps >= 1, found {self}")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) != len(self.starts) or any(
            start + (size - 1) * step >= n
            for start, size, step, n in zip(self.starts, self.sizes, self.steps, shape, strict=True)
        ):
            raise ShapeError(f"slice from {self.starts}, sizes {self.sizes}, steps {self.steps} leaves shape {shape}")
        return self.sizes

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_same_quantization(inputs, output)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        parts = (
            slice(start, start + (size - 1) * step + 1, step)
            for start, size, step in zip(self.starts, self.sizes, self.steps, strict=True)
        )
        return np.ascontiguousarray(x[(slice(None), *parts)])
