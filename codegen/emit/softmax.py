"""Softmax as a call of tnf_softmax."""

from codegen.emit.base import KernelCall, rows_of
from refsim.ops.softmax import Softmax
from refsim.tensor import Shape

SCRATCH_BYTES = 256 * 4 + 256 // 8
"""TNF_SOFTMAX_SCRATCH_BYTES: the exponential of each difference to the maximum, and a bit for each that is filled."""


def kernel_call(op: Softmax, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(
        kernel="tnf_softmax",
        params={
            "rows": rows_of(shapes[0]),
            "n": shapes[0][-1],
            "multiplier": op.multiplier,
            "shift": op.shift,
            "diff_min": op.diff_min,
        },
        sources=("softmax",),
        scratch_bytes=SCRATCH_BYTES,
        in_place=(0,),
    )
