"""Linear: a fully connected layer over the last axis (docs/numerics.md, linear)."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.matrices import (
    BLOCK,
    LANES,
    accumulate,
    finish_columns,
    finish_rows,
    pad_blocks,
    padded_length,
    remove_zero_point,
    remove_zero_point_transposed,
    write_transposed,
)
from refsim.numerics import Int8Array, Int16Array, Int32Array, Stage
from refsim.ops.base import Requantization, Requantizing, check_array, check_channels, check_zero_point, weighted_bounds
from refsim.tensor import Shape


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
        _linear(x.reshape(-1, x.shape[-1]), *self._prepared, self.input_zero_point, y.reshape(-1, y.shape[-1]))
        return y

    @cached_property
    def _prepared(self) -> tuple[Int16Array, Int32Array, Int32Array, Stage]:
        """Weight, its transpose, bias and last step."""
        weight = pad_blocks(self.weight)
        transposed = np.ascontiguousarray(weight[: self.weight.shape[0]].T, np.int32)
        return weight, transposed, self.bias, self.output.stage(self.weight.shape[0])


@compiled()
def _linear(
    x: Int8Array,
    weight: Int16Array,
    transposed: Int32Array,
    bias: Int32Array,
    stage: Stage,
    input_zero_point: int,
    y: Int8Array,
) -> None:
    """Rows x (R, I) to y (R, O), a block of rows at a time; the longer of rows and channels gives the inner loops.

    Args:
        x: int8 (R, I).
        weight: int16 (O, I), padded to whole blocks.
        transposed: int32 (I, O), padded in I.
        bias: int32 (O,).
        stage: of O channels.
        input_zero_point: z_x.
        y: int8 (R, O) to fill.
    """
    depth, channels = transposed.shape
    block = min(x.shape[0], LANES)
    if block >= channels:
        columns = np.zeros((depth, block), np.int32)
        column_sums = np.empty((weight.shape[0], block), np.int32)
        finished = np.empty((channels, block), np.int8)
        words = np.empty(block, np.uint64)
        offsets = np.arange(depth) * block
        for first in range(0, x.shape[0], block):
            remove_zero_point_transposed(x[first : first + block], input_zero_point, words, columns)
            for o in range(channels):
                column_sums[o] = bias[o]
            accumulate(weight, columns.ravel(), offsets, column_sums)
            finish_columns(column_sums, 0, stage, finished)
            write_transposed(finished, words, y[first : first + block])
    else:
        taps = np.zeros((padded_length(block, BLOCK), depth), np.int16)
        row_sums = np.empty((taps.shape[0], channels), np.int32)
        offsets = np.arange(depth) * channels
        for first in range(0, x.shape[0], block):
            remove_zero_point(x[first : first + block], input_zero_point, taps)
            row_sums[:] = bias
            accumulate(taps, transposed.ravel(), offsets, row_sums)
            finish_rows(row_sums, stage, y[first : first + block])
