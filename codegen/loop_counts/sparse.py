"""The layers of the kernels that leave zeros out, computed in tiles of eight rows."""

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import Params
from codegen.encoding import BLOCKS, GROUP
from codegen.loop_counts.base import Terms, integer, requantized
from codegen.loop_counts.tiles import tile_rows

SPARSE_ROWS, _SPARSE_SUMS = 8, 8
"""Rows of a tile, and channels between two visits to its sums: TNF_SPARSE_ROWS and TNF_SPARSE_SUMS."""


def sparse_layer(p: Params, rows: int) -> Terms:
    """A sparse layer in tiles of eight rows, of which some may be missing: they are computed too."""
    tiles, channels, block = -(-rows // SPARSE_ROWS), integer(p, "output_c"), integer(p, "block")
    blocks, shifts = sparse_channels(p)
    whole = rows // SPARSE_ROWS if p["quick"] and (p["act_min"], p["act_max"]) == (-128, 127) else 0
    others = (rows - SPARSE_ROWS * whole) * channels
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
        "outputs: quick": others * integer(p, "quick"),
        **requantized(p, others * (not p["quick"]), shifts),
    }


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
