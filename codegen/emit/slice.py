"""Slice as a call of tnf_slice."""

from codegen.emit.base import KernelCall, contiguous_strides, merge_axes
from refsim.ops.slice import Slice
from refsim.tensor import Shape


def kernel_call(op: Slice, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    strides = contiguous_strides(shapes[0])
    # The step of an axis of which one position is taken may be any number, and leads nowhere.
    steps = [stride * (step if size > 1 else 1) for stride, size, step in zip(strides, op.sizes, op.steps, strict=True)]
    dims, step_strides = merge_axes(op.name, op.sizes, steps)
    return KernelCall(
        kernel="tnf_slice",
        params={
            "rank": dims.size,
            "offset": sum(start * stride for start, stride in zip(op.starts, strides, strict=True)),
            "dims": dims,
            "strides": step_strides,
        },
        sources=("slice",),
    )
