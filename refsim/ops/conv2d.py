"""Conv2D: two-dimensional convolution, channels last, with groups and dilation (docs/numerics.md, conv2d)."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.matrices import (
    LANES,
    WORD,
    accumulate,
    finish_columns,
    join_words,
    pad_blocks,
    read_words,
    spread_byte,
    write_words,
)
from refsim.numerics import Int8Array, Int16Array, Int32Array, Stage
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
def _fill_planes(
    x: Int8Array,
    input_zero_point: int,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    first_input: int,
    planes: Int32Array,
) -> None:
    """planes[p, q, c, n, i, j] = x[n, i * stride + p - top, j * stride + q - left, first_input + c] - z_x in the image.

    So what one tap of the kernel sees in a row of windows lies together, whatever the stride. All else becomes 0.
    """
    depth, width = planes.shape[2], planes.shape[5]
    words = np.empty(planes.shape[4] * width, np.uint64)
    padding_word = np.uint64(np.uint8(input_zero_point)) * np.uint64(0x0101010101010101)
    for p in range(stride[0]):
        for q in range(stride[1]):
            top, left = (p - padding[0]) % stride[0], (q - padding[1]) % stride[1]
            words[:] = padding_word  # what the image leaves is its padding
            for n in range(x.shape[0]):
                for c in range(0, depth, WORD):
                    for h in range(top, x.shape[1], stride[0]):
                        pixels = x[n, h, left :: stride[1]]
                        start = (padding[0] + h) // stride[0] * width + (padding[1] + left) // stride[1]
                        read_words(pixels, first_input + c, first_input + depth, words[start:])
                    for part in range(c, min(c + WORD, depth)):
                        spread_byte(words, part - c, input_zero_point, planes[p, q, part, n].ravel())


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

    A tap of the kernel moves over the padded image as the window does: what it sees at all positions is the image from
    the tap's own offset on. So each is one row of a matrix that need not be copied together. The inner loops run over
    whole rows of the padded image; sums of positions where the window juts out on the right are computed and left.
    """
    out_h, channels = y.shape[1], y.shape[3]
    height = (padding[0] + x.shape[1] + padding[2] + stride[0] - 1) // stride[0]  # of a plane
    width = (padding[1] + x.shape[2] + padding[3] + stride[1] - 1) // stride[1]
    samples = min(x.shape[0], (LANES + height * width - 1) // (height * width))  # computed together
    depth = kernel[2]
    shape = (stride[0], stride[1], depth, samples, height, width)

    offsets = np.zeros(weight.shape[1], np.int64)
    tap = 0
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            i, p = divmod(kh * dilation[0], stride[0])
            j, q = divmod(kw * dilation[1], stride[1])
            for c in range(depth):
                plane = (p * stride[1] + q) * depth + c
                offsets[tap] = (plane * samples * height + i) * width + j
                tap += 1

    rows = (samples - 1) * height + out_h  # where a window may start
    blocks = max(1, (rows * width + LANES // 2) // LANES)
    block = (rows + blocks - 1) // blocks
    acc = np.empty((weight.shape[0], block * width), np.int32)
    finished = np.empty((channels, acc.shape[1]), np.int8)
    words = np.empty(acc.shape[1], np.uint64)
    size = stride[0] * stride[1] * depth * samples * height * width
    pixels = np.zeros(size + acc.shape[1] + width * height, np.int32)
    planes = pixels[:size].reshape(shape)
    for sample in range(0, x.shape[0], samples):
        _fill_planes(x[sample : sample + samples], input_zero_point, stride, padding, first_input, planes)
        for first in range(0, rows, block):
            for o in range(channels):
                acc[o] = bias[o]
            accumulate(weight, pixels[first * width :], offsets, acc)
            finish_columns(acc, stage, finished)
            for o in range(0, channels, WORD):
                join_words(finished, o, words)
                for row in range(block):
                    n, oh = divmod(first + row, height)
                    if oh < out_h and n < samples and sample + n < x.shape[0]:
                        write_words(words[row * width :], o, y[sample + n, oh])
