"""Pad: surround a tensor with a constant byte (docs/numerics.md, pad)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class Pad(Operator):
    """Extend each axis by before[axis] and after[axis] elements of `value`.

    Attributes:
        before, after: one entry for each axis of one sample, not negative.
        value: int8; the zero point pads with a real zero.

    Raises:
        ShapeError: lengths differ or an entry is negative.
        QuantizationError: value out of range.
    """

    name: ClassVar[str] = "pad"

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after) or any(n < 0 for n in (*self.before, *self.after)):
            raise ShapeError(f"pad needs two lengths of at least 0 for each axis, found {self.before}, {self.after}")
        if not -128 <= self.value <= 127:
            raise QuantizationError(f"pad value must lie in [-128, 127], found {self.value}")

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != len(self.before):
            raise ShapeError(f"pad for {len(self.before)} axes does not fit shape {shapes[0]}")
        return tuple(b + n + a for b, n, a in zip(self.before, shapes[0], self.after, strict=True))

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_same_quantization(inputs, output)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        widths = [(0, 0), *zip(self.before, self.after, strict=True)]
        return np.pad(x, widths, constant_values=np.int8(self.value))
