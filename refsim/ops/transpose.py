"""Transpose: permute axes (docs/numerics.md, transpose)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.errors import ShapeError
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class Transpose(Operator):
    """Output axis i is input axis permutation[i].

    Attributes:
        permutation: of the axes of one sample.

    Raises:
        ShapeError: it is not a permutation.
    """

    name: ClassVar[str] = "transpose"

    permutation: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.permutation) != list(range(len(self.permutation))):
            raise ShapeError(f"transpose needs a permutation of the axes, found {self.permutation}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != len(self.permutation):
            raise ShapeError(f"transpose by {self.permutation} does not fit shape {shapes[0]}")
        return tuple(shapes[0][axis] for axis in self.permutation)

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_same_quantization(inputs, output)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        return np.ascontiguousarray(x.transpose(0, *(axis + 1 for axis in self.permutation)))
