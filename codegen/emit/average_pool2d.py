"""AveragePool2D as a call of tnf_average_pool2d, or of tnf_average_pool2d_dsp."""

import math

from codegen.emit.base import KernelCall, dsp_variant, pooling_params
from refsim.ops.average_pool2d import AveragePool2D
from refsim.tensor import Shape

MOST_POSITIONS = 255
"""Of a window whose sums fit 16 bits."""


def kernel_call(op: AveragePool2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(kernel="tnf_average_pool2d", params=pooling_params(op, shapes[0]), sources=("average_pool2d",))


def dsp_kernel_call(op: AveragePool2D, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension, for windows that are not larger than most images."""
    return dsp_variant(kernel_call(op, shapes)) if math.prod(op.window.kernel) <= MOST_POSITIONS else None
