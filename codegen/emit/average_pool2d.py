"""AveragePool2D as a call of tnf_average_pool2d."""

from codegen.emit.base import KernelCall, pooling_params
from refsim.ops.average_pool2d import AveragePool2D
from refsim.tensor import Shape


def kernel_call(op: AveragePool2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(kernel="tnf_average_pool2d", params=pooling_params(op, shapes[0]), sources=("average_pool2d",))
