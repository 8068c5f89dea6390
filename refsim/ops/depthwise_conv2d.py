"""DepthwiseConv2D: each output channel reads one input channel (docs/numerics.md, depthwise_conv2d)."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.matrices import finish_rows, padded_length, remove_zero_point
from refsim.numerics import Int8Array, Int16Array, Int32Array, Int64Array, Stage
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
        return (*self.window.output_size(height, width), self.weight.shape[2])

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.input_zero_point,)

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), np.int8)
        if y.shape[3] != x.shape[3]:
            x = np.repeat(x, y.shape[3] // x.shape[3], axis=3)  # each channel as often as it is read
        weight, bias, stage = self._prepared(y.shape[2])
        _depthwise_conv2d(
            x,
            weight,
            self.weight.shape[:2],
            bias,
            stage,
            self.input_zero_point,
            self.stride,
            self.padding,
            self.dilation,
            y.reshape(*y.shape[:2], -1),
        )
        return y

    def _prepared(self, out_w: int) -> tuple[Int16Array, Int32Array, Stage]:
        """Weight, bias and last step of a whole row of `out_w` positions, where each channel's repeat; built once."""
        if out_w not in self._rows:
            taps = self.weight.reshape(-1, self.weight.shape[2])
            weight = np.zeros((padded_length(taps.shape[0], TAPS), taps.shape[1] * out_w), np.int16)
            weight[: taps.shape[0]] = np.tile(taps, out_w)
            stage = self.output.stage(taps.shape[1])
            multiplier, shift = np.tile(stage.multiplier, out_w), np.tile(stage.shift, out_w)
            self._rows[out_w] = weight, np.tile(self.bias, out_w), stage._replace(multiplier=multiplier, shift=shift)
        return self._rows[out_w]

    @cached_property
    def _rows(self) -> dict[int, tuple[Int16Array, Int32Array, Stage]]:
        return {}


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
        weight: int16 (KH * KW, OW * C), padded to a multiple of TAPS.
        kernel: (KH, KW).
        bias: int32 (OW * C,).
        stage: of OW * C channels.
        input_zero_point: z_x.
        stride: (height, width).
        padding: (top, left, bottom, right).
        dilation: (height, width).
        y: int8 (N, OH, OW * C) to fill.
    """
    top, left, bottom, right = padding
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    # The padded image without its zero point. Its columns lie in the order of their remainder by the stride, so that
    # what a tap sees at the positions of a row lies together.
    phase_width = (left + width + right + stride[1] - 1) // stride[1]
    image = np.zeros((top + height + bottom, stride[1], phase_width, channels), np.int16)
    pixels = image.ravel()
    row_size = stride[1] * phase_width * channels
    sums = np.empty((1, bias.size), np.int32)
    taps = weight.shape[0]
    offsets = np.zeros(taps, np.int64)
    for tap in range(kernel[0] * kernel[1]):
        kh, kw = divmod(tap, kernel[1])
        j, q = divmod(kw * dilation[1], stride[1])
        offsets[tap] = kh * dilation[0] * row_size + (q * phase_width + j) * channels
    for n in range(x.shape[0]):
        for h in range(height):
            for q in range(stride[1]):
                first = (q - left) % stride[1]
                j = (left + first) // stride[1]
                columns = x[n, h, first :: stride[1]]
                remove_zero_point(columns, input_zero_point, image[top + h, q, j:])
        for oh in range(y.shape[1]):
            window = pixels[oh * stride[0] * row_size :]
            sums[0] = bias
            for tap in range(0, taps, 3):
                _add_taps(window, offsets[tap : tap + 3], weight[tap : tap + 3], sums[0])
            finish_rows(sums, stage, y[n, oh : oh + 1])


@compiled()
def _add_taps(pixels: Int16Array, offsets: Int64Array, weight: Int16Array, sums: Int32Array) -> None:
    """sums[i] += pixels[offsets[t] + i] * weight[t, i] for three taps t."""
    x0, x1, x2 = pixels[offsets[0] :], pixels[offsets[1] :], pixels[offsets[2] :]
    w0, w1, w2 = weight[0], weight[1], weight[2]
    for i in range(sums.size):
        sums[i] += np.int32(
            np.int32(np.int32(x0[i]) * np.int32(w0[i]))
            + np.int32(np.int32(x1[i]) * np.int32(w1[i]))
            + np.int32(np.int32(x2[i]) * np.int32(w2[i]))
        )
