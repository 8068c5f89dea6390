"""Loop counts of the kernels of reshape."""

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop


def portable(p: Params) -> Terms:
    """Loops of tnf_reshape."""
    return loop("elements", integer(p, "size"))
