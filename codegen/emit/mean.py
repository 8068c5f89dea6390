"""Mean as a call of tnf_mean, or of tnf_mean_dsp."""

import math

from codegen.emit.base import KernelCall, dsp_variant, tensor_stage
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


def dsp_kernel_call(op: Mean, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension; None for two and three neighbouring means."""
    portable = kernel_call(op, shapes)
    return None if portable.params["inner"] in (2, 3) else dsp_variant(portable)
