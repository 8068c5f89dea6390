"""Requantize as a call of tnf_requantize, or of tnf_requantize_dsp."""

import math

from codegen.emit.base import KernelCall, dsp_variant, tensor_stage
from refsim.ops.requantize import Requantize
from refsim.tensor import Shape

DSP_SCRATCH_BYTES = 256
"""TNF_REQUANTIZE_DSP_SCRATCH_BYTES: the output for each input."""

TABLE_PAYS_FROM = 450
"""Elements from which, on Cortex-M4 and M7, it takes fewer cycles to requantise all 256 bytes and then look up each
element, than to requantise each element."""


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


def dsp_kernel_call(op: Requantize, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension, where there are enough elements for a table of all bytes."""
    if math.prod(shapes[0]) < TABLE_PAYS_FROM:
        return None
    return dsp_variant(kernel_call(op, shapes), scratch_bytes=DSP_SCRATCH_BYTES)
