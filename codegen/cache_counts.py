"""Which cache lines a kernel reads, and which of them again since they did not stay: what it waits for.

A kernel goes over its weights once for each output position, and over some of its activations as often. What one pass
reads is still there in the next if it fits; of what does not fit, the share that is missed follows from how many lines
fall into one set and how the cache replaces them. Nothing more is known of the order of accesses here: the counts are
estimates, a fit gives each kernel's share of them, and its error says how far that goes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codegen.cache_reuse import Reuse, Sweep
from codegen.emit import KernelCall
from codegen.emit.base import SPARSE_FEW
from codegen.target import Target

Loops = Mapping[str, float]
"""How often a kernel's loops are entered and repeated, as `codegen.loop_counts` tells."""


@dataclass(frozen=True)
class _Again:
    """Lines that are missed in later passes.

    Attributes:
        constants: read.
        data: of activations, read.
        written: of activations: what they replace was mostly written as well, and goes back to memory first.
        filled, scratch: of scratch memory, written and read.
    """

    constants: float = 0.0
    data: float = 0.0
    written: float = 0.0
    filled: float = 0.0
    scratch: float = 0.0


def cache_counts(call: KernelCall, loops: Loops, activations: int, target: Target) -> dict[str, float]:
    """Cycles of waiting for the lines that one call of a kernel needs, first and again.

    Args:
        call: the kernel and its parameters.
        loops: what its loops do.
        activations: bytes of its inputs and output.
        target: that says how fast its memories are; activations lie at the end of its RAM, as the arena does.

    Raises:
        TargetError: the target does not say it.
    """
    constants, data = (_reuse(target, address) for address in (target.code.origin, target.data.end - 1))
    again = _AGAIN.get(call.kernel, _nothing)(call, loops, constants, data)
    return {
        "lines": constants.cycles(call.constant_bytes) + data.cycles(activations + call.scratch_bytes),
        "lines again": again.constants * constants.wait + again.data * data.wait,
        "lines written again": again.written * data.wait,
        "scratch filled again": again.filled * data.wait,
        "scratch read again": again.scratch * data.wait,
    }


def _reuse(target: Target, address: int) -> Reuse:
    part = next(part for part in target.memory_timing if part.origin <= address < part.end)
    cache = target.data_cache(part)
    # As in the simulation: a Cortex-M7's own caches replace at random.
    random = cache is not None and target.core == "cortex-m7" and cache.sets > 1
    return Reuse(cache, part.read_cycles(4) if cache else 0, random)


def _nothing(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    return _Again()


def _linear(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    p, size = call.params, call.constant_bytes
    rows, n, outputs = int(p["rows"]), int(p["input_c"]), int(p["output_c"])
    # Weights once a row; the row once for four outputs, with their weights.
    return _Again(
        (rows - 1) * constants.swept(size, n + outputs) * constants.together(n),
        rows * max(0.0, outputs / 4 - 1) * data.swept(n, 4 * n),
    )


def _conv2d(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    p, size = call.params, call.constant_bytes
    positions, outputs = int(p["output_h"]) * int(p["output_w"]), int(p["output_c"])
    window = int(p["kernel_h"]) * int(p["kernel_w"]) * int(p["input_c"]) // int(p["groups"])
    inside = _inside(call, loops)
    return _Again(
        max(0.0, positions * inside - 1) * constants.swept(size, window + outputs) * constants.together(window),
        positions * inside * max(0.0, outputs / 4 - 1) * data.swept(window, 4 * window),
    )


def _depthwise_conv2d(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    p, size = call.params, call.constant_bytes
    positions = int(p["output_h"]) * int(p["output_w"]) * _inside(call, loops)
    rows, columns = np.arange(int(p["kernel_h"]))[:, None], np.arange(int(p["kernel_w"]))
    width, inputs, outputs = int(p["input_w"]), int(p["input_c"]), int(p["output_c"])
    kernel = rows.size * columns.size
    # Four channels of the window at a time, whose lines the next four use too.
    weights, image = (rows * columns.size + columns) * outputs, (rows * width + columns) * inputs
    return _Again(
        constants.scattered(weights, positions * outputs / 4, 4, outputs)
        + max(0.0, positions - 1) * constants.swept(size, kernel * inputs + outputs),
        data.scattered(image, positions * outputs / 4, 4, inputs)
        + max(0.0, positions - 1) * data.swept(kernel * inputs, size + outputs),
    )


def _inside(call: KernelCall, loops: Loops) -> float:
    """Share of a convolution's weights that meet the image, and are read, at an output position."""
    products = 0.0
    for channels, name in ((4, "four channels: run"), (1, "one channel: run"), (1, "one channel: row")):
        rests = sum(rest * loops.get(f"{name}: rest of {rest}", 0.0) for rest in (1, 2, 3))
        products += channels * (4 * loops.get(f"{name}: 4 elements", 0.0) + rests)
    return (products + 4 * loops.get("four channels: taps", 0.0)) / call.macs


def _matmul(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    p = call.params
    batch, m, k, n = (int(p[name]) for name in ("batch", "m", "k", "n"))
    return _Again(data=batch * _product(m, k, n, bool(p["transpose_b"]), data))


def _product(m: int, k: int, n: int, transposed: bool, data: Reuse) -> float:
    # b once a row; not transposed, four columns of it at a time.
    columns = 0.0 if transposed else data.scattered(np.arange(k) * n, m * n / 4, 4, n)
    return max(columns, (m - 1) * data.swept(k * n, k + n))


def _attention(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    p = call.params
    batch, m, k, n, d = (int(p[name]) for name in ("batch", "m", "k", "n", "d"))
    # As its two products are, a few rows at a time: from one few to the next nothing stays that does not fit with all.
    scores = _product(m, k, n, bool(p["scores_transpose_b"]), data)
    return _Again(data=batch * (scores + _product(m, n, d, bool(p["context_transpose_b"]), data)))


def _mean(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    p = call.params
    outer, n, inner = (int(p[name]) for name in ("outer", "n", "inner"))
    at_once = 4 if call.kernel.endswith("_dsp") and inner > 1 else 1
    return _Again(data=data.scattered(np.arange(n) * inner, outer * inner / at_once, at_once, inner))


def _pooling(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    p = call.params
    channels, width = int(p["channels"]), int(p["input_w"])
    rows = np.arange(min(int(p["kernel_h"]), int(p["input_h"])))[:, None]
    columns = np.arange(min(int(p["kernel_w"]), width))
    at_once = 4 if call.kernel.endswith("_dsp") else 2
    passes = int(p["output_h"]) * int(p["output_w"]) * channels / at_once
    return _Again(data=data.scattered((rows * width + columns) * channels, passes, at_once, channels))


def _permuted(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    dims, strides = ([int(v) for v in np.asarray(call.params[name])] for name in ("dims", "strides"))
    # Neighbours in memory are read one pass over the axes inside theirs apart.
    near = min(range(len(dims)), key=lambda axis: strides[axis])
    inside = list(zip(dims, strides, strict=True))[near + 1 :]
    if not inside:
        return _Again()
    offsets = np.zeros(1, np.int64)
    for length, stride in inside:
        offsets = (offsets[:, None] + np.arange(length) * stride).ravel()
    passes = math.prod(dims[: near + 1])
    stride = min(stride for _, stride in inside)
    return _Again(data=data.scattered(offsets, passes, strides[near], stride, written=offsets.size))


@dataclass(frozen=True)
class _Tiles:
    """How a layer is computed a tile at a time.

    Attributes:
        rows: of the layer.
        tile_rows: of a tile.
        tile: bytes of a tile.
        sweeps: how often a tile is read: once for each pair of channels; sparse, as far as blocks are stored.
        shared: bytes of the input that a tile shares with those before and after it.
    """

    rows: int
    tile_rows: int
    tile: int
    sweeps: float
    shared: int

    @classmethod
    def of(cls, call: KernelCall) -> "_Tiles":
        p = call.params
        outputs, inputs = int(p["output_c"]), int(p["input_c"])
        if "rows" in p:
            rows, taps, window = int(p["rows"]), inputs, 0
        else:
            rows = int(p["output_h"]) * int(p["output_w"])
            kernel_h, kernel_w = int(p["kernel_h"]), int(p["kernel_w"])
            taps, window = kernel_h * kernel_w * inputs, kernel_h * inputs
        if call.sparse_block:
            tile_rows = 8 if rows > SPARSE_FEW else 1
            kept = min(1.0, call.work / max(1, call.macs))
            # A line holds the tile's rows of two elements; a block alone does not use both.
            sweeps = outputs * (1 - (1 - kept) ** 2 if call.sparse_block == 1 else kept)
        else:
            tile_rows, sweeps = 1 if rows == 1 else 4, outputs / 2
        shared = window * (int(p["kernel_w"]) + (tile_rows - 1) * int(p["stride_w"])) if window else 0
        return cls(rows, tile_rows, 2 * taps * tile_rows, sweeps, shared)

    @property
    def count(self) -> int:
        return -(-self.rows // self.tile_rows)


def _tiles(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    tiles, size = _Tiles.of(call), call.constant_bytes
    written = tiles.tile + tiles.tile_rows * int(call.params["output_c"])
    taps, weights = tiles.tile / 2 / tiles.tile_rows, size / max(1.0, tiles.sweeps)
    # Weights once a tile; the tile once for each of its rows, and for each few channels with their weights.
    again = tiles.count - 1
    return _Again(
        constants=again * constants.swept(size, written + tiles.shared),
        data=again * data.swept(tiles.shared, size + written),
        filled=tiles.count * (tiles.tile_rows - 1) * data.swept(tiles.tile, new=taps),
        scratch=tiles.count * tiles.sweeps * data.swept(tiles.tile, new=weights),
    )


def _depthwise_conv2d_strips(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    channels = int(call.params["channels"])
    # Four channels at a time: of the image into the plane; of each the plane to its sums, and those to the output.
    channel = (Sweep(_PLANE), Sweep(_PLANE), Sweep(_RESULT, data.new(1, channels)))
    cycle = (Sweep(_IMAGE, data.new(4, channels)), Sweep(_PLANE), *4 * channel)
    return _strips(call, loops["strips"], loops["groups"], cycle, constants, data)


def _depthwise_conv2d_sparse(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    # An input channel at a time, into the plane; of each output channel that reads it the plane, to the output.
    strips, inputs, outputs = loops["strips"], int(call.params["input_c"]), int(call.params["output_c"])
    channel = (Sweep(_PLANE), Sweep(_RESULT, data.new(1, outputs)))
    cycle = (Sweep(_IMAGE, data.new(1, inputs)), Sweep(_PLANE), *outputs // inputs * channel)
    return _strips(call, strips, strips * inputs, cycle, constants, data)


_IMAGE, _PLANE, _RESULT = range(3)
"""What a depthwise convolution that works in strips sweeps over."""


def _strips(
    call: KernelCall, strips: float, cycles: float, cycle: tuple[Sweep, ...], constants: Reuse, data: Reuse
) -> _Again:
    """A depthwise convolution in strips, each of which repeats a cycle of sweeps for a few channels."""
    image, result = _strip_offsets(call)
    weights = (strips - 1) * constants.swept(call.constant_bytes, call.scratch_bytes + image.size + result.size)
    if data.cache is None:
        return _Again(constants=weights)
    plane = np.full(data.cache.sets, call.scratch_bytes / data.cache.line / data.cache.sets)
    if 0 in call.in_place:
        # Over the image, whose lines are there.
        cycle = tuple(Sweep(_IMAGE) if sweep.buffer == _RESULT else sweep for sweep in cycle)
    missed = data.swept_in_turn((data.lines(image), plane, data.lines(result)), cycle)
    of_planes = [lines for lines, sweep in zip(missed, cycle, strict=True) if sweep.buffer == _PLANE]
    return _Again(
        constants=weights,
        data=cycles * missed[0],
        written=cycles * (sum(missed[1:]) - sum(of_planes)),
        filled=cycles * of_planes[0],
        scratch=cycles * sum(of_planes[1:]),
    )


def _strip_offsets(call: KernelCall) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where a strip's positions of one channel lie: of the image, and of the output behind it."""
    p = call.params
    strip, stride = int(p["strip"]), int(p["stride"])
    inputs, outputs = (int(p["channels"]),) * 2 if "channels" in p else (int(p["input_c"]), int(p["output_c"]))
    kernel_h = int(p["kernel_h"]) if "kernel_h" in p else 3
    rows, columns = int(p["input_h"]), int(p["input_w"])
    read = min((strip - 1) * stride + kernel_h, rows)
    written = min(strip, int(p["output_h"])) * int(p["output_w"])
    return np.arange(read * columns) * inputs, rows * columns * inputs + np.arange(written) * outputs


def _attention_dsp(call: KernelCall, loops: Loops, constants: Reuse, data: Reuse) -> _Again:
    batch, m, k, n, d = (int(call.params[name]) for name in ("batch", "m", "k", "n", "d"))
    # Packed keys and values once for four rows.
    return _Again(scratch=batch * (-(-m // 4) - 1) * (data.swept(k * n, 8 * k) + data.swept(n * d, 8 * n)))


_AGAIN: dict[str, Callable[[KernelCall, Loops, Reuse, Reuse], _Again]] = {
    "tnf_attention": _attention,
    "tnf_attention_dsp": _attention_dsp,
    "tnf_average_pool2d": _pooling,
    "tnf_average_pool2d_dsp": _pooling,
    "tnf_conv2d": _conv2d,
    "tnf_conv2d_dsp": _tiles,
    "tnf_conv2d_sparse": _tiles,
    "tnf_depthwise_conv2d": _depthwise_conv2d,
    "tnf_depthwise_conv2d_dsp": _depthwise_conv2d_strips,
    "tnf_depthwise_conv2d_sparse": _depthwise_conv2d_sparse,
    "tnf_linear": _linear,
    "tnf_linear_dsp": _tiles,
    "tnf_linear_sparse": _tiles,
    "tnf_matmul": _matmul,
    "tnf_max_pool2d": _pooling,
    "tnf_max_pool2d_dsp": _pooling,
    "tnf_mean": _mean,
    "tnf_mean_dsp": _mean,
    "tnf_slice": _permuted,
    "tnf_transpose": _permuted,
}
