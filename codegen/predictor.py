"""What an operator costs on a core, from its shape alone: a search asks thousands of times, too often to emulate.

An operator's cost is a sum over its kernel's loops: how often each is entered and repeated, times what that takes. The
counts follow from the loop nest of the C source and are exact; a function for each kernel gives them here, found by
the name in the `KernelCall`, so that `codegen.emit` stays the one place where kernels are chosen. What each count costs
is fitted on emulated runs by `tinyformer fit-predictor` and kept in `codegen/predictors/`, one file for each core, and
one for each target whose memories make the core wait. Costs are never negative: they are what a loop takes, and so
they hold beyond the shapes they were fitted on.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ckernels
from codegen.cache_counts import cache_counts
from codegen.emit import KernelCall, kernel_call
from codegen.emit.base import Params
from codegen.encoding import BLOCKS, GROUP
from codegen.target import CORES, DSP_CORES, Target
from refsim.errors import DataError, TargetError, located
from refsim.graph import Graph
from refsim.numerics import Int8Array, Rounding
from refsim.ops.base import Operator
from refsim.tensor import Shape

BUILT_IN = Path(__file__).parent / "predictors"
"""Folder of the fitted data that comes with the package."""

REFIT = "run `tinyformer fit-predictor`"


# ---- sparsity ----


@dataclass(frozen=True)
class Sparsity:
    """How a weight is pruned. A block is so many neighbouring elements of the weight's last axis.

    Attributes:
        block_size: elements of a block.
        blocks: all of them; a block cut short by the end of the axis counts.
        nonzero: those with an element that is not zero.
    """

    block_size: int
    blocks: int
    nonzero: int

    @classmethod
    def of(cls, weight: Int8Array, block_size: int = 1) -> "Sparsity":
        """The sparsity that a weight has."""
        rows = weight.reshape(-1, weight.shape[-1]) != 0
        blocks = rows[:, ::block_size].copy()
        for offset in range(1, min(block_size, rows.shape[1])):
            part = rows[:, offset::block_size]
            blocks[:, : part.shape[1]] |= part
        return cls(block_size, blocks.size, int(np.count_nonzero(blocks)))


# ---- the loops of each kernel ----

Terms = dict[str, float]
"""How often something happens in one call, by name."""

Count = Callable[[Params], Terms]
"""Counts one call of a kernel, from its parameters; the names are the same for every call."""

_KERNELS: dict[str, Count] = {}


def _kernel(name: str) -> Callable[[Count], Count]:
    """Register the counts of a kernel."""

    def register(count: Count) -> Count:
        _KERNELS[name] = count
        return count

    return register


def loop_counts(call: KernelCall) -> Terms:
    """How often each loop of a kernel is entered and repeated in one call.

    Raises:
        DataError: the kernel has no counts here.
    """
    if call.kernel not in _KERNELS:
        raise DataError(f"the predictor knows no kernel {call.kernel}; it knows {', '.join(sorted(_KERNELS))}")
    return {"calls": 1.0, **_KERNELS[call.kernel](call.params)}


def _loop(name: str, lengths: Any, times: float = 1.0) -> Terms:
    """A loop that is entered `times` for each of `lengths`.

    Compilers run four elements a pass, which only a loop of at least four enters, and the rest one by one.
    """
    array = np.atleast_1d(np.asarray(lengths, np.int64))
    rests = {f"{name}: rest of {rest}": float((array % 4 == rest).sum() * times) for rest in (1, 2, 3)}
    return {
        f"{name}: short": float((array < 4).sum() * times),
        f"{name}: long": float((array >= 4).sum() * times),
        f"{name}: 4 elements": float((array // 4).sum() * times),
        **rests,
    }


def _requantized(p: Params, outputs: float, shifts: Any = None) -> Terms:
    """Outputs by how the kernels requantise them: the shift decides, one a channel or one for all."""
    double = p["rounding"] == Rounding.DOUBLE
    short = float(np.mean(np.asarray(p["shift"] if shifts is None else shifts) < -1))
    return {
        "outputs: high word": 0.0 if double else outputs * short,
        "outputs: two words": 0.0 if double else outputs * (1 - short),
        "outputs: rounded twice": outputs if double else 0.0,
    }


def _windows(p: Params) -> tuple[NDArray[np.int64], NDArray[np.int64], Terms]:
    """How a window moves over an image.

    Returns:
        Positions inside the image, of each row and of each column of windows; how often windows are placed, and cut.
    """
    inside, before, after = [], [], []
    for axis, padding in (("h", "pad_top"), ("w", "pad_left")):
        starts = np.arange(_int(p, f"output_{axis}")) * _int(p, f"stride_{axis}") - _int(p, padding)
        dilation = _int(p, f"dilation_{axis}") if f"dilation_{axis}" in p else 1
        positions = starts[:, None] + np.arange(_int(p, f"kernel_{axis}")) * dilation
        inside.append(((positions >= 0) & (positions < _int(p, f"input_{axis}"))).sum(axis=1))
        before.append(int((starts < 0).sum()))
        after.append(int((positions[:, -1] >= _int(p, f"input_{axis}")).sum()))
    rows, columns = inside
    return (
        rows,
        columns,
        {
            "output rows": rows.size,
            "output positions": rows.size * columns.size,
            "windows cut before": before[0] + rows.size * before[1],
            "windows cut after": after[0] + rows.size * after[1],
        },
    )


def _walk(p: Params, dims: str = "dims") -> tuple[int, int, Terms]:
    """A walk over a shape row by row: length and number of the rows, and what stepping from row to row takes."""
    lengths = [int(n) for n in np.asarray(p[dims])]
    rows = math.prod(lengths[:-1])
    turns = sum(math.prod(lengths[:axis]) for axis in range(1, len(lengths) - 1))
    return lengths[-1], rows, {"axis turns": turns, **_loop("row: axes", len(lengths) - 1, rows)}


def _int(p: Params, name: str) -> int:
    return int(p[name])


@_kernel("tnf_linear")
def _linear(p: Params) -> Terms:
    rows, n, outputs = _int(p, "rows"), _int(p, "input_c"), _int(p, "output_c")
    quads, singles = divmod(outputs, 4)
    return {
        "rows": rows,
        **_loop("four outputs", n, rows * quads),
        **_loop("one output", n, rows * singles),
        **_requantized(p, rows * outputs),
    }


@_kernel("tnf_matmul")
def _matmul(p: Params) -> Terms:
    k, n, transposed = _int(p, "k"), _int(p, "n"), _int(p, "transpose_b")
    rows = _int(p, "batch") * _int(p, "m")
    quads, singles = divmod(n, 4)
    return {
        "matrices": _int(p, "batch"),
        "rows": rows,
        **_loop("row sum", k, rows * (p["b_zero_point"] != 0)),
        **_loop("four transposed columns", k, rows * quads * transposed),
        **_loop("one transposed column", k, rows * singles * transposed),
        **_loop("four columns", k - 1, rows * quads * (1 - transposed)),
        **_loop("one column", k, rows * singles * (1 - transposed)),
        **_requantized(p, rows * n),
    }


@_kernel("tnf_conv2d")
def _conv2d(p: Params) -> Terms:
    groups = _int(p, "groups")
    group_in, group_out = _int(p, "input_c") // groups, _int(p, "output_c") // groups
    rows, taps, windows = _windows(p)
    merged = groups == 1 and p["dilation_w"] == 1
    runs = taps[taps > 0] * group_in if merged else np.full(taps.sum(), group_in)
    quads, singles = divmod(group_out, 4)
    positions = rows.size * taps.size
    image_rows = float(rows.sum() * (taps > 0).sum())
    return {
        **windows,
        "groups": positions * groups,
        "four channels": positions * groups * quads,
        "four channels: rows": image_rows * groups * quads,
        **_loop("four channels: run", runs, float(rows.sum()) * groups * quads),
        "one channel": positions * groups * singles,
        "one channel: rows": image_rows * groups * singles,
        **_loop("one channel: run", runs, float(rows.sum()) * groups * singles),
        **_requantized(p, positions * groups * group_out),
    }


@_kernel("tnf_depthwise_conv2d")
def _depthwise_conv2d(p: Params) -> Terms:
    inputs, outputs = _int(p, "input_c"), _int(p, "output_c")
    rows, cols, windows = _windows(p)
    quads, singles = divmod(outputs, 4) if inputs == outputs else (0, outputs)
    positions = rows.size * cols.size
    cols = cols[cols > 0]
    return {
        **windows,
        "four channels": positions * quads,
        "four channels: rows": float(rows.sum() * cols.size) * quads,
        "four channels: taps": float(rows.sum() * cols.sum()) * quads,
        "input channels": positions * (inputs - 4 * quads),
        "one channel": positions * singles,
        **_loop("one channel: row", cols, float(rows.sum()) * singles),
        **_requantized(p, positions * outputs),
    }


def _pooling(p: Params) -> Terms:
    rows, cols, windows = _windows(p)
    pairs = -(-_int(p, "channels") // 2)
    positions = rows.size * cols.size
    return {
        **windows,
        "two channels": positions * pairs,
        **_loop("two channels: row", cols, float(rows.sum()) * pairs),
    }


_kernel("tnf_max_pool2d")(_pooling)
_kernel("tnf_average_pool2d")(_pooling)


@_kernel("tnf_softmax")
def _softmax(p: Params) -> Terms:
    rows, n = _int(p, "rows"), _int(p, "n")
    # An exponential is computed once for each difference to a row's maximum that occurs.
    occurs = 1 - (1 - _score_differences(n, rows > 1)) ** (rows * n)
    computed, products = _exponentials(p)
    return {
        "rows": rows,
        **_loop("row", n, rows),
        "exponentials: looked for": float(occurs.sum()),
        "exponentials": float((occurs * computed).sum()),
        "exponentials: products": float((occurs * computed * products).sum()),
    }


def _exponentials(p: Params) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of each difference to the maximum: whether its exponential is not 0, and the products that it takes."""
    differences = np.arange(256)
    # A product for each bit of the integer part in quarters.
    quarters = (differences * (_int(p, "multiplier") * 2.0 ** (_int(p, "shift") - 31 - 24))).astype(np.int64)
    products = np.sum([(quarters >> bit) & 1 for bit in range(7)], axis=0)
    return differences <= -_int(p, "diff_min"), products


def _score_differences(n: int, many: bool) -> NDArray[np.float64]:
    """Probability of each difference to the maximum of a row of `n`, where scores are normal and fill int8."""
    deviation = 36.0
    maximum = deviation * NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) if n > 1 else 0.0
    spread = math.hypot(deviation, deviation / 3) if many else deviation  # the maximum is another in each row
    density = np.exp(-0.5 * ((np.arange(256) - maximum) / spread) ** 2)
    probabilities: NDArray[np.float64] = density / density.sum()
    return probabilities


@_kernel("tnf_attention")
def _attention(p: Params) -> Terms:
    return _joined(p, _matmul, _softmax)


def _joined(p: Params, matmul: Count, softmax: Count) -> Terms:
    """What the three operators of attention count, each with its name before it."""
    batch, m, n = (_int(p, name) for name in ("batch", "m", "n"))
    parts = {
        "scores": matmul({**p, **_own(p, "scores"), "columns": n}),
        "softmax": softmax({"rows": batch * m, "n": n, **_own(p, "softmax")}),
        "context": matmul({**p, **_own(p, "context"), "k": n, "n": p["d"], "columns": p["d"]}),
    }
    return {
        "tiles": batch * -(-m // _int(p, "tile_rows")),
        **{f"{part}: {name}": count for part, terms in parts.items() for name, count in terms.items()},
    }


def _own(p: Params, operator: str) -> Params:
    """The parameters of one of several operators that a kernel joins."""
    return {name.removeprefix(f"{operator}_"): value for name, value in p.items() if name.startswith(f"{operator}_")}


@_kernel("tnf_layernorm")
def _layernorm(p: Params) -> Terms:
    rows, n = _int(p, "rows"), _int(p, "n")
    return {"rows": rows, **_loop("row", n, rows), **_requantized(p, rows * n)}


@_kernel("tnf_add")
def _add(p: Params) -> Terms:
    n, rows, walk = _walk(p)
    double = p["rounding"] == Rounding.DOUBLE
    # What add.c calls the usual case.
    strides = int(np.asarray(p["a_strides"])[-1]), int(np.asarray(p["b_strides"])[-1])
    shifts = _int(p, "a_shift") <= 0 and _int(p, "b_shift") <= 0 and _int(p, "output_shift") < -1
    usual = strides == (1, 1) and not double and shifts
    stages = [int(_int(p, f"{name}_shift") >= -1) for name in ("a", "b", "output")]
    return {
        **walk,
        **_loop("contiguous", n, rows * usual),
        **_loop("any stride", n, rows * (not usual)),
        "any stride: two words": 0.0 if usual or double else rows * n * sum(stages),
        "any stride: rounded twice": rows * n if double else 0.0,
    }


@_kernel("tnf_mul")
def _mul(p: Params) -> Terms:
    n, rows, walk = _walk(p)
    return {**walk, **_loop("row", n, rows), **_requantized(p, rows * n)}


@_kernel("tnf_requantize")
def _requantize(p: Params) -> Terms:
    return {**_loop("elements", _int(p, "size")), **_requantized(p, _int(p, "size"))}


@_kernel("tnf_mean")
def _mean(p: Params) -> Terms:
    outputs = _int(p, "outer") * _int(p, "inner")
    return {"outer": _int(p, "outer"), **_loop("output", _int(p, "n"), outputs), **_requantized(p, outputs)}


@_kernel("tnf_lookup")
def _lookup(p: Params) -> Terms:
    return _loop("elements", _int(p, "size"))


@_kernel("tnf_reshape")
def _reshape(p: Params) -> Terms:
    return _loop("elements", _int(p, "size"))


@_kernel("tnf_transpose")
def _transpose(p: Params) -> Terms:
    n, rows, walk = _walk(p)
    return {**walk, **_loop("row", n, rows)}


@_kernel("tnf_slice")
def _slice(p: Params) -> Terms:
    n, rows, walk = _walk(p)
    contiguous = int(np.asarray(p["strides"])[-1]) == 1
    return {
        **walk,
        **_loop("contiguous", n, rows * contiguous),
        **_loop("strided", n, rows * (not contiguous)),
    }


@_kernel("tnf_pad")
def _pad(p: Params) -> Terms:
    n, rows, walk = _walk(p, "output_dims")
    sizes, results, befores = (np.asarray(p[name]) for name in ("input_dims", "output_dims", "before"))
    inside = np.ones((1,) * max(len(sizes) - 1, 1), bool)
    for axis in range(len(sizes) - 1):
        at = np.arange(results[axis]) - befores[axis]
        inside = inside & ((at >= 0) & (at < sizes[axis])).reshape([-1 if i == axis else 1 for i in range(inside.ndim)])
    starts = np.arange(rows) * n
    copied, padding = starts[inside.ravel()], starts[~inside.ravel()]
    width, before = int(sizes[-1]), int(befores[-1])
    return {
        **walk,
        **_loop("copied", width, copied.size),
        **_filled("before", copied, before),
        **_filled("after", copied + before + width, n - before - width),
        **_filled("row", padding, n),
    }


def _filled(name: str, starts: NDArray[np.int64], length: int) -> Terms:
    """Bytes set to one value: words where the address allows it, in a tensor that begins at one of a word."""
    aligned, others = int((starts % 4 == 0).sum()), int((starts % 4 != 0).sum())
    return {
        f"{name}: filled": starts.size * (length > 0),
        f"{name}: 16 bytes": aligned * (length // 16),
        f"{name}: words": aligned * (length % 16 // 4),
        f"{name}: bytes": aligned * (length % 4) + others * length,
    }


@_kernel("tnf_concat")
def _concat(p: Params) -> Terms:
    outer, chunks = _int(p, "outer"), np.asarray(p["chunk"])
    rescaled = np.asarray(p["rescale"]) != 0
    shifts, double = np.asarray(p["shift"])[rescaled], p["rounding"] == Rounding.DOUBLE
    elements = chunks[rescaled] * outer
    return {
        "outer": outer,
        "chunks": outer * chunks.size,
        **_loop("copied", chunks[~rescaled], outer),
        **_loop("rescaled", chunks[rescaled], outer),
        "rescaled: two words": 0.0 if double else float(elements[shifts >= -1].sum()),
        "rescaled: rounded twice": float(elements.sum()) if double else 0.0,
    }


# ---- the loops of the kernels for cores with the DSP extension ----


def _steps(name: str, lengths: Any, times: float = 1.0, step: int = 4) -> Terms:
    """Loops over `lengths`, each entered `times`, that take `step` elements a pass and then the rest one by one."""
    array = np.atleast_1d(np.asarray(lengths, np.int64))
    return {
        f"{name}: {step} elements": float((array // step).sum() * times),
        f"{name}: rests": float((array % step > 0).sum() * times),
        f"{name}: rest": float((array % step).sum() * times),
    }


def _rows(name: str, n: int, times: float) -> Terms:
    """As `_steps` for rows that lie one after the other, of which most are not aligned unless their length is."""
    return {**_steps(name, n, times), f"{name}: 4 elements, unaligned": times * (n // 4) * (n % 4 > 0)}


_TILE_CHANNELS = 16
"""Channels between two visits to a tile's sums: TNF_TILE_PAIRS pairs."""


def _tile_rows(name: str, times: float, n: int) -> Terms:
    """Rows of n bytes that are put into a tile."""
    return {
        name: times,
        f"{name}: 8 elements": times * (n // 8),
        f"{name}: 8 elements, unaligned": times * (n // 8) * (n % 4 > 0),
        f"{name}: 4 elements": times * (n % 8 >= 4),
        f"{name}: rests": times * (n % 4 > 0),
    }


def _tile_sums(visits: float, pairs: float, taps: int) -> Terms:
    """Sums of tiles: the loop takes four quads of taps, and is entered behind those that are missing."""
    quads = -(-taps // 4)
    return {
        "tile sums": visits,
        "tile sums: pairs": pairs,
        "tile sums: 4 quads": pairs * -(-quads // 4),
        "tile sums: quads": pairs * quads,
    }


def _tile_layer(p: Params, rows: int, taps: int) -> Terms:
    """A dense layer in tiles of four rows; one row that is left over is alone."""
    channels = _int(p, "output_c")
    visits, pairs = -(-channels // _TILE_CHANNELS), -(-channels // 2)
    whole, left = divmod(rows, 4)
    single, tiles = int(left == 1), whole + (left > 1)
    # Whole tiles are finished quickly, and of those whose outputs may be any int8 pairs of channels in registers.
    quick = whole * _int(p, "quick")
    in_registers = channels // 2 if (p["act_min"], p["act_max"]) == (-128, 127) else 0
    stored = channels - 2 * in_registers
    quick_visits = (in_registers > 0) - (-stored // _TILE_CHANNELS)
    return {
        "tiles": tiles,
        **_tile_rows("tile rows", 4 * tiles, taps),
        **_tile_sums(quick * quick_visits + (tiles - quick) * visits, tiles * pairs, taps),
        "pairs in registers": quick * in_registers,
        "quick channels": quick * stored,
        **_tile_rows("one row", single, taps),
        "one row: sums": single * visits,
        **_loop("one row: quads", -(-taps // 4), single * pairs),
        "channels": (tiles - quick + single) * channels,
        **_requantized(p, (rows - 4 * quick) * channels, _shifts(p)),
    }


def _shifts(p: Params) -> NDArray[np.int64]:
    """Of each channel the shift, from its record: see `tile_layer_params` of `codegen.emit.base`."""
    return np.asarray(p["channel"]).reshape(-1, 3)[:, 2].astype(np.int64)


@_kernel("tnf_linear_dsp")
def _linear_dsp(p: Params) -> Terms:
    return _tile_layer(p, _int(p, "rows"), _int(p, "input_c"))


@_kernel("tnf_conv2d_dsp")
def _conv2d_dsp(p: Params) -> Terms:
    rows, taps, windows = _windows(p)
    channels, width = _int(p, "input_c"), _int(p, "kernel_w")
    positions = rows.size * taps.size
    met, columns = float(rows.sum()), taps[taps > 0]
    # What of a row is outside the image is filled in, on its left and on its right.
    left = _before(p, "w", "pad_left")[taps > 0]
    runs = columns * channels if p["dilation_w"] == 1 else np.full(columns.sum(), channels)
    outside = positions * _int(p, "kernel_h") - met * columns.size
    return {
        **windows,
        "rows": met * columns.size,
        "copied": met * runs.size,
        **_steps("copied", runs, met),
        **_steps("filled", np.concatenate([left, width - columns - left]) * channels, met),
        "outside": outside,
        **_steps("outside", width * channels, outside),
        **_tile_layer(p, positions, _int(p, "kernel_h") * width * channels),
    }


def _before(p: Params, axis: str, padding: str) -> NDArray[np.int64]:
    """Positions of each window before the image."""
    starts = np.arange(_int(p, f"output_{axis}")) * _int(p, f"stride_{axis}") - _int(p, padding)
    before: NDArray[np.int64] = np.clip(-(starts // _int(p, f"dilation_{axis}")), 0, _int(p, f"kernel_{axis}"))
    return before


@_kernel("tnf_depthwise_conv2d_dsp")
def _depthwise_conv2d_dsp(p: Params) -> Terms:
    height, width, channels, stride = (_int(p, name) for name in ("output_h", "output_w", "channels", "stride"))
    outputs = np.array([min(_int(p, "strip"), height - first) for first in range(0, height, _int(p, "strip"))])
    pairs = -(-outputs // 2)
    # Rows of the image that a strip reads, above it, in it and below it.
    rows = (2 * pairs - 1) * stride + 3
    tops = np.arange(outputs.size) * _int(p, "strip") * stride - _int(p, "pad_top")
    above = np.clip(-tops, 0, rows)
    inside = np.clip(_int(p, "input_h") - tops, above, rows) - above
    parts = sum(int((part > 0).sum()) for part in (above, inside, rows - above - inside))
    columns = -(-width // 2) if stride == 1 else width
    groups, lanes = -(-channels // 4), 4 * -(-channels // 4)
    by_pairs, by_windows = lanes * (stride == 1), lanes * (stride == 2)
    quick, others = lanes * _int(p, "quick"), lanes * (1 - _int(p, "quick"))
    clamped = _int(p, "quick") * ((p["act_min"], p["act_max"]) != (-128, 127))
    strips, row_pairs, output_rows = outputs.size, int(pairs.sum()), int(outputs.sum())
    return {
        "strips": strips,
        "groups": groups * strips,
        "plane: columns": groups * (columns + 1) * strips,
        "plane: parts": groups * (columns + 1) * parts,
        "plane: rows": groups * (columns + 1) * float(rows.sum()),
        "pairs": by_pairs * strips,
        "pairs: columns": by_pairs * columns * strips,
        "pairs: pairs of rows": by_pairs * columns * row_pairs,
        "windows": by_windows * strips,
        "windows: columns": by_windows * columns * strips,
        "windows: pairs of rows": by_windows * columns * row_pairs,
        "quick": quick * strips,
        "quick: columns": quick * (width // 2) * strips,
        "quick: pairs of rows": quick * (width // 2) * row_pairs,
        "quick: last column": quick * (width % 2) * output_rows,
        **_steps("clamped", outputs * width * channels, clamped),
        "rows of outputs": others * output_rows,
        **_requantized(p, others * output_rows * width),
    }


@_kernel("tnf_matmul_dsp")
def _matmul_dsp(p: Params) -> Terms:
    batch, m, k, n, most = (_int(p, name) for name in ("batch", "m", "k", "n", "columns"))
    columns = np.array([min(most, n - first) for first in range(0, n, most)])
    pairs, quads = int(np.sum(-(-columns // 2))), -(-k // 4)
    visits = int(np.sum(-(-columns // _TILE_CHANNELS)))
    tiles = batch * -(-m // 4)
    quick = batch * (m // 4) * _int(p, "quick")
    return {
        "matrices": batch,
        "packed": batch * columns.size,
        "packed: pairs": batch * pairs,
        "packed: quads": batch * pairs * (k // 4),
        "packed: rests": batch * pairs * (k % 4 > 0),
        "tiles": tiles * columns.size,
        **_tile_rows("tile rows", 4 * tiles * columns.size, k),
        "corrections": tiles * columns.size * (p["b_zero_point"] != 0),
        "corrections: quads": tiles * columns.size * (p["b_zero_point"] != 0) * quads,
        **_tile_sums(tiles * visits, tiles * pairs, k),
        "quick": quick * visits,
        "quick: columns": quick * n,
        "columns": (tiles - quick) * n,
        **_requantized(p, (batch * m - 4 * quick) * n),
    }


def _pooling_dsp(p: Params) -> Terms:
    rows, cols, windows = _windows(p)
    quads, singles = divmod(_int(p, "channels"), 4)
    positions = rows.size * cols.size
    image_rows = float(rows.sum())
    return {
        **windows,
        "four channels": positions * quads,
        **_loop("four channels: row", cols, image_rows * quads),
        "one channel": positions * singles,
        **_loop("one channel: row", cols, image_rows * singles),
    }


_kernel("tnf_max_pool2d_dsp")(_pooling_dsp)
_kernel("tnf_average_pool2d_dsp")(_pooling_dsp)


@_kernel("tnf_softmax_dsp")
def _softmax_dsp(p: Params) -> Terms:
    rows, n = _int(p, "rows"), _int(p, "n")
    # The whole table is computed, once a call.
    computed, products = _exponentials(p)
    return {
        "rows": rows,
        "row: 16 elements": rows * (n // 16),
        "row: words left": rows * (n % 16 // 4),
        **_rows("row", n, rows),
        "exponentials": float(computed.sum()),
        "exponentials: products": float((computed * products).sum()),
    }


@_kernel("tnf_attention_dsp")
def _attention_dsp(p: Params) -> Terms:
    return _joined(p, _matmul_dsp, _softmax_dsp)


@_kernel("tnf_layernorm_dsp")
def _layernorm_dsp(p: Params) -> Terms:
    rows, n = _int(p, "rows"), _int(p, "n")
    clamped = rows * ((p["act_min"], p["act_max"]) != (-128, 127))
    return {"rows": rows, **_rows("row", n, rows), "clamped": clamped, **_rows("clamped", n, clamped)}


def _words_and_rest(p: Params) -> Terms:
    return _steps("elements", _int(p, "size"))


_kernel("tnf_add_dsp")(_words_and_rest)
_kernel("tnf_mul_dsp")(_words_and_rest)


@_kernel("tnf_lookup_dsp")
def _lookup_dsp(p: Params) -> Terms:
    return _steps("elements", _int(p, "size"), step=8)


@_kernel("tnf_requantize_dsp")
def _requantize_dsp(p: Params) -> Terms:
    return {**_lookup_dsp(p), **_requantized(p, 256)}


# ---- the loops of the kernels that leave zeros out ----

_SPARSE_ROWS, _SPARSE_SUMS = 8, 8
"""Rows of a tile, and channels between two visits to its sums: TNF_SPARSE_ROWS and TNF_SPARSE_SUMS."""


def _sparse_layer(p: Params, rows: int) -> Terms:
    """A sparse layer in tiles of eight rows, of which some may be missing: they are computed too."""
    tiles, channels, block = -(-rows // _SPARSE_ROWS), _int(p, "output_c"), _int(p, "block")
    blocks, shifts = _sparse_channels(p)
    whole = rows // _SPARSE_ROWS if p["quick"] and (p["act_min"], p["act_max"]) == (-128, 127) else 0
    others = (rows - _SPARSE_ROWS * whole) * channels
    sizes: Terms = {}
    for size in BLOCKS:
        times = tiles * (block == size)
        sizes |= {
            f"blocks of {size}": times * float(blocks.sum()),
            f"blocks of {size}: groups": times * float((-(-blocks // GROUP)).sum()),
            f"blocks of {size}: parts of groups": times * float((blocks % GROUP > 0).sum()),
        }
    return {
        "tiles": tiles,
        "channels: with blocks": tiles * float((blocks > 0).sum()),
        **sizes,
        "visits": (tiles - whole) * -(-channels // _SPARSE_SUMS),
        "channels: finished at once": whole * channels,
        "channels: finished apart": (tiles - whole) * channels,
        "outputs: quick": others * _int(p, "quick"),
        **_requantized(p, others * (not p["quick"]), shifts),
    }


def _sparse_channels(p: Params) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each channel the blocks that are stored, and the shift: see `sparse_layer_params` of `codegen.emit.base`."""
    counts = np.asarray(p["channel"]).reshape(-1, 3)[:, 2].astype(np.int64)
    return counts >> 8, (counts & 255).astype(np.uint8).astype(np.int8).astype(np.int64)


def _sparse_fill(p: Params, times: float) -> Terms:
    """The channels of `times` positions, widened into a tile."""
    n = _int(p, "input_c")
    of_1, of_2, of_4 = (times * (p["block"] == size) for size in (1, 2, 4))
    return {
        "filled, blocks of 1": of_1,
        "filled, blocks of 1: elements": of_1 * n,
        **_tile_rows("filled, blocks of 2", of_2, n),
        **_tile_rows("filled, blocks of 4", of_4, n),
    }


@_kernel("tnf_linear_sparse")
def _linear_sparse(p: Params) -> Terms:
    rows = _int(p, "rows")
    return {**_sparse_fill(p, -(-rows // _SPARSE_ROWS) * _SPARSE_ROWS), **_sparse_layer(p, rows)}


@_kernel("tnf_conv2d_sparse")
def _conv2d_sparse(p: Params) -> Terms:
    rows, taps, _ = _windows(p)
    positions, kernel_h = rows.size * taps.size, _int(p, "kernel_h")
    missing = -positions % _SPARSE_ROWS  # rows of the last tile, in which its last window is repeated
    windows = positions + missing
    inside = float(rows.sum() * taps.sum() + missing * rows[-1] * taps[-1])
    outside = windows * kernel_h * _int(p, "kernel_w") - inside
    block, channels = _int(p, "block"), _int(p, "input_c")
    return {
        "windows": windows,
        "windows: rows": windows * kernel_h,
        **_sparse_fill(p, inside),
        "outside": outside,
        "outside: elements": outside * channels * (block == 1),
        "outside: words": outside * -(-channels // block) * (block // 2),
        **_sparse_layer(p, positions),
    }


# ---- predictions ----


@dataclass(frozen=True)
class Prediction:
    """What one run of an operator, or of a model, costs.

    Attributes:
        cycles: at zero wait states.
        instructions: executed.
        waits: cycles more for which the core waits for the target's memories; None where no fit knows them.
    """

    cycles: float
    instructions: float
    waits: float | None = None


@dataclass(frozen=True)
class GraphPrediction:
    """What one run of a model costs.

    Attributes:
        nodes: by the node's name, in execution order.
    """

    nodes: Mapping[str, Prediction]

    @property
    def total(self) -> Prediction:
        """The sum over the nodes."""
        nodes = self.nodes.values()
        waits = [node.waits for node in nodes if node.waits is not None]
        return Prediction(
            sum(node.cycles for node in nodes),
            sum(node.instructions for node in nodes),
            sum(waits) if len(waits) == len(nodes) else None,
        )


@dataclass(frozen=True)
class HeldOutError:
    """Relative errors on shapes that a fit has not seen, as fractions.

    Attributes:
        samples: how many.
        median, percentile90, worst: of the errors' magnitudes.
    """

    samples: int
    median: float
    percentile90: float
    worst: float


@dataclass(frozen=True)
class Fit:
    """What each count costs: of a core at zero wait states, or what a target's memories add.

    Attributes:
        name: of the core or target.
        compiler: that built the kernels, with its version and options.
        kernels: hash of the kernels' sources, see `kernels_hash`.
        memories: hash of how fast the target's memories are, see `memories_hash`; empty for a core.
        seed: of the samples.
        costs: metric -> kernel -> cost of each count: of `loop_counts`, and of `cache_counts` too for a target.
        errors: metric -> kernel -> error on shapes held out; that of "waits" is of all cycles.
    """

    name: str
    compiler: str
    kernels: str
    memories: str
    seed: int
    costs: Mapping[str, Mapping[str, Mapping[str, float]]]
    errors: Mapping[str, Mapping[str, HeldOutError]]

    def cost(self, metric: str, kernel: str, counts: Mapping[str, float]) -> float:
        """What counts of a kernel cost.

        Raises:
            DataError: the fit does not know the kernel, or knows other counts of it.
        """
        costs = self.costs[metric].get(kernel)
        if costs is None or costs.keys() != counts.keys():
            raise DataError(f"the predictor of {self.name} was fitted without {kernel} as it is now: {REFIT}")
        return sum(costs[name] * count for name, count in counts.items())

    def as_json(self) -> str:
        """The contents of its file."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Predictor:
    """Predicts what operators and models cost.

    Attributes:
        core: fit of the core.
        waits: fit of the target's memories, or None.
        target: whose memories; None where `waits` is.
    """

    core: Fit
    waits: Fit | None = None
    target: Target | None = None

    def predict(self, op: Operator, shapes: tuple[Shape, ...], sparsity: Sparsity | None = None) -> Prediction:
        """See `predict`."""
        call = self._kernel_call(op if sparsity is None else _pruned(op, sparsity), shapes)
        return self.predict_call(call, _activations(op, shapes))

    def predict_call(self, call: KernelCall, activations: int) -> Prediction:
        """What one call of a kernel costs, whose inputs and output have so many bytes; see `predict`."""
        counts = loop_counts(call)
        cycles, instructions = (self.core.cost(metric, call.kernel, counts) for metric in ("cycles", "instructions"))
        waits = None
        if self.waits is not None and self.target is not None:
            waits = self.waits.cost("waits", call.kernel, counts | cache_counts(call, counts, activations, self.target))
        return Prediction(cycles, instructions, waits)

    def predict_graph(self, graph: Graph) -> GraphPrediction:
        """See `predict_graph`."""
        nodes = {}
        for node in graph.nodes:
            with located(f"node {node.name!r} ({node.op.name})"):
                shapes = tuple(graph.tensors[tensor].shape for tensor in node.inputs)
                call = self._kernel_call(node.op, shapes)
                # The planner lays a view over its input, so that it runs no code.
                activations = _activations(node.op, shapes)
                nodes[node.name] = _NOTHING if call.view else self.predict_call(call, activations)
        return GraphPrediction(nodes)

    def _kernel_call(self, op: Operator, shapes: tuple[Shape, ...]) -> KernelCall:
        """The call that is generated for the core."""
        return kernel_call(op, shapes, dsp=self.core.name in DSP_CORES)


def _activations(op: Operator, shapes: tuple[Shape, ...]) -> int:
    """Bytes of an operator's inputs and output."""
    return sum(map(math.prod, (*shapes, op.output_shape(*shapes))))


def _pruned(op: Operator, sparsity: Sparsity) -> Operator:
    """The operator with its weight pruned as told; as it is where it has none.

    Raises:
        DataError: the weight has another number of blocks.
    """
    if not hasattr(op, "weight"):
        return op
    weighted: Any = op
    weight: Int8Array = weighted.weight
    size = sparsity.block_size
    rows = math.prod(weight.shape[:-1])
    blocks = -(-weight.shape[-1] // size)
    if rows * blocks != sparsity.blocks:
        raise DataError(
            f"the sparsity is of {sparsity.blocks} blocks; weight {weight.shape} has {rows * blocks} of {size}"
        )
    kept = np.arange(sparsity.blocks) < sparsity.nonzero
    np.random.default_rng(0).shuffle(kept)
    mask = np.repeat(kept.reshape(rows, blocks), size, axis=1)[:, : weight.shape[-1]]
    pruned: Operator = replace(weighted, weight=mask.reshape(weight.shape).astype(np.int8))
    return pruned


_NOTHING = Prediction(0.0, 0.0, 0.0)


def read_fit(path: Path) -> Fit:
    """Read a fit and check that it is one of the kernels as they are.

    Raises:
        DataError: the file is unreadable, malformed, or was fitted for other kernels.
    """
    with located(str(path)):
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            table["errors"] = {
                metric: {kernel: HeldOutError(**error) for kernel, error in kernels.items()}
                for metric, kernels in table["errors"].items()
            }
            fit = Fit(**table)
        except OSError as error:
            raise DataError(f"this fit of the predictor cannot be read ({error.strerror}): {REFIT}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"this is no fit of the predictor ({error}): {REFIT}") from error
        if fit.kernels != kernels_hash():
            raise DataError(f"the predictor of {fit.name} was fitted for other kernels: {REFIT}")
    return fit


@functools.cache
def load_predictor(target: Target | str) -> Predictor:
    """The predictor for a target, or for a core at zero wait states, from the fits that come with the package.

    Args:
        target: a target, or a core's name.

    Raises:
        TargetError: there is no fit of the core.
        DataError: a fit is of other kernels or of other memories, or is malformed.
    """
    core = target if isinstance(target, str) else target.core
    known = [name for name in CORES if (BUILT_IN / f"{name}.json").exists()]
    if core not in known:
        raise TargetError(f"there is no predictor for {core!r}; there is one for {', '.join(known) or 'no core'}")
    fit = read_fit(BUILT_IN / f"{core}.json")
    path = BUILT_IN / f"{getattr(target, 'name', None)}.json"
    if isinstance(target, str) or not path.exists():
        return Predictor(fit)
    waits = read_fit(path)
    if waits.memories != memories_hash(target):
        raise DataError(f"{path}: the predictor of {target.name} was fitted for memories of another speed: {REFIT}")
    return Predictor(fit, waits, target)


def predict(
    op: Operator, shapes: tuple[Shape, ...], target: Target | str, *, sparsity: Sparsity | None = None
) -> Prediction:
    """What an operator costs, without emulation.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        target: a target, or a core's name for zero wait states alone.
        sparsity: to which the weight is taken to be pruned, its blocks at random; `op.weight` as it is by default.
            It decides whether the weight is encoded as sparse, and what that costs; operators without one ignore it.

    Raises:
        TargetError: there is no predictor for the core.
        DataError: it was fitted for other kernels, or for memories of another speed; or the weight has not as many
            blocks as the sparsity.
        UnsupportedError: no kernel runs the operator.
    """
    return load_predictor(target).predict(op, shapes, sparsity)


def predict_graph(graph: Graph, target: Target | str) -> GraphPrediction:
    """What a model costs, node by node; what calls the kernels, some twenty cycles a node, is left out.

    Args:
        graph: the model.
        target: a target, or a core's name for zero wait states alone.

    Raises:
        TargetError: there is no predictor for the core.
        DataError: it was fitted for other kernels, or for memories of another speed.
        UnsupportedError: naming the node that no kernel runs.
    """
    return load_predictor(target).predict_graph(graph)


@functools.cache
def kernels_hash() -> str:
    """SHA-256 over the kernels' sources and headers, hexadecimal: fits are for these."""
    digest = hashlib.sha256()
    for path in (*ckernels.headers(), *ckernels.sources().values()):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def memories_hash(target: Target) -> str:
    """SHA-256 over how fast a target's memories are, hexadecimal."""
    caches = [replace(cache, source="") for cache in target.caches]
    parts = [replace(part, source="") for part in target.memory_timing]
    return hashlib.sha256(repr((caches, parts)).encode()).hexdigest()
