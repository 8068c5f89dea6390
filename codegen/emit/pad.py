"""Pad as a call of tnf_pad."""

from codegen.emit.base import KernelCall, check_rank, int32_array
from refsim.ops.pad import Pad
from refsim.tensor import Shape


def kernel_call(op: Pad, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    (shape,) = shapes
    merged: list[tuple[int, int, int]] = []  # input length, output length, position
    for length, result, before in zip(shape, op.output_shape(shape), op.before, strict=True):
        if merged and length == result:  # an axis without padding continues the one outside it
            merged[-1] = (merged[-1][0] * length, merged[-1][1] * length, merged[-1][2] * length)
        else:
            merged.append((length, result, before))
    check_rank(op.name, shape, len(merged))
    input_dims, output_dims, position = zip(*(merged or [(1, 1, 0)]), strict=True)
    return KernelCall(
        kernel="tnf_pad",
        params={
            "rank": len(input_dims),
            "input_dims": int32_array(input_dims),
            "output_dims": int32_array(output_dims),
            "before": int32_array(position),
            "value": op.value,
        },
        sources=("pad",),
    )
