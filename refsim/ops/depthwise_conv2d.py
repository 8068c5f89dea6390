"""DepthwiseConv2D: each output channel reads one input channel (docs/numerics.md, depthwise_conv2d)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.matrices import finish_rows, padded_length
from refsim.numerics import Int8Array, Int16Array, Int32Array, Stage
from refsim.ops.base import Requantization, Requantizing, check_array, check_channels, check_zero_point, weighted_bounds
from refsim.tensor import Shape
from refsim.windows import Window, image_shape

TAPS = 3
"""Taps of the kernel that are summed in one loop."""


@dataclass(frozen=True, eq=False)
class DepthwiseConv2D(Requantizing):
    """y[oh, ow, o] = requantised (bias[o] + sum of (x[.., o // D] - z_x) * weight[kh, kw, o]) over a window.

    Attributes:
        weight: int8 (KH, KW, C * D), where D is the depth multiplier.
        bias: int32 (C * D,).
        input_zero_point: z_x.
        output: requantisation of one or C * D channels.
        stride, dilation: (height, width).
        padding: (top, left, bottom, right); padded positions contribute nothing.

    Raises:
        ShapeError: weight, bias and multipliers do not fit together.
        QuantizationError: an accumulator could overflow; names the channel and the bound.
    """

    name: ClassVar[str] = "depthwise_conv2d"

    weight: Int8Array
    bias: Int32Array
    input_zero_point: int
    output: Requantization
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        check_array(self.weight, np.int8, (None, None, None), "depthwise_conv2d weight (KH, KW, C * D)")
        channels = self.weight.shape[2]
        check_array(self.bias, np.int32, (channels,), "depthwise_conv2d bias")
        check_channels(self.output, channels, self.name)
        check_zero_point(self.input_zero_point, "depthwise_conv2d input")
        self.output.check(weighted_bounds(np.moveaxis(self.weight, 2, 0), self.bias, self.input_zero_point))
        _ = self.window

    @property
    def window(self) -> Window:
        """The kernel's geometry."""
        return Window((self.weight.shape[0], self.weight.shape[1]), self.stride, self.padding, self.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        height, width, channels = image_shape(shapes[0], self.name)
        if self.weight.shape[2] % channels:
            raise ShapeError(
                f"depthwise_conv2d has {self.weight.shape[2]} output channels, "
                f"which is no multiple of the {channels} in {shapes[0]}"
            )
        self.window.check_indices(height, width, self.weight.shape[2])
        return (*self.window.output_size(height, width), self.weight.shape[2])

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.input_zero_point,)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), np.int8)
        if y.shape[3] != x.shape[3]:
            x = np.repeat(x, y.shape[3] // x.shape[3], axis=3)  # each channel as often as it is read
        # With stride 1 a row's positions are neighbours in the image: the kernel, repeated, meets them all in one loop.
        repeats = y.shape[2] if self.stride[1] == 1 else 1
        taps = self.weight.reshape(-1, self.weight.shape[2])
        kernel = np.zeros((padded_length(taps.shape[0], TAPS), taps.shape[1] * repeats), np.int16)
        kernel[: taps.shape[0]] = np.tile(taps, repeats)
        _depthwise_conv2d(
            x,
            kernel,
            self.weight.shape[:2],
            np.tile(self.bias, repeats),
            self.output.stage(self.weight.shape[2]),
            self.input_zero_point,
            self.stride,
            self.padding,
            self.dilation,
            y,
        )
        return y


@compiled()
def _depthwise_conv2d(
    x: Int8Array,
    weight: Int16Array,
    kernel: tuple[int, int],
    bias: Int32Array,
    stage: Stage,
    input_zero_point: int,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    y: Int8Array,
) -> None:
    """Output channel o reads input channel o.

    Args:
        x: int8 (N, H, W, C).
        weight: int16 (KH * KW, span), padded to a multiple of TAPS; repeated for positions that are neighbours.
        kernel: (KH, KW).
        bias: int32 (span,), repeated likewise.
        stage: of C channels.
        input_zero_point: z_x.
        stride: (height, width).
        padding: (top, left, bottom, right).
        dilation: (height, width).
        y: int8 (N, OH, OW, C) to fill.
    """
    top, left, bottom, right = padding
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    image = np.zeros((top + height + bottom, left + width + right, channels), np.int16)  # padded, zero point removed
    pixels = image.ravel()
    row_size = image.shape[1] * channels
    acc = np.empty((y.shape[2], channels), np.int32)
    sums = acc.reshape(-1)
    taps, span = weight.shape
    offsets = np.zeros(taps, np.int64)
    for tap in range(kernel[0] * kernel[1]):
        kh, kw = divmod(tap, kernel[1])
        offsets[tap] = kh * dilation[0] * row_size + kw * dilation[1] * channels
    for n in range(x.shape[0]):
        for h in range(height):
            row, centred = x[n, h].ravel(), pixels[(top + h) * row_size + left * channels :]
            for i in range(row.size):
                centred[i] = np.int16(np.int16(row[i]) - np.int16(input_zero_point))
        for oh in range(y.shape[1]):
            for part in range(sums.size // span):
                window = pixels[oh * stride[0] * row_size + part * stride[1] * channels :]
                part_sums = sums[part * span : (part + 1) * span]
                for i in range(span):
                    part_sums[i] = bias[i]
                for tap in range(0, taps, 3):
                    x0, x1, x2 = window[offsets[tap] :], window[offsets[tap + 1] :], window[offsets[tap + 2] :]
                    w0, w1, w2 = weight[tap], weight[tap + 1], weight[tap + 2]
                    for i in range(span):
                        part_sums[i] += np.int32(
                            np.int32(np.int32(x0[i]) * np.int32(w0[i]))
                            + np.int32(np.int32(x1[i]) * np.int32(w1[i]))
                            + np.int32(np.int32(x2[i]) * np.int32(w2[i]))
                        )
            finish_rows(acc, stage, y[n, oh])
