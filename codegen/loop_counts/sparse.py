"""The layers of the kernels that leave zeros out, computed in tiles of eight rows."""

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import SPARSE_ROWS, Params, quick_channels, sparse_single_rows
from codegen.encoding import BLOCKS, GROUP
from codegen.loop_counts.base import Terms, integer, requantized
from codegen.loop_counts.tiles import tile_rows
from refsim.numerics import Rounding

_SPARSE_SUMS = 8
"""Channels between two visits to a tile's sums: TNF_SPARSE_SUMS."""


def sparse_layer(p: Params, rows: int) -> Terms:
    """A sparse layer in tiles of eight rows; those missing from one are computed too, and few that are left alone."""
    tiles, single = sparse_tiles(rows)
    channels, block, double = integer(p, "output_c"), integer(p, "block"), p["rounding"] == Rounding.DOUBLE
    blocks, shifts = sparse_channels(p)
    quick = quick_channels(shifts, integer(p, "rounding"))
    whole, served = rows // SPARSE_ROWS, int(quick.sum())
    part = rows - SPARSE_ROWS * whole - single  # rows of a tile that is not whole
    runs = np.split(quick, np.flatnonzero(np.diff(quick)) + 1)
    visits = sum(1 if run[0] else -(-run.size // _SPARSE_SUMS) for run in runs)
    clamped = (SPARSE_ROWS * whole + part) * channels
    above, below = p["act_max"] != 127, p["act_min"] != -128
    at_once = single * channels * bool(p["quick"]) * (not double)
    apart = part + single - single * bool(at_once)
    sizes: Terms = {}
    for size in BLOCKS:
        for kind, visited in (("", tiles), ("single row, ", single)):
            times = visited * (block == size)
            sizes |= {
                f"{kind}blocks of {size}": times * float(blocks.sum()),
                f"{kind}blocks of {size}: groups": times * float((-(-blocks // GROUP)).sum()),
                f"{kind}blocks of {size}: parts of groups": times * float((blocks % GROUP > 0).sum()),
            }
    return {
        "tiles": tiles,
        "channels: with blocks": tiles * float((blocks > 0).sum()),
        **sizes,
        "visits": whole * visits + (part > 0) * -(-channels // _SPARSE_SUMS),
        "channels: finished at once": whole * served * (not double),
        "channels: finished at once, rounded twice": whole * served * double,
        "channels: finished apart": whole * (channels - served) + (part > 0) * channels,
        "clamped from above: 8 elements": clamped // 8 * above,
        "clamped from below: 8 elements": clamped // 8 * (below and not above),
        "clamped: rests": clamped % 8 * (above or below),
        "single rows": single,
        "single rows: channels": single * channels,
        "single rows: channels with blocks": single * float((blocks > 0).sum()),
        "single rows: at once": at_once,
        "outputs: quick": apart * served * (not double),
        "outputs: quick, rounded twice": apart * served * double,
        **requantized(
            p, (SPARSE_ROWS * whole + apart) * (channels - served), shifts if served == channels else shifts[~quick]
        ),
    }


def sparse_tiles(rows: int) -> tuple[int, int]:
    """Tiles of a layer, and rows that are alone."""
    single = sparse_single_rows(rows)
    return -(-(rows - single) // SPARSE_ROWS), single


def sparse_channels(p: Params) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each channel the blocks that are stored, and the shift: see `sparse_layer_params` of `codegen.emit.base`."""
    counts = np.asarray(p["channel"]).reshape(-1, 3)[:, 2].astype(np.int64)
    return counts >> 8, (counts & 255).astype(np.uint8).astype(np.int8).astype(np.int64)


def sparse_fill(p: Params, times: float) -> Terms:
    """The channels of `times` positions, widened into a tile."""
    n = integer(p, "input_c")
    of_1, of_2, of_4 = (times * (p["block"] == size) for size in (1, 2, 4))
    return {
        "filled, blocks of 1": of_1,
        "filled, blocks of 1: elements": of_1 * n,
        **tile_rows("filled, blocks of 2", of_2, n),
        **tile_rows("filled, blocks of 4", of_4, n),
    }
