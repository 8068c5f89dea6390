"""Loop counts of the kernels of mean."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, requantized, row_steps

ROWS = 255
"""Rows whose bytes tnf_mean_dsp adds up within 16 bits."""


def portable(p: Params) -> Terms:
    """Loops of tnf_mean."""
    outputs = integer(p, "outer") * integer(p, "inner")
    return {"outer": integer(p, "outer"), **loop("output", integer(p, "n"), outputs), **requantized(p, outputs)}


def dsp(p: Params) -> Terms:
    """Loops of tnf_mean_dsp."""
    outer, n, inner = (integer(p, name) for name in ("outer", "n", "inner"))
    columns = outer * -(-inner // 4) * (inner > 1)  # four at a time
    return {
        "outer": outer,
        "four columns": columns,
        "four columns: rows": columns * n,
        "four columns: rows, unaligned": columns * n * (inner % 4 > 0),
        "four columns: within 16 bits": columns * -(-n // ROWS),
        **row_steps("neighbours", n, outer * (inner == 1)),
        **requantized(p, 4 * columns + outer * (inner == 1)),
    }
