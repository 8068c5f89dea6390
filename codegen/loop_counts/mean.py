"""Loop counts of the kernels of mean."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, requantized


def portable(p: Params) -> Terms:
    """Loops of tnf_mean."""
    outputs = integer(p, "outer") * integer(p, "inner")
    return {"outer": integer(p, "outer"), **loop("output", integer(p, "n"), outputs), **requantized(p, outputs)}
