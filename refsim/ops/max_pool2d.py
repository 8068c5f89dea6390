"""MaxPool2D: largest value of each window (docs/numerics.md, max_pool2d)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.numerics import Int8Array, clamp
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
    for n in range(x.shape[0]):
        for oh in range(y.shape[1]):
            for ow in range(y.shape[2]):
                y[n, oh, ow, :] = np.int8(-128)
                for kh in range(kernel[0]):
                    ih = oh * stride[0] - padding[0] + kh
                    for kw in range(kernel[1]):
                        iw = ow * stride[1] - padding[1] + kw
                        if inside(ih, x.shape[1]) and inside(iw, x.shape[2]):
                            for c in range(y.shape[3]):
                                y[n, oh, ow, c] = max(y[n, oh, ow, c], x[n, ih, iw, c])
                for c in range(y.shape[3]):
                    y[n, oh, ow, c] = np.int8(clamp(y[n, oh, ow, c], act_min, act_max))
