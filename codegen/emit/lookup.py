"""Lookup as a call of tnf_lookup, or of tnf_lookup_dsp."""

import math

from codegen.emit.base import KernelCall, dsp_variant
from refsim.ops.lookup import Lookup
from refsim.tensor import Shape


def kernel_call(op: Lookup, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(
        kernel="tnf_lookup",
        params={"size": math.prod(shapes[0]), "table": op.table},
        sources=("lookup",),
        in_place=(0,),
    )


def dsp_kernel_call(op: Lookup, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for a core with the DSP extension."""
    return dsp_variant(kernel_call(op, shapes))
