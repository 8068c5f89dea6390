"""Loop counts of the kernels of lookup."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, steps


def portable(p: Params) -> Terms:
    """Loops of tnf_lookup."""
    return loop("elements", integer(p, "size"))


def dsp(p: Params) -> Terms:
    """Loops of tnf_lookup_dsp."""
    return steps("elements", integer(p, "size"), step=8)
