"""Mul as a call of tnf_mul, or of tnf_mul_dsp."""

from codegen.emit.base import (
    KernelCall,
    dsp_quick,
    elementwise_dsp_variant,
    elementwise_in_place,
    elementwise_params,
    tensor_stage,
)
from refsim.ops.mul import Mul
from refsim.tensor import Shape


def kernel_call(op: Mul, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(
        kernel="tnf_mul",
        params={
            **elementwise_params(op.name, *shapes),
            "a_zero_point": op.a_zero_point,
            "b_zero_point": op.b_zero_point,
            **tensor_stage(op.output),
        },
        sources=("mul",),
        in_place=elementwise_in_place(*shapes),
    )


def dsp_kernel_call(op: Mul, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension, where the quick last step serves and two axes do."""
    return elementwise_dsp_variant(kernel_call(op, shapes)) if dsp_quick(op.output) else None
