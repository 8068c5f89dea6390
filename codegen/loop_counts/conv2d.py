"""Loop counts of the kernels of conv2d."""

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import SPARSE_ROWS, Params
from codegen.loop_counts.base import Terms, integer, loop, place_windows, requantized, steps
from codegen.loop_counts.sparse import sparse_fill, sparse_layer, sparse_tiles
from codegen.loop_counts.tiles import tile_layer


def portable(p: Params) -> Terms:
    """Loops of tnf_conv2d."""
    groups = integer(p, "groups")
    group_in, group_out = integer(p, "input_c") // groups, integer(p, "output_c") // groups
    rows, taps, windows = place_windows(p)
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
        **loop("four channels: run", runs, float(rows.sum()) * groups * quads),
        "one channel": positions * groups * singles,
        "one channel: rows": image_rows * groups * singles,
        **loop("one channel: run", runs, float(rows.sum()) * groups * singles),
        **requantized(p, positions * groups * group_out),
    }


def dsp(p: Params) -> Terms:
    """Loops of tnf_conv2d_dsp."""
    rows, taps, windows = place_windows(p)
    groups, width = integer(p, "groups"), integer(p, "kernel_w")
    channels = integer(p, "input_c") // groups
    positions = rows.size * taps.size
    met, columns = float(rows.sum()) * groups, taps[taps > 0]
    # What of a row is outside the image is filled in, on its left and on its right.
    left = _before(p, "w", "pad_left")[taps > 0]
    merged = groups == 1 and p["dilation_w"] == 1
    runs = columns * channels if merged else np.full(columns.sum(), channels)
    outside = positions * integer(p, "kernel_h") * groups - met * columns.size
    return {
        **windows,
        "rows": met * columns.size,
        "copied": met * runs.size,
        **steps("copied", runs, met),
        **steps("filled", np.concatenate([left, width - columns - left]) * channels, met),
        "outside": outside,
        **steps("outside", width * channels, outside),
        **tile_layer(p, positions, integer(p, "kernel_h") * width * channels, groups),
    }


def _before(p: Params, axis: str, padding: str) -> NDArray[np.int64]:
    """Positions of each window before the image."""
    starts = np.arange(integer(p, f"output_{axis}")) * integer(p, f"stride_{axis}") - integer(p, padding)
    before: NDArray[np.int64] = np.clip(-(starts // integer(p, f"dilation_{axis}")), 0, integer(p, f"kernel_{axis}"))
    return before


def sparse(p: Params) -> Terms:
    """Loops of tnf_conv2d_sparse."""
    rows, taps, _ = place_windows(p)
    positions, kernel_h = rows.size * taps.size, integer(p, "kernel_h")
    tiles, single = sparse_tiles(positions)
    missing = SPARSE_ROWS * tiles + single - positions  # rows of the last tile, in which its last window is repeated
    windows = positions + missing
    inside = float(rows.sum() * taps.sum() + missing * rows[-1] * taps[-1])
    outside = windows * kernel_h * integer(p, "kernel_w") - inside
    block, channels = integer(p, "block"), integer(p, "input_c")
    return {
        "windows": windows,
        "windows: rows": windows * kernel_h,
        **sparse_fill(p, inside),
        "outside": outside,
        "outside: elements": outside * channels * (block == 1),
        "outside: words": outside * -(-channels // block) * (block // 2),
        **sparse_layer(p, positions),
    }
