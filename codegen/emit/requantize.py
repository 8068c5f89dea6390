"""Requantize as a call of tnf_requantize."""

import math

from codegen.emit.base import KernelCall, tensor_stage
from refsim.ops.requantize import Requantize
from refsim.tensor import Shape


def kernel_call(op: Requantize, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(
        kernel="tnf_requantize",
        params={
            "size": math.prod(shapes[0]),
            "input_zero_point": op.input_zero_point,
            **tensor_stage(op.output),
        },
        sources=("requantize",),
        in_place=(0,),
    )
