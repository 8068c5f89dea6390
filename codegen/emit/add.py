"""Add as a call of tnf_add, or of tnf_add_dsp."""

from codegen.emit.base import (
    KernelCall,
    dsp_quick,
    elementwise_dsp_variant,
    elementwise_in_place,
    elementwise_params,
    tensor_stage,
)
from refsim.numerics import Multiplier, Rounding
from refsim.ops.add import Add
from refsim.tensor import Shape

HALF = Multiplier(2**30, 0)
"""The multiplier of the input with the larger scale."""

FINE_SHIFTS = {Rounding.SINGLE: range(-21, 3), Rounding.DOUBLE: range(-31, 0)}
"""Shifts of the other input that tnf_add_dsp takes: with single rounding those with which (x - z) * 2^(21 + shift) is
an integer and fits int32, with double rounding those that divide. `HALF` it takes as well."""


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
            "subtract": int(op.subtract),
        },
        sources=("add",),
        in_place=elementwise_in_place(*shapes),
    )


def dsp_kernel_call(op: Add, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension, where all roundings are quick and two axes do."""
    coarse_second = op.a_multiplier != HALF
    inputs = [(op.a_zero_point, op.a_multiplier), (op.b_zero_point, op.b_multiplier)]
    (coarse_zero_point, coarse), (fine_zero_point, fine) = inputs[:: -1 if coarse_second else 1]
    takes_fine = fine == HALF or fine.shift in FINE_SHIFTS[op.output.rounding]
    if op.subtract or coarse != HALF or not takes_fine or not dsp_quick(op.output):
        return None
    return elementwise_dsp_variant(
        kernel_call(op, shapes),
        without=("a_zero_point", "a_multiplier", "a_shift", "b_zero_point", "b_multiplier", "b_shift", "subtract"),
        coarse_second=int(coarse_second),
        coarse_zero_point=coarse_zero_point,
        fine_zero_point=fine_zero_point,
        fine_multiplier=fine.multiplier,
        fine_shift=fine.shift,
    )
