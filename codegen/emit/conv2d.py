"""Conv2D as a call of tnf_conv2d."""

from codegen.emit.base import KernelCall, channel_stage, convolution_params
from refsim.ops.conv2d import Conv2D
from refsim.tensor import Shape


def kernel_call(op: Conv2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    result = op.output_shape(*shapes)
    return KernelCall(
        kernel="tnf_conv2d",
        params={
            **convolution_params(op.window, shapes[0], result),
            "groups": op.groups,
            "input_zero_point": op.input_zero_point,
            "weight": op.weight,
            "bias": op.bias,
            **channel_stage(op.output, op.weight.shape[0]),
        },
        sources=("conv2d",),
        macs=result[0] * result[1] * op.weight.size,
    )
