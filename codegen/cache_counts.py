"""Which cache lines a kernel reads, and which of them again since they did not stay: what it waits for.

A kernel goes over its weights once for each output position, and over some of its activations as often. What one pass
reads is still there in the next if it fits; of what does not fit, the share that is missed follows from how many lines
fall into one set and how the cache replaces them. Nothing more is known of the order of accesses here: the counts are
estimates, a fit gives each kernel's share of them, and its error says how far that goes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.emit import KernelCall
from codegen.emit.base import Params
from codegen.memory_timing import Cache
from codegen.target import Target


@dataclass(frozen=True)
class _Reuse:
    """A cache, or memory without one, as a kernel's passes see it.

    Attributes:
        cache: None where there is none.
        line_cycles: core cycles of reading a line.
        random: the cache replaces any line of a set, else the one not used for longest.
    """

    cache: Cache | None
    line_cycles: int
    random: bool

    def cycles(self, size: float) -> float:
        """Cycles of reading so many contiguous bytes."""
        return size / self.cache.line * self.line_cycles if self.cache else 0.0

    def swept(self, size: float, between: float = 0.0) -> float:
        """Lines of `size` bytes that a pass over them misses, with `between` other bytes read in each pass."""
        if self.cache is None:
            return 0.0
        lines = size / self.cache.line
        return lines * self._missed((lines + between / self.cache.line) / self.cache.sets)

    def scattered(self, offsets: NDArray[np.int64]) -> float:
        """Lines that a pass over bytes at `offsets` misses."""
        if self.cache is None:
            return 0.0
        lines = np.unique(offsets // self.cache.line)
        of_set = np.bincount(lines % self.cache.sets)
        return float(sum(count * self._missed(float(count)) for count in of_set if count))

    def _missed(self, lines: float) -> float:
        """Share of the lines of one set that is missed, when the same are read over and over."""
        assert self.cache is not None
        ways = self.cache.ways
        if not self.random:
            return float(lines > ways)
        if lines <= 1:
            return 0.0
        # A line stays if none of the misses until it is read again replaces it.
        share = 1.0
        for _ in range(_ITERATIONS):
            share = 1.0 - (1.0 - 1.0 / ways) ** (share * (lines - 1))
        return share if share > _NEGLIGIBLE else 0.0


_ITERATIONS, _NEGLIGIBLE = 60, 0.01

Again = tuple[float, float]
"""Lines missed in later passes over `size` bytes of constants, and over activations."""


def cache_counts(call: KernelCall, activations: int, target: Target) -> dict[str, float]:
    """Cycles of reading the lines that one call of a kernel needs, first and again.

    Args:
        call: the kernel and its parameters.
        activations: bytes of its inputs and output.
        target: that says how fast its memories are; activations lie at the end of its RAM, as the arena does.

    Raises:
        TargetError: the target does not say it.
    """
    constants, data = (_reuse(target, address) for address in (target.code.origin, target.data.end - 1))
    again = _AGAIN.get(call.kernel, _nothing)(call.params, call.constant_bytes, constants, data)
    return {
        "lines": constants.cycles(call.constant_bytes) + data.cycles(activations),
        "lines again": again[0] * constants.line_cycles + again[1] * data.line_cycles,
    }


def _reuse(target: Target, address: int) -> _Reuse:
    part = next(part for part in target.memory_timing if part.origin <= address < part.end)
    cache = target.data_cache(part)
    # As in the simulation: a Cortex-M7's own caches replace at random.
    random = cache is not None and target.core == "cortex-m7" and cache.sets > 1
    return _Reuse(cache, part.read_cycles(cache.line) if cache else 0, random)


def _nothing(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    return 0.0, 0.0


def _linear(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    rows, n, outputs = int(p["rows"]), int(p["input_c"]), int(p["output_c"])
    # Weights once a row; the row once for four outputs, with their weights.
    return (
        (rows - 1) * constants.swept(size, n + outputs),
        rows * max(0.0, outputs / 4 - 1) * data.swept(n, 4 * n),
    )


def _conv2d(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    positions, outputs = int(p["output_h"]) * int(p["output_w"]), int(p["output_c"])
    window = int(p["kernel_h"]) * int(p["kernel_w"]) * int(p["input_c"]) // int(p["groups"])
    return (
        (positions - 1) * constants.swept(size, window + outputs),
        positions * max(0.0, outputs / 4 - 1) * data.swept(window, 4 * window),
    )


def _depthwise_conv2d(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    positions, kernel = int(p["output_h"]) * int(p["output_w"]), int(p["kernel_h"]) * int(p["kernel_w"])
    window, outputs = kernel * int(p["input_c"]), int(p["output_c"])
    return (
        (positions - 1) * constants.swept(size, window + outputs),
        (positions - 1) * data.swept(window, size + outputs),
    )


def _matmul(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    batch, m, k, n = (int(p[name]) for name in ("batch", "m", "k", "n"))
    rows = 0.0 if m == 1 else batch * (m - 1) * data.swept(k * n, k + n)
    if p["transpose_b"] or data.cache is None:
        return 0.0, rows
    # Four columns at a time: each pass down b touches a line a row, of which the next passes use more.
    line = data.cache.line
    columns = data.scattered(np.arange(k) * n)
    fresh = min(4 / min(line, n), 1.0)
    return 0.0, batch * m * (n / 4) * (1 - fresh) * columns + rows * (1 - columns / k)


def _mean(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    outer, n, inner = (int(p[name]) for name in ("outer", "n", "inner"))
    return 0.0, outer * inner * (1 - _fresh(data, 1, inner)) * data.scattered(np.arange(n) * inner)


def _pooling(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    channels, width = int(p["channels"]), int(p["input_w"])
    rows, columns = np.arange(min(int(p["kernel_h"]), int(p["input_h"]))), np.arange(min(int(p["kernel_w"]), width))
    window = ((rows[:, None] * width + columns) * channels).ravel()
    pairs = int(p["output_h"]) * int(p["output_w"]) * channels / 2
    return 0.0, pairs * (1 - _fresh(data, 2, channels)) * data.scattered(window)


def _fresh(data: _Reuse, step: int, stride: int) -> float:
    """Share of passes, `step` bytes from one to the next, that begin new lines rather than going on in old ones."""
    return min(1.0, step / min(data.cache.line, stride)) if data.cache else 1.0


def _permuted(p: Params, size: int, constants: _Reuse, data: _Reuse) -> Again:
    dims, strides = ([int(v) for v in np.asarray(p[name])] for name in ("dims", "strides"))
    # Neighbours in memory are read one pass over the axes inside theirs apart.
    near = min(range(len(dims)), key=lambda axis: strides[axis])
    inside = list(zip(dims, strides, strict=True))[near + 1 :]
    if not inside:
        return 0.0, 0.0
    offsets = np.zeros(1, np.int64)
    for length, stride in inside:
        offsets = (offsets[:, None] + np.arange(length) * stride).ravel()
    return 0.0, math.prod(dims[: near + 1]) * (1 - _fresh(data, strides[near], min(s for _, s in inside))) * (
        data.scattered(offsets)
    )


_AGAIN: dict[str, Callable[[Params, int, _Reuse, _Reuse], Again]] = {
    "tnf_average_pool2d": _pooling,
    "tnf_conv2d": _conv2d,
    "tnf_depthwise_conv2d": _depthwise_conv2d,
    "tnf_linear": _linear,
    "tnf_matmul": _matmul,
    "tnf_max_pool2d": _pooling,
    "tnf_mean": _mean,
    "tnf_slice": _permuted,
    "tnf_transpose": _permuted,
}
