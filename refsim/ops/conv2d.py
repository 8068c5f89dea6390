"""Conv2D: two-dimensional convolution, channels last, with groups and dilation (docs/numerics.md, conv2d)."""

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
    Int16Array,
    Int32Array,
    Stage,
    Weight,
    accumulate,
    arrange_weight,
    finish_rows,
    padded_length,
)
from refsim.ops.base import Requantization, Requantizing, check_array, check_channels, check_zero_point, weighted_bounds
from refsim.ops.linear import Linear
from refsim.tensor import Shape
from refsim.windows import Window, image_shape


@dataclass(frozen=True, eq=False)
class Conv2D(Requantizing):
    """y[oh, ow, o] = requantised (bias[o] + sum of (x - z_x) * weight[o]) over a window.

    Attributes:
        weight: int8 (O, KH, KW, I / groups).
        bias: int32 (O,).
        input_zero_point: z_x.
        output: requantisation of one or O channels.
        stride, dilation: (height, width).
        padding: (top, left, bottom, right); padded positions contribute nothing.
        groups: divides I and O.

    Raises:
        ShapeError: weight, bias, multipliers and groups do not fit together.
        QuantizationError: an accumulator could overflow; names the channel and the bound.
    """

    name: ClassVar[str] = "conv2d"

    weight: Int8Array
    bias: Int32Array
    input_zero_point: int
    output: Requantization
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        check_array(self.weight, np.int8, (None, None, None, None), "conv2d weight (O, KH, KW, I / groups)")
        channels = self.weight.shape[0]
        check_array(self.bias, np.int32, (channels,), "conv2d bias")
        if self.groups < 1 or channels % self.groups:
            raise ShapeError(f"conv2d: {self.groups} groups do not divide {channels} output channels")
        check_channels(self.output, channels, self.name)
        check_zero_point(self.input_zero_point, "conv2d input")
        self.output.check(weighted_bounds(self.weight, self.bias, self.input_zero_point))
        _ = self.window

    @property
    def window(self) -> Window:
        """The kernel's geometry."""
        return Window((self.weight.shape[1], self.weight.shape[2]), self.stride, self.padding, self.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        height, width, channels = image_shape(shapes[0], self.name)
        if channels != self.weight.shape[3] * self.groups:
            raise ShapeError(
                f"conv2d takes {self.weight.shape[3] * self.groups} input channels, found {channels} in {shapes[0]}"
            )
        return (*self.window.output_size(height, width), self.weight.shape[0])

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.input_zero_point,)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        if self._as_linear is not None:
            return self._as_linear.run(x)
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), np.int8)
        _, kernel_h, kernel_w, depth = self.weight.shape
        count = self.weight.shape[0] // self.groups
        for group, (weight, stage) in enumerate(self._groups):
            group_y = y if self.groups == 1 else np.empty((*y.shape[:3], count), np.int8)
            _conv2d_group(
                x,
                weight,
                stage,
                self.input_zero_point,
                (kernel_h, kernel_w, depth),
                self.stride,
                self.padding,
                self.dilation,
                group * depth,
                group_y,
            )
            if self.groups > 1:
                y[..., group * count : (group + 1) * count] = group_y
        return y

    @cached_property
    def _as_linear(self) -> Linear | None:
        """The linear layer that does the same where each position is a row of it."""
        if self.window != Window((1, 1)) or self.groups != 1:
            return None
        return Linear(self.weight.reshape(self.weight.shape[0], -1), self.bias, self.input_zero_point, self.output)

    @cached_property
    def _groups(self) -> list[tuple[Weight, Stage]]:
        """Weights and last step of each group."""
        stage = self.output.stage(self.weight.shape[0])
        count = self.weight.shape[0] // self.groups
        parts = [slice(first, first + count) for first in range(0, self.weight.shape[0], count)]
        return [
            (
                arrange_weight(self.weight[part].reshape(count, -1), self.bias[part]),
                stage._replace(multiplier=stage.multiplier[part], shift=stage.shift[part]),
            )
            for part in parts
        ]


@compiled()
def _gather_taps(
    rows: Int16Array,
    first_row: int,
    row_skip: int,
    first: int,
    step: int,
    skip: int,
    kernel_rows: int,
    runs: int,
    run: int,
    positions: int,
    taps: Int16Array,
) -> None:
    """Copy the receptive fields of one output row, position by position, out of the image's rows.

    Args:
        rows: int16 (H, W * C), padding included.
        first_row: the image's row under the kernel's first.
        row_skip: image rows between two of the kernel's.
        first: offset in a row of the first position's field.
        step: elements from one position's field to the next.
        skip: elements between two runs of a field.
        kernel_rows: rows of the kernel.
        runs: runs in a kernel row.
        run: elements of a run.
        positions: of the output row.
        taps: int16 (positions, KH * KW * I) or larger, to fill.
    """
    for kh in range(kernel_rows):
        for kw in range(runs):
            tap = (kh * runs + kw) * run
            for ow in range(positions):
                start = first + ow * step + kw * skip
                for i in range(run):
                    taps[ow, tap + i] = rows[first_row + kh * row_skip, start + i]


@compiled()
def _conv2d_group(
    x: Int8Array,
    weight: Weight,
    stage: Stage,
    input_zero_point: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    first_input: int,
    y: Int8Array,
) -> None:
    """One group: x (N, H, W, C), its weight arranged, y (N, OH, OW, O)."""
    top, left, bottom, right = padding
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    # Neighbouring taps of a kernel row are copied in one run where they are neighbours in the image too.
    joined = dilation[1] == 1 and kernel[2] == channels
    runs, run = (1, kernel[1] * kernel[2]) if joined else (kernel[1], kernel[2])
    step, skip = stride[1] * channels, dilation[1] * channels
    image = np.zeros((top + height + bottom, left + width + right, channels), np.int16)  # padded, zero point removed
    rows = image.reshape(image.shape[0], -1)
    taps = np.zeros((padded_length(y.shape[2], ROW_BLOCK), padded_length(run * runs * kernel[0], VECTOR)), np.int16)
    acc = np.empty((taps.shape[0], weight.bias.size), np.int32)
    for n in range(x.shape[0]):
        for h in range(height):
            for w in range(width):
                for c in range(channels):
                    image[top + h, left + w, c] = np.int16(np.int16(x[n, h, w, c]) - np.int16(input_zero_point))
        for oh in range(y.shape[1]):
            first_row = oh * stride[0]
            _gather_taps(rows, first_row, dilation[0], first_input, step, skip, kernel[0], runs, run, y.shape[2], taps)
            accumulate(taps, weight, acc)
            finish_rows(acc, stage, y[n, oh])
