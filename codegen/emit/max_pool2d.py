"""MaxPool2D as a call of tnf_max_pool2d."""

from codegen.emit.base import KernelCall, pooling_params
from refsim.ops.max_pool2d import MaxPool2D
from refsim.tensor import Shape


def kernel_call(op: MaxPool2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    return KernelCall(kernel="tnf_max_pool2d", params=pooling_params(op, shapes[0]), sources=("max_pool2d",))
