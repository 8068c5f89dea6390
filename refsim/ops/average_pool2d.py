"""AveragePool2D: rounded mean of each window's positions inside the image (docs/numerics.md, average_pool2d)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.numerics import Int8Array, check_accumulator, clamp
from refsim.ops.base import Pooling
from refsim.windows import inside


@dataclass(frozen=True, eq=False)
class AveragePool2D(Pooling):
    """y = sum / count to nearest, ties away from zero, clamped; the quantisation stays. Fields as in `Pooling`."""

    name: ClassVar[str] = "average_pool2d"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_accumulator(128 * self.kernel[0] * self.kernel[1], "average_pool2d window")

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty((x.shape[0], *self.output_shape(x.shape[1:])), np.int8)
        _average_pool2d(x, self.kernel, self.stride, self.padding, self.act_min, self.act_max, y)
        return y


@compiled()
def _average_pool2d(
    x: Int8Array,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    act_min: int,
    act_max: int,
    y: Int8Array,
) -> None:
    for n in range(x.shape[0]):
        total = np.empty(y.shape[3], np.int32)
        for oh in range(y.shape[1]):
            for ow in range(y.shape[2]):
                total[:] = np.int32(0)
                count = np.int64(0)
                for kh in range(kernel[0]):
                    ih = oh * stride[0] - padding[0] + kh
                    for kw in range(kernel[1]):
                        iw = ow * stride[1] - padding[1] + kw
                        if inside(ih, x.shape[1]) and inside(iw, x.shape[2]):
                            count += np.int64(1)
                            for c in range(total.size):
                                total[c] += np.int32(x[n, ih, iw, c])
                for c in range(total.size):
                    magnitude = (np.int64(abs(total[c])) * np.int64(2) + count) // (np.int64(2) * count)
                    mean = magnitude if total[c] >= 0 else -magnitude
                    y[n, oh, ow, c] = np.int8(clamp(mean, act_min, act_max))
