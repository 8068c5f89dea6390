"""Reshape: the same bytes under another shape (docs/numerics.md, reshape)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from refsim.errors import ShapeError
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class Reshape(Operator):
    """Give one sample another shape.

    Attributes:
        shape: of one sample, every axis named.

    Raises:
        ShapeError: an axis below 1.
    """

    name: ClassVar[str] = "reshape"

    shape: Shape

    def __post_init__(self) -> None:
        if any(n < 1 for n in self.shape):
            raise ShapeError(f"reshape needs every axis named and positive, found {self.shape}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if math.prod(shapes[0]) != math.prod(self.shape):
            raise ShapeError(f"reshape cannot turn {shapes[0]} into {self.shape}")
        return self.shape

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_same_quantization(inputs, output)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        return x.reshape(x.shape[0], *self.shape)
