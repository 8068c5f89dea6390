"""Reshape as a call of tnf_reshape."""

import math

from codegen.emit.base import KernelCall
from refsim.ops.reshape import Reshape
from refsim.tensor import Shape


def kernel_call(op: Reshape, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(
        kernel="tnf_reshape",
        params={"size": math.prod(op.shape)},
        sources=("reshape",),
        in_place=(0,),
        view=True,
    )
