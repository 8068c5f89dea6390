"""Add as a call of tnf_add."""

from codegen.emit.base import KernelCall, elementwise_in_place, elementwise_params, tensor_stage
from refsim.ops.add import Add
from refsim.tensor import Shape


def kernel_call(op: Add, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    stage = dict(tensor_stage(op.output))
    return KernelCall(
        kernel="tnf_add",
        params={
            **elementwise_params(op.name, *shapes),
            "a_zero_point": op.a_zero_point,
            "b_zero_point": op.b_zero_point,
            "a_multiplier": op.a_multiplier.multiplier,
            "a_shift": op.a_multiplier.shift,
            "b_multiplier": op.b_multiplier.multiplier,
            "b_shift": op.b_multiplier.shift,
            "output_multiplier": stage.pop("multiplier"),
            "output_shift": stage.pop("shift"),
            **stage,
        },
        sources=("add",),
        in_place=elementwise_in_place(*shapes),
    )
