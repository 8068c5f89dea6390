"""Mean: over a contiguous run of axes, with a new quantisation (docs/numerics.md, mean)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.numerics import Int8Array, Stage, finish, largest_distance
from refsim.ops.base import Requantization, Requantizing, check_channels, check_zero_point
from refsim.tensor import Shape


@dataclass(frozen=True, eq=False)
class Mean(Requantizing):
    """y = requantised sum of (x - z_x) over axes first_axis .. last_axis (both included), which are removed.

    Attributes:
        first_axis, last_axis: of one sample's shape, not negative.
        input_zero_point: z_x.
        output: requantisation, one multiplier; the real one is s_x / (n * s_y) for n elements.

    Raises:
        ShapeError: the axes are not a run, or more than one multiplier.
        QuantizationError: a zero point out of range.
    """

    name: ClassVar[str] = "mean"

    first_axis: int
    last_axis: int
    input_zero_point: int
    output: Requantization

    def __post_init__(self) -> None:
        if not 0 <= self.first_axis <= self.last_axis:
            raise ShapeError(f"mean takes a run of axes, found {self.first_axis} to {self.last_axis}")
        check_channels(self.output, 1, self.name, halved=True)
        check_zero_point(self.input_zero_point, "mean input")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if self.last_axis >= len(shape):
            raise ShapeError(f"mean over axes {self.first_axis} to {self.last_axis} does not fit shape {shape}")
        count = math.prod(shape[self.first_axis : self.last_axis + 1])
        self.output.check([count * largest_distance(self.input_zero_point)], "mean sum")
        return shape[: self.first_axis] + shape[self.last_axis + 1 :]

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.input_zero_point,)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), np.int8)
        outer = math.prod(x.shape[1 : self.first_axis + 1])
        inner = math.prod(x.shape[self.last_axis + 2 :])
        _mean(
            x.reshape(x.shape[0], outer, -1, inner),
            self.input_zero_point,
            self.output.stage(),
            y.reshape(x.shape[0], outer, inner),
        )
        return y


@compiled()
def _mean(x: Int8Array, input_zero_point: int, stage: Stage, y: Int8Array) -> None:
    multiplier, shift = stage.multiplier[0], stage.shift[0]
    for n in range(x.shape[0]):
        total = np.empty(x.shape[3], np.int64)
        for outer in range(x.shape[1]):
            total[:] = np.int64(0)
            for i in range(x.shape[2]):
                for inner in range(x.shape[3]):
                    total[inner] += np.int64(x[n, outer, i, inner]) - np.int64(input_zero_point)
            for inner in range(x.shape[3]):
                y[n, outer, inner] = finish(total[inner], multiplier, shift, stage.rounding, stage)
