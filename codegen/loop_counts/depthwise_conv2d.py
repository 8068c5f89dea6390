"""Loop counts of the kernels of depthwise_conv2d."""

import numpy as np

from codegen.emit.base import Params, quick_channels
from codegen.loop_counts.base import Terms, integer, loop, place_windows, requantized, steps
from codegen.loop_counts.sparse import sparse_channels
from refsim.numerics import Rounding


def portable(p: Params) -> Terms:
    """Loops of tnf_depthwise_conv2d."""
    inputs, outputs = integer(p, "input_c"), integer(p, "output_c")
    rows, cols, windows = place_windows(p)
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
        **loop("one channel: row", cols, float(rows.sum()) * singles),
        **requantized(p, positions * outputs),
    }


def dsp(p: Params) -> Terms:
    """Loops of tnf_depthwise_conv2d_dsp."""
    height, width, channels, stride = (integer(p, name) for name in ("output_h", "output_w", "channels", "stride"))
    outputs = np.array([min(integer(p, "strip"), height - first) for first in range(0, height, integer(p, "strip"))])
    pairs = -(-outputs // 2)
    # Rows of the image that a strip reads, above it, in it and below it.
    rows = (2 * pairs - 1) * stride + 3
    tops = np.arange(outputs.size) * integer(p, "strip") * stride - integer(p, "pad_top")
    above = np.clip(-tops, 0, rows)
    inside = np.clip(integer(p, "input_h") - tops, above, rows) - above
    parts = sum(int((part > 0).sum()) for part in (above, inside, rows - above - inside))
    columns = -(-width // 2) if stride == 1 else width
    groups, lanes = -(-channels // 4), 4 * -(-channels // 4)
    by_pairs, by_windows = lanes * (stride == 1), lanes * (stride == 2)
    # The last four channels overlap those before where there is no multiple of four.
    computed = [*range(channels // 4 * 4), *range(channels - 4, channels)][:lanes]
    shifts = np.asarray(p["shift"])[computed]
    served = quick_channels(shifts, integer(p, "rounding"))
    double = integer(p, "rounding") == Rounding.DOUBLE
    quick, others = float(served.sum()), float((~served).sum())
    clamped = (p["act_min"], p["act_max"]) != (-128, 127)
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
        "quick: pairs of rows, rounded twice": quick * (width // 2) * row_pairs * double,
        "quick: last column": quick * (width % 2) * output_rows,
        **steps("clamped", outputs * width * channels, clamped),
        "rows of outputs": others * output_rows,
        **requantized(p, others * output_rows * width, shifts if served.all() else shifts[~served]),
    }


def sparse(p: Params) -> Terms:
    """Loops of tnf_depthwise_conv2d_sparse."""
    height, width, channels, each = (integer(p, name) for name in ("output_h", "output_w", "input_c", "stride"))
    strip, outputs = integer(p, "strip"), integer(p, "output_c")
    blocks, shifts = sparse_channels(p)
    firsts = np.arange(0, height, strip)
    rows = np.minimum(strip, height - firsts)
    tops = firsts * each - integer(p, "pad_top")
    bottoms = tops + (rows - 1) * each + integer(p, "kernel_h")
    widened = np.clip(np.minimum(bottoms, integer(p, "input_h")) - np.maximum(tops, 0), 0, None).sum()
    columns = max(0, min(integer(p, "input_w"), integer(p, "pitch") - integer(p, "pad_left")))
    fours = max(0, columns - 1) // 4
    plane = ((strip - 1) * each + integer(p, "kernel_h")) * integer(p, "pitch")
    windows, double = -(-width // 4), p["rounding"] == Rounding.DOUBLE
    sums: Terms = {}
    for stride in (1, 2):
        times = float(height * windows * (each == stride))
        sums |= {
            f"stride {stride}: windows": times * outputs,
            f"stride {stride}: blocks": times * float(blocks.sum()),
        }
    quick = quick_channels(shifts, integer(p, "rounding"))
    others = height * 4 * windows * float((~quick).sum())
    any_int8 = (p["act_min"], p["act_max"]) == (-128, 127)
    return {
        "strips": firsts.size,
        "strips: words": firsts.size * plane,
        "channels": firsts.size * outputs,
        "channels: blocks": firsts.size * float(blocks.sum()),
        "widened: rows": float(widened) * channels * (columns > 0),
        "widened: 4 elements": float(widened) * channels * fours,
        "widened: rests": float(widened) * channels * (columns - 4 * fours),
        "rows": height * outputs,
        **sums,
        "windows: quick": height * windows * float(quick.sum()) * (not double),
        "windows: quick, rounded twice": height * windows * float(quick.sum()) * double,
        "windows: clamped": height * windows * outputs * (not any_int8),
        "outputs": height * width * outputs,
        **requantized(p, others, shifts if quick.all() else shifts[~quick]),
    }
