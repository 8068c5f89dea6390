"""Loop counts of the kernels of mul."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, element_rows, loop, requantized, walk_rows


def portable(p: Params) -> Terms:
    """Loops of tnf_mul."""
    n, rows, walk = walk_rows(p)
    return {**walk, **loop("row", n, rows), **requantized(p, rows * n)}


def dsp(p: Params) -> Terms:
    """Loops of tnf_mul_dsp."""
    return element_rows(p)
