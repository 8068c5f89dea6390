"""Loop counts of the kernels of slice."""

import numpy as np

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, loop, walk_rows


def portable(p: Params) -> Terms:
    """Loops of tnf_slice."""
    n, rows, walk = walk_rows(p)
    contiguous = int(np.asarray(p["strides"])[-1]) == 1
    return {
        **walk,
        **loop("contiguous", n, rows * contiguous),
        **loop("strided", n, rows * (not contiguous)),
    }
