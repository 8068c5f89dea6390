"""The dense layers of the DSP kernels, computed in tiles of four rows."""

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, requantized

TILE_CHANNELS = 16
"""Channels between two visits to a tile's sums: TNF_TILE_PAIRS pairs."""


def tile_rows(name: str, times: float, n: int) -> Terms:
    """Rows of n bytes that are put into a tile."""
    return {
        name: times,
        f"{name}: 8 elements": times * (n // 8),
        f"{name}: 8 elements, unaligned": times * (n // 8) * (n % 4 > 0),
        f"{name}: 4 elements": times * (n % 8 >= 4),
        f"{name}: rests": times * (n % 4 > 0),
    }


def tile_sums(visits: float, pairs: float, taps: int) -> Terms:
    """Sums of tiles: the loop takes four quads of taps, and is entered behind those that are missing."""
    quads = -(-taps // 4)
    return {
        "tile sums": visits,
        "tile sums: pairs": pairs,
        "tile sums: 4 quads": pairs * -(-quads // 4),
        "tile sums: quads": pairs * quads,
    }


def tile_layer(p: Params, rows: int, taps: int) -> Terms:
    """A dense layer in tiles of four rows; one row that is left over is alone."""
    channels = integer(p, "output_c")
    visits, pairs = -(-channels // TILE_CHANNELS), -(-channels // 2)
    whole, left = divmod(rows, 4)
    single, tiles = int(left == 1), whole + (left > 1)
    # Whole tiles are finished quickly, and of those whose outputs may be any int8 pairs of channels in registers.
    quick = whole * integer(p, "quick")
    in_registers = channels // 2 if (p["act_min"], p["act_max"]) == (-128, 127) else 0
    stored = channels - 2 * in_registers
    quick_visits = (in_registers > 0) - (-stored // TILE_CHANNELS)
    return {
        "tiles": tiles,
        **tile_rows("tile rows", 4 * tiles, taps),
        **tile_sums(quick * quick_visits + (tiles - quick) * visits, tiles * pairs, taps),
        "pairs in registers": quick * in_registers,
        "quick channels": quick * stored,
        **tile_rows("one row", single, taps),
        "one row: sums": single * visits,
        **loop("one row: quads", -(-taps // 4), single * pairs),
        "channels": (tiles - quick + single) * channels,
        **requantized(p, (rows - 4 * quick) * channels, _shifts(p)),
    }


def _shifts(p: Params) -> NDArray[np.int64]:
    """Of each channel the shift, from its record: see `tile_layer_params` of `codegen.emit.base`."""
    return np.asarray(p["channel"]).reshape(-1, 3)[:, 2].astype(np.int64)
