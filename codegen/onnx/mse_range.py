"""The range of a tensor that keeps the mean squared error of its quantisation smallest.

A narrower range has finer steps and cuts off more: the error of both together is least somewhere in between (Banner,
Nahshan and Soudry, "Post training 4-bit quantization of convolutional networks for rapid-deployment", 2019; here
without an assumption on the distribution, from the values themselves).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.constants import affine
from codegen.onnx.runner import Runner, Samples

Range = tuple[float, float]

_BINS = 8192
"""Of a histogram: 32 for each of the 256 levels where nothing is cut off."""

_PARTS = np.linspace(1.0, 0.02, 50)
"""Of the full range, tried for both ends together, then for each by itself."""


class Histogram:
    """How often each value occurs, and the mean of those in each bin."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.count: NDArray[np.float64] = np.zeros(_BINS)
        self.sum: NDArray[np.float64] = np.zeros(_BINS)

    def add(self, values: NDArray[np.float32]) -> None:
        """Enter values of any shape, all between the limits."""
        x = values.reshape(-1).astype(np.float64)
        width = (self.high - self.low) / _BINS or 1.0
        index = np.clip((x - self.low) / width, 0, _BINS - 1).astype(np.int64)
        self.count += np.bincount(index, minlength=_BINS)
        self.sum += np.bincount(index, weights=x, minlength=_BINS)

    def values(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The bins' means and counts, empty ones left out."""
        used = self.count > 0
        return self.sum[used] / self.count[used], self.count[used]


def histograms(runner: Runner, samples: Samples, limits: Mapping[str, Range]) -> dict[str, Histogram]:
    """Of every tensor, within the smallest and the largest value that it has on these samples."""
    found = {name: Histogram(*ends) for name, ends in limits.items()}
    for values in runner.run(samples):
        for name, histogram in found.items():
            histogram.add(values[name])
    return found


def squared_error(x: NDArray[np.float64], count: NDArray[np.float64], limits: Range) -> float:
    """Sum of squared errors of int8 quantisation to a range, over values and how often they occur."""
    scale, zero_point = affine(*limits)
    q = np.clip(np.rint(x / scale) + zero_point, -128, 127) - zero_point
    return float(np.dot(np.square(q * scale - x), count))


def mse_range(histogram: Histogram) -> Range:
    """The range with the least mean squared error; never worse than the full one."""
    x, count = histogram.values()
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if low == high:
        return low, high
    best, least = (low, high), squared_error(x, count, (low, high))
    for ends in ((True, True), *((True, False), (False, True)) * 2):
        kept = best
        for part in _PARTS:
            limits = (low * part if ends[0] else kept[0], high * part if ends[1] else kept[1])
            error = squared_error(x, count, limits)
            if error < least:
                best, least = limits, error
    return best
