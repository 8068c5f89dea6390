"""Loop counts of the kernels of transpose."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, loop, walk_rows


def portable(p: Params) -> Terms:
    """Loops of tnf_transpose."""
    n, rows, walk = walk_rows(p)
    return {**walk, **loop("row", n, rows)}
