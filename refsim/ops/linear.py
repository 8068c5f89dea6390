"""Linear: a fully connected layer over the last axis (docs/numerics.md, linear)."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.numerics import (
    ROW_BLOCK,
    VECTOR,
    Int8Array,
    Int32Array,
    Stage,
    Weight,
    accumulate,
    arrange_weight,
    finish_rows,
    padded_length,
    remove_zero_point,
)
from refsim.ops.base import Requantization, Requantizing, check_array, check_channels, check_zero_point, weighted_bounds
from refsim.tensor import Shape

BLOCK = 64
"""Rows computed together, few enough for their sums to stay in a core's cache."""


@dataclass(frozen=True, eq=False)
class Linear(Requantizing):
    """y[..., o] = requantised (bias[o] + sum of (x[..., i] - z_x) * weight[o, i]).

    Attributes:
        weight: int8 (O, I).
        bias: int32 (O,).
        input_zero_point: z_x.
        output: requantisation of one or O channels.

    Raises:
        ShapeError: weight, bias and multipliers do not fit together.
        QuantizationError: an accumulator could overflow; names the channel and the bound.
    """

    name: ClassVar[str] = "linear"

    weight: Int8Array
    bias: Int32Array
    input_zero_point: int
    output: Requantization

    def __post_init__(self) -> None:
        check_array(self.weight, np.int8, (None, None), "linear weight (O, I)")
        check_array(self.bias, np.int32, (self.weight.shape[0],), "linear bias")
        check_channels(self.output, self.weight.shape[0], self.name)
        check_zero_point(self.input_zero_point, "linear input")
        self.output.check(weighted_bounds(self.weight, self.bias, self.input_zero_point))

    def output_shape(self, *shapes: Shape) -> Shape:
        if not shapes[0] or shapes[0][-1] != self.weight.shape[1]:
            raise ShapeError(f"linear takes rows of {self.weight.shape[1]} elements, found shape {shapes[0]}")
        return (*shapes[0][:-1], self.weight.shape[0])

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.input_zero_point,)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty((*x.shape[:-1], self.weight.shape[0]), np.int8)
        _linear(
            x.reshape(x.shape[0], -1, x.shape[-1]),
            *self._prepared,
            self.input_zero_point,
            y.reshape(x.shape[0], -1, y.shape[-1]),
        )
        return y

    @cached_property
    def _prepared(self) -> tuple[Weight, Stage]:
        return arrange_weight(self.weight, self.bias), self.output.stage(self.weight.shape[0])


@compiled()
def _linear(x: Int8Array, weight: Weight, stage: Stage, input_zero_point: int, y: Int8Array) -> None:
    block = min(padded_length(x.shape[1], ROW_BLOCK), BLOCK)
    taps = np.zeros((block, padded_length(x.shape[2], VECTOR)), np.int16)
    acc = np.empty((block, weight.bias.size), np.int32)
    for n in range(x.shape[0]):
        for row in range(0, x.shape[1], block):
            remove_zero_point(x[n, row : row + block], input_zero_point, taps)
            accumulate(taps, weight, acc)
            finish_rows(acc, stage, y[n, row : row + block])
