"""Mul as a call of tnf_mul."""

from codegen.emit.base import KernelCall, elementwise_in_place, elementwise_params, tensor_stage
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
