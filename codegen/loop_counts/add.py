"""Loop counts of the kernels of add."""

import numpy as np

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, element_rows, integer, loop, walk_rows
from refsim.numerics import Rounding


def portable(p: Params) -> Terms:
    """Loops of tnf_add."""
    n, rows, walk = walk_rows(p)
    double = p["rounding"] == Rounding.DOUBLE
    # What add.c calls the usual case.
    strides = int(np.asarray(p["a_strides"])[-1]), int(np.asarray(p["b_strides"])[-1])
    shifts = integer(p, "a_shift") <= 0 and integer(p, "b_shift") <= 0 and integer(p, "output_shift") < -1
    usual = strides == (1, 1) and not double and shifts
    stages = [int(integer(p, f"{name}_shift") >= -1) for name in ("a", "b", "output")]
    return {
        **walk,
        **loop("contiguous", n, rows * usual),
        **loop("any stride", n, rows * (not usual)),
        "any stride: two words": 0.0 if usual or double else rows * n * sum(stages),
        "any stride: rounded twice": rows * n if double else 0.0,
    }


def dsp(p: Params) -> Terms:
    """Loops of tnf_add_dsp."""
    return element_rows(p)
