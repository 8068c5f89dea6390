"""Loop counts of the kernels of max_pool2d."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, place_windows


def portable(p: Params) -> Terms:
    """Loops of tnf_max_pool2d and of tnf_average_pool2d."""
    rows, cols, windows = place_windows(p)
    pairs = -(-integer(p, "channels") // 2)
    positions = rows.size * cols.size
    return {
        **windows,
        "two channels": positions * pairs,
        **loop("two channels: row", cols, float(rows.sum()) * pairs),
    }


def dsp(p: Params) -> Terms:
    """Loops of tnf_max_pool2d_dsp and of tnf_average_pool2d_dsp."""
    rows, cols, windows = place_windows(p)
    quads, singles = divmod(integer(p, "channels"), 4)
    positions = rows.size * cols.size
    image_rows = float(rows.sum())
    return {
        **windows,
        "four channels": positions * quads,
        **loop("four channels: row", cols, image_rows * quads),
        "one channel": positions * singles,
        **loop("one channel: row", cols, image_rows * singles),
    }
