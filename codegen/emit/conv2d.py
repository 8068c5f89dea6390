"""Conv2D as a call of tnf_conv2d or tnf_conv2d_dsp; where positions do not mix, as that of a Linear."""

import math

from codegen.emit import linear
from codegen.emit.base import (
    KernelCall,
    channel_stage,
    convolution_params,
    sparse_layer_params,
    sparse_tile_bytes,
    sparse_work,
    tile_bytes,
    tile_layer_params,
)
from codegen.encoding import BLOCKS, encode
from refsim.ops.conv2d import Conv2D
from refsim.ops.linear import Linear
from refsim.tensor import Shape

SPARSE_BLOCKS = BLOCKS
"""Sizes of blocks for which `sparse_kernel_call` has a kernel."""


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


def dsp_kernel_call(op: Conv2D, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for a core with the DSP extension."""
    result = op.output_shape(*shapes)
    weight = op.weight.reshape(len(op.weight), -1)
    if op.groups == 1 and op.window.kernel == op.window.stride == (1, 1) and not any(op.window.padding):
        return linear.dsp_kernel_call(Linear(weight, op.bias, op.input_zero_point, op.output), shapes)
    taps = math.prod(op.weight.shape[1:])
    row_bytes = 0 if op.weight.shape[3] % 4 == 0 else -(-taps // 8) * 8
    return KernelCall(
        kernel="tnf_conv2d_dsp",
        params={
            **convolution_params(op.window, shapes[0], result),
            "groups": op.groups,
            "input_zero_point": op.input_zero_point,
            **tile_layer_params(weight, op.bias, op.input_zero_point, op.output, op.groups),
        },
        sources=("conv2d_dsp",),
        scratch_bytes=tile_bytes(taps, result[0] * result[1]) + row_bytes,
        macs=result[0] * result[1] * op.weight.size,
    )


def sparse_kernel_call(op: Conv2D, shapes: tuple[Shape, ...], block: int) -> KernelCall | None:
    """The call with weights in the sparse encoding, in blocks of that size; of one group."""
    if op.groups > 1:
        return None
    result = op.output_shape(*shapes)
    channels, kernel_h, kernel_w, input_c = op.weight.shape
    taps = kernel_h * kernel_w
    if op.window.kernel == op.window.stride == (1, 1) and not any(op.window.padding):
        as_linear = Linear(op.weight.reshape(channels, -1), op.bias, op.input_zero_point, op.output)
        return linear.sparse_kernel_call(as_linear, shapes, block)
    encoded = encode(op.weight.reshape(channels, taps, input_c), block)
    return KernelCall(
        kernel="tnf_conv2d_sparse",
        params={
            **convolution_params(op.window, shapes[0], result),
            "input_zero_point": op.input_zero_point,
            **sparse_layer_params(encoded, op.weight, op.bias, op.input_zero_point, op.output),
        },
        sources=("conv2d_sparse",),
        scratch_bytes=sparse_tile_bytes(result[0] * result[1], taps, input_c, block),
        macs=result[0] * result[1] * op.weight.size,
        sparse_block=block,
        work=sparse_work(result[0] * result[1], encoded),
    )
