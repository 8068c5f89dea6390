"""Mean as a call of tnf_mean."""

import math

from codegen.emit.base import KernelCall, tensor_stage
from refsim.ops.mean import Mean
from refsim.tensor import Shape


def kernel_call(op: Mean, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    (shape,) = shapes
    return KernelCall(
        kernel="tnf_mean",
        params={
            "outer": math.prod(shape[: op.first_axis]),
            "n": math.prod(shape[op.first_axis : op.last_axis + 1]),
            "inner": math.prod(shape[op.last_axis + 1 :]),
            "input_zero_point": op.input_zero_point,
            **tensor_stage(op.output),
        },
        sources=("mean",),
    )
