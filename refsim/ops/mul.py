"""Mul: element-wise product of two activations with broadcasting (docs/numerics.md, mul)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.numerics import Int8Array, Stage, finish, largest_distance
from refsim.ops.base import (
    Requantization,
    Requantizing,
    broadcast_inputs,
    broadcast_shape,
    check_channels,
    check_zero_point,
)
from refsim.tensor import Shape


@dataclass(frozen=True, eq=False)
class Mul(Requantizing):
    """y = requantised (a - z_a) * (b - z_b).

    Attributes:
        a_zero_point, b_zero_point: of the inputs.
        output: requantisation, one multiplier.

    Raises:
        ShapeError: more than one multiplier.
        QuantizationError: a zero point out of range, or a product that could overflow.
    """

    name: ClassVar[str] = "mul"
    arity: ClassVar[int | None] = 2

    a_zero_point: int
    b_zero_point: int
    output: Requantization

    def __post_init__(self) -> None:
        check_channels(self.output, 1, self.name)
        check_zero_point(self.a_zero_point, "mul first input")
        check_zero_point(self.b_zero_point, "mul second input")
        self.output.check([largest_distance(self.a_zero_point) * largest_distance(self.b_zero_point)], "mul product")

    def output_shape(self, *shapes: Shape) -> Shape:
        return broadcast_shape(self.name, *shapes)

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.a_zero_point, self.b_zero_point)

    def run(self, *inputs: Int8Array) -> Int8Array:
        a, b, y = broadcast_inputs(self, *inputs)
        _mul(
            a.reshape(a.shape[0], -1),
            b.reshape(b.shape[0], -1),
            self.a_zero_point,
            self.b_zero_point,
            self.output.stage(),
            y.reshape(y.shape[0], -1),
        )
        return y


@compiled()
def _mul(a: Int8Array, b: Int8Array, a_zero_point: int, b_zero_point: int, stage: Stage, y: Int8Array) -> None:
    multiplier, shift = stage.multiplier[0], stage.shift[0]
    for n in range(a.shape[0]):
        for i in range(a.shape[1]):
            product = (np.int64(a[n, i]) - np.int64(a_zero_point)) * (np.int64(b[n, i]) - np.int64(b_zero_point))
            y[n, i] = finish(product, multiplier, shift, stage.rounding, stage)
