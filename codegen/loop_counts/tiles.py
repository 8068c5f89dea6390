"""The dense layers of the DSP kernels, computed in tiles of four rows."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import Params, quick_channels
from codegen.loop_counts.base import Terms, integer, loop, requantized, steps
from refsim.numerics import Rounding

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


def tile_layer(p: Params, rows: int, taps: int, groups: int = 1) -> Terms:
    """A dense layer in tiles of four rows, each anew for every group of channels; one row left over is alone."""
    shifts = np.asarray(p["channel"]).reshape(-1, 3)[:, 2].reshape(groups, -1)
    channels = shifts.shape[1]
    visits, pairs = groups * -(-channels // TILE_CHANNELS), groups * -(-channels // 2)
    whole, left = divmod(rows, 4)
    single, tiles = int(left == 1), whole + (left > 1)
    # Of whole tiles the pairs of channels that the quick last step serves are finished in registers.
    served = quick_channels(shifts, integer(p, "rounding"))[:, : channels // 2 * 2]
    quick = served[:, ::2] & served[:, 1::2]
    slow = np.ones_like(shifts, bool)
    slow[:, : channels // 2 * 2] = ~quick.repeat(2, axis=1)
    runs = [(fast, 2 * len(list(run))) for group in quick for fast, run in itertools.groupby(map(bool, group))]
    in_registers, asked = int(quick.sum()), 1 - integer(p, "quick")
    whole_visits = sum(1 if fast else -(-run // TILE_CHANNELS) for fast, run in runs) + groups * (channels % 2)
    double = integer(p, "rounding") == Rounding.DOUBLE
    clamped = whole * 4 * ((p["act_min"], p["act_max"]) != (-128, 127))
    return {
        "tiles": tiles * groups,
        **tile_rows("tile rows", 4 * tiles * groups, taps),
        **tile_sums(whole * whole_visits + (tiles - whole) * visits, tiles * pairs, taps),
        "pairs asked": whole * pairs * asked,
        "pairs in registers": whole * in_registers,
        "pairs in registers, rounded twice": whole * in_registers * double,
        **steps("clamped", [run for fast, run in runs if fast], clamped),
        **tile_rows("one row", single * groups, taps),
        "one row: sums": single * visits,
        **loop("one row: quads", -(-taps // 4), single * pairs),
        "channels": whole * int(slow.sum()) + (tiles - whole + single) * shifts.size,
        **_requantized(p, 4 * whole, shifts[slow], left, shifts),
    }


def _requantized(p: Params, rows: int, slow: NDArray[Any], rest: int, shifts: NDArray[Any]) -> Terms:
    """Outputs of the general last step: the slow channels of whole tiles, and all of the rows left."""
    parts = [requantized(p, rows * slow.size, slow if slow.size else shifts)]
    parts.append(requantized(p, rest * shifts.size, shifts))
    return {name: sum(part[name] for part in parts) for name in parts[0]}
