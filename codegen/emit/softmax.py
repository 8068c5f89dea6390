"""Softmax as a call of tnf_softmax, or of tnf_softmax_dsp."""

import math

from codegen.emit.base import KernelCall, Params, rows_of
from refsim.ops.softmax import Softmax
from refsim.tensor import Shape

SCRATCH_BYTES = 256 * 4 + 256 // 8
"""TNF_SOFTMAX_SCRATCH_BYTES: the exponential of each difference to the maximum, and a bit for each that is filled."""

DSP_SCRATCH_BYTES = 256 * 4
"""TNF_SOFTMAX_DSP_SCRATCH_BYTES: the exponentials alone, all of them computed first."""

TABLE_PAYS_FROM = 400
"""Elements from which, on Cortex-M4 and M7, computing all 256 exponentials first costs fewer cycles than computing
those that occur: one takes as long as some four elements, but each element is then done in a third of the time."""


def kernel_call(op: Softmax, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(
        kernel="tnf_softmax",
        params=_params(op, shapes[0]),
        sources=("softmax",),
        scratch_bytes=SCRATCH_BYTES,
        in_place=(0,),
    )


def dsp_kernel_call(op: Softmax, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension, where there are enough elements for a table of all exponentials."""
    if math.prod(shapes[0]) < TABLE_PAYS_FROM:
        return None
    return KernelCall(
        kernel="tnf_softmax_dsp",
        params=_params(op, shapes[0]),
        sources=("softmax_dsp",),
        scratch_bytes=DSP_SCRATCH_BYTES,
        in_place=(0,),
    )


def _params(op: Softmax, shape: Shape) -> Params:
    return {
        "rows": rows_of(shape),
        "n": shape[-1],
        "multiplier": op.multiplier,
        "shift": op.shift,
        "diff_min": op.diff_min,
    }
