"""Loop counts of the kernels of requantize."""

from codegen.emit.base import Params
from codegen.loop_counts import lookup
from codegen.loop_counts.base import Terms, integer, loop, requantized


def portable(p: Params) -> Terms:
    """Loops of tnf_requantize."""
    return {**loop("elements", integer(p, "size")), **requantized(p, integer(p, "size"))}


def dsp(p: Params) -> Terms:
    """Loops of tnf_requantize_dsp."""
    return {**lookup.dsp(p), **requantized(p, 256)}
