"""Requantize: int8 to int8 with a new scale and zero point (docs/numerics.md, requantize)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.numerics import Int8Array, Stage, finish, largest_distance
from refsim.ops.base import Requantization, Requantizing, check_channels, check_zero_point
from refsim.tensor import Shape


@dataclass(frozen=True, eq=False)
class Requantize(Requantizing):
    """y = requantised (x - z_x).

    Attributes:
        input_zero_point: z_x.
        output: requantisation, one multiplier.

    Raises:
        ShapeError: more than one multiplier.
        QuantizationError: a zero point out of range, or a value that could overflow.
    """

    name: ClassVar[str] = "requantize"

    input_zero_point: int
    output: Requantization

    def __post_init__(self) -> None:
        check_channels(self.output, 1, self.name)
        check_zero_point(self.input_zero_point, "requantize input")
        self.output.check([largest_distance(self.input_zero_point)], "requantize value")

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.input_zero_point,)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty_like(x)
        requantize_batch(
            x.reshape(x.shape[0], -1), self.input_zero_point, self.output.stage(), y.reshape(x.shape[0], -1)
        )
        return y


@compiled()
def requantize_batch(x: Int8Array, input_zero_point: int, stage: Stage, y: Int8Array) -> None:
    """y = requantised (x - input_zero_point), both int8 (N, elements)."""
    multiplier, shift = stage.multiplier[0], stage.shift[0]
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = finish(np.int64(x[n, i]) - np.int64(input_zero_point), multiplier, shift, stage.rounding, stage)
