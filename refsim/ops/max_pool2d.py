"""MaxPool2D: largest value of each window (docs/numerics.md, max_pool2d)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.numerics import Int8Array
from refsim.ops.base import Pooling
from refsim.windows import inside


@dataclass(frozen=True, eq=False)
class MaxPool2D(Pooling):
    """y = the largest x of each window, clamped; the quantisation stays. Fields as in `Pooling`."""

    name: ClassVar[str] = "max_pool2d"

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), np.int8)
        _max_pool2d(x, self.kernel, self.stride, self.padding, self.act_min, self.act_max, y)
        return y


@compiled()
def _max_pool2d(
    x: Int8Array,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    act_min: int,
    act_max: int,
    y: Int8Array,
) -> None:
    left, right, channels = padding[1], padding[3], x.shape[3]
    # A row of windows is the largest over the kernel's rows, at all columns at once, then over its columns.
    column_max = np.full((left + x.shape[2] + right) * channels, -128, np.int8)
    image_max = column_max[left * channels : (left + x.shape[2]) * channels]
    window_max = np.empty(column_max.size - (kernel[1] - 1) * channels, np.int8)
    for n in range(x.shape[0]):
        for oh in range(y.shape[1]):
            image_max[:] = np.int8(-128)
            for kh in range(kernel[0]):
                ih = oh * stride[0] - padding[0] + kh
                if inside(ih, x.shape[1]):
                    row = x[n, ih].reshape(-1)
                    for i in range(row.size):
                        image_max[i] = max(image_max[i], row[i])
            window_max[:] = np.int8(act_min)
            for kw in range(kernel[1]):
                shifted = column_max[kw * channels :]
                for i in range(window_max.size):
                    window_max[i] = max(window_max[i], shifted[i])
            for ow in range(y.shape[2]):
                position = window_max[ow * stride[1] * channels :]
                for c in range(channels):
                    y[n, oh, ow, c] = min(position[c], np.int8(act_max))
