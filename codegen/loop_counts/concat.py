"""Loop counts of the kernels of concat."""

import numpy as np

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop
from refsim.numerics import Rounding


def portable(p: Params) -> Terms:
    """Loops of tnf_concat."""
    outer, chunks = integer(p, "outer"), np.asarray(p["chunk"])
    rescaled = np.asarray(p["rescale"]) != 0
    shifts, double = np.asarray(p["shift"])[rescaled], p["rounding"] == Rounding.DOUBLE
    elements = chunks[rescaled] * outer
    return {
        "outer": outer,
        "chunks": outer * chunks.size,
        **loop("copied", chunks[~rescaled], outer),
        **loop("rescaled", chunks[rescaled], outer),
        "rescaled: two words": 0.0 if double else float(elements[shifts >= -1].sum()),
        "rescaled: rounded twice": float(elements.sum()) if double else 0.0,
    }
