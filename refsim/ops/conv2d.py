"""Conv2D: two-dimensional convolution, channels last, with groups and dilation (docs/numerics.md, conv2d)."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.matrices import LANES, accumulate, finish_columns, pad_blocks
from refsim.numerics import Int8Array, Int16Array, Int32Array, Stage
from refsim.ops.base import Requantization, Requantizing, check_array, check_channels, check_zero_point, weighted_bounds
from refsim.ops.linear import Linear
from refsim.planes import fill_planes, plane_size, row_blocks, tap_offsets, write_planes
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
        self.window.check_indices(height, width, max(channels, self.weight.shape[0]))
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
        for group, (weight, bias, stage) in enumerate(self._groups):
            group_y = y if self.groups == 1 else np.empty((*y.shape[:3], count), np.int8)
            _conv2d_group(
                x,
                weight,
                bias,
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
    def _groups(self) -> list[tuple[Int16Array, Int32Array, Stage]]:
        """Weight, bias and last step of each group."""
        stage = self.output.stage(self.weight.shape[0])
        count = self.weight.shape[0] // self.groups
        parts = [slice(first, first + count) for first in range(0, self.weight.shape[0], count)]
        return [
            (
                pad_blocks(self.weight[part].reshape(count, -1)),
                self.bias[part],
                stage._replace(multiplier=stage.multiplier[part], shift=stage.shift[part]),
            )
            for part in parts
        ]


@compiled()
def _conv2d_group(
    x: Int8Array,
    weight: Int16Array,
    bias: Int32Array,
    stage: Stage,
    input_zero_point: int,
    kernel: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    first_input: int,
    y: Int8Array,
) -> None:
    """One group: x (N, H, W, C), weight (O, KH * KW * I) padded to whole blocks, y (N, OH, OW, O).

    Each tap and input channel is one row of a matrix: what the tap sees of the channel's plane (`refsim.planes`).
    """
    size = plane_size(x.shape[1:3], y.shape[1:3], stride, padding)
    height, width = size
    samples = min(x.shape[0], (LANES + height * width - 1) // (height * width))  # computed together
    channels, depth = y.shape[3], kernel[2]
    plane = samples * height * width
    taps = tap_offsets(kernel[:2], dilation, stride, depth * plane, width, kernel[0] * kernel[1])
    offsets = np.zeros(weight.shape[1], np.int64)
    for tap in range(taps.size):
        for c in range(depth):
            offsets[tap * depth + c] = taps[tap] + c * plane

    rows, block = row_blocks(samples, y.shape[1], size)
    acc = np.empty((weight.shape[0], block * width), np.int32)
    finished = np.empty((channels, acc.shape[1]), np.int8)
    words = np.empty(max(acc.shape[1], height * width), np.uint64)
    used = stride[0] * stride[1] * depth * plane
    pixels = np.zeros(used + acc.shape[1] + height * width, np.int32)
    for sample in range(0, x.shape[0], samples):
        part, part_y = x[sample : sample + samples], y[sample : sample + samples]
        scratch = words[: height * width]
        end = first_input + depth
        fill_planes(part, input_zero_point, stride, padding, first_input, end, scratch, width, plane, depth, pixels)
        for first in range(0, rows, block):
            for o in range(channels):
                acc[o] = bias[o]
            accumulate(weight, pixels[first * width :], offsets, acc)
            finish_columns(acc, 0, stage, finished)
            write_planes(finished, words[: acc.shape[1]], size, first, part.shape[0], 0, part_y)
