"""DepthwiseConv2D as a call of tnf_depthwise_conv2d."""

from codegen.emit.base import KernelCall, channel_stage, convolution_params
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.tensor import Shape


def kernel_call(op: DepthwiseConv2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    result = op.output_shape(*shapes)
    return KernelCall(
        kernel="tnf_depthwise_conv2d",
        params={
            **convolution_params(op.window, shapes[0], result),
            "input_zero_point": op.input_zero_point,
            "weight": op.weight,
            "bias": op.bias,
            **channel_stage(op.output, op.weight.shape[2]),
        },
        sources=("depthwise_conv2d",),
        macs=result[0] * result[1] * op.weight.size,
    )
