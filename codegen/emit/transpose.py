"""Transpose as a call of tnf_transpose."""

from codegen.emit.base import KernelCall, contiguous_strides, merge_axes
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape


def kernel_call(op: Transpose, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    strides = contiguous_strides(shapes[0])
    dims, strides_out = merge_axes(op.name, op.output_shape(*shapes), [strides[axis] for axis in op.permutation])
    return KernelCall(
        kernel="tnf_transpose",
        params={"rank": dims.size, "dims": dims, "strides": strides_out},
        sources=("transpose",),
    )
