"""MaxPool2D as a call of tnf_max_pool2d, or of tnf_max_pool2d_dsp."""

from codegen.emit.base import KernelCall, dsp_variant, pooling_params
from refsim.ops.max_pool2d import MaxPool2D
from refsim.tensor import Shape


def kernel_call(op: MaxPool2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(kernel="tnf_max_pool2d", params=pooling_params(op, shapes[0]), sources=("max_pool2d",))


def dsp_kernel_call(op: MaxPool2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for a core with the DSP extension."""
    return dsp_variant(kernel_call(op, shapes))
