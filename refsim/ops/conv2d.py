"""Conv2D: two-dimensional convolution, channels last, with groups and dilation (docs/numerics.md, conv2d)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import prange

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.numerics import (
    TILE,
    Int8Array,
    Int16Array,
    Int32Array,
    Stage,
    accumulate_tile,
    finish_row,
)
from refsim.ops.base import Operator, Requantization, check_array, check_channels, check_zero_point, weighted_bounds
from refsim.tensor import Shape, TensorType
from refsim.windows import Window, image_shape, inside


@dataclass(frozen=True, eq=False)
class Conv2D(Operator):
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

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_zero_point(inputs[0], self.input_zero_point, "input")
        self._expect_zero_point(output, self.output.zero_point, "output")

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), np.int8)
        stage = self.output.stage(self.weight.shape[0])
        _conv2d(
            x,
            self.weight,
            self.bias,
            stage,
            self.input_zero_point,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            y,
        )
        return y


@compiled()
def gather_field(
    x: Int8Array,
    zero_point: int,
    top: int,
    left: int,
    dilation: tuple[int, int],
    first_channel: int,
    field: Int16Array,
) -> None:
    """Copy the receptive field whose corner is (top, left) out of one image, its zero point removed.

    Args:
        x: int8 (H, W, C).
        zero_point: z_x.
        top: first row of the window, negative in the padding.
        left: first column of the window, negative in the padding.
        dilation: (height, width).
        first_channel: of the group.
        field: int16 (KH, KW, I) to fill; zero where the window lies outside the image.
    """
    kernel_h, kernel_w, depth = field.shape
    for kh in range(kernel_h):
        ih = top + kh * dilation[0]
        for kw in range(kernel_w):
            iw = left + kw * dilation[1]
            if inside(ih, x.shape[0]) and inside(iw, x.shape[1]):
                for i in range(depth):
                    field[kh, kw, i] = np.int16(np.int16(x[ih, iw, first_channel + i]) - np.int16(zero_point))
            else:
                for i in range(depth):
                    field[kh, kw, i] = np.int16(0)


@compiled(parallel=True)
def _conv2d(
    x: Int8Array,
    weight: Int8Array,
    bias: Int32Array,
    stage: Stage,
    input_zero_point: int,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    y: Int8Array,
) -> None:
    channels, kernel_h, kernel_w, depth = weight.shape
    rows = weight.reshape(channels, kernel_h * kernel_w * depth)
    count = channels // groups
    for n in prange(x.shape[0]):
        image = x[n]
        fields = np.zeros((TILE, kernel_h, kernel_w, depth), np.int16)
        taps = fields.reshape(TILE, -1)
        acc = np.empty((TILE, count), np.int32)
        for g in range(groups):
            first, last = g * count, (g + 1) * count
            group_rows, group_bias = rows[first:last], bias[first:last]
            for oh in range(y.shape[1]):
                top = oh * stride[0] - padding[0]
                for ow in range(0, y.shape[2], TILE):
                    tile = min(TILE, y.shape[2] - ow)
                    for j in range(tile):
                        left = (ow + j) * stride[1] - padding[1]
                        gather_field(image, input_zero_point, top, left, dilation, g * depth, fields[j])
                    accumulate_tile(taps, group_rows, group_bias, acc)
                    for j in range(tile):
                        finish_row(acc[j], stage, first, y[n, oh, ow + j, first:last])
