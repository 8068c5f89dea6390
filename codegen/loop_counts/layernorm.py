"""Loop counts of the kernels of layernorm."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, requantized, row_steps


def portable(p: Params) -> Terms:
    """Loops of tnf_layernorm."""
    rows, n = integer(p, "rows"), integer(p, "n")
    return {"rows": rows, **loop("row", n, rows), **requantized(p, rows * n)}


def dsp(p: Params) -> Terms:
    """Loops of tnf_layernorm_dsp."""
    rows, n = integer(p, "rows"), integer(p, "n")
    clamped = rows * ((p["act_min"], p["act_max"]) != (-128, 127))
    return {"rows": rows, **row_steps("row", n, rows), "clamped": clamped, **row_steps("clamped", n, clamped)}
