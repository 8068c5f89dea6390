"""DepthwiseConv2D as a call of tnf_depthwise_conv2d, tnf_depthwise_conv2d_dsp or tnf_depthwise_conv2d_sparse."""

import numpy as np

from codegen.emit.base import (
    SCRATCH_ALIGNMENT,
    KernelCall,
    channel_stage,
    convolution_params,
    folded_bias,
    sparse_layer_params,
)
from codegen.encoding import WIDTH_BLOCK, encode
from refsim.numerics import Int8Array, Int32Array
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.tensor import Shape

DSP_KERNEL = 3
"""Height and width of the kernel that tnf_depthwise_conv2d_dsp computes."""

LANES = 4
"""Channels that it takes at a time."""

MOST_SCRATCH = 4096
"""Bytes of its scratch beyond which fewer rows are computed at a time: what rows share is then read twice."""

SPARSE_BLOCKS = (WIDTH_BLOCK,)
"""Sizes of blocks for which `sparse_kernel_call` has a kernel."""

SPARSE_WINDOWS = 4
"""Neighbouring windows that the sparse kernel computes together."""

SPARSE_BLOCK_BYTES = 12
"""Its scratch for each block of a channel."""


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


def dsp_kernel_call(op: DepthwiseConv2D, shapes: tuple[Shape, ...], strip: int | None = None) -> KernelCall | None:
    """The call for a core with the DSP extension; None for larger kernels, dilation, other strides and few channels.

    Args:
        op: the operator.
        shapes: of its inputs.
        strip: rows of the output to compute at a time, even; by default what `MOST_SCRATCH` allows.
    """
    (input_h, input_w, channels), (output_h, output_w, outputs) = shapes[0], op.output_shape(*shapes)
    window = op.window
    if (
        outputs != channels
        or channels < LANES
        or max(window.kernel) > DSP_KERNEL
        or window.dilation != (1, 1)
        or window.stride not in ((1, 1), (2, 2))
    ):
        return None
    stride = window.stride[0]
    columns = -(-output_w // 2) if stride == 1 else output_w
    row_bytes = columns * LANES * 8
    strip = strip or _strip(output_h, stride, row_bytes)
    taps = op.weight.reshape(-1, channels).T
    return KernelCall(
        kernel="tnf_depthwise_conv2d_dsp",
        params={
            "input_h": input_h,
            "input_w": input_w,
            "channels": channels,
            "output_h": output_h,
            "output_w": output_w,
            "stride": stride,
            "pad_top": window.padding[0],
            "pad_left": window.padding[1],
            "strip": strip,
            "input_zero_point": op.input_zero_point,
            "weight": _rows(op.weight),
            "bias": folded_bias(taps, op.bias, op.input_zero_point),
            **channel_stage(op.output, channels),
        },
        sources=("depthwise_conv2d_dsp",),
        scratch_bytes=row_bytes * _strip_rows(strip, stride),
        in_place=_in_place(shapes[0], op.output_shape(*shapes), strip) if channels % LANES == 0 else (),
        macs=output_h * output_w * op.weight.size,
    )


def other_kernel_calls(op: DepthwiseConv2D, shapes: tuple[Shape, ...], first: KernelCall) -> list[KernelCall | None]:
    """The kernel for cores with the DSP extension in one strip, where it can work in place only so."""
    if first.kernel != "tnf_depthwise_conv2d_dsp" or first.in_place:
        return []
    whole = dsp_kernel_call(op, shapes, strip=-(-int(first.params["output_h"]) // 2) * 2)
    return [whole] if whole is not None and whole.in_place else []


def sparse_kernel_call(op: DepthwiseConv2D, shapes: tuple[Shape, ...], block: int) -> KernelCall | None:
    """The call with weights in the sparse encoding; None for dilation and other strides than 1 and 2."""
    window = op.window
    if window.dilation != (1, 1) or window.stride not in ((1, 1), (2, 2)):
        return None
    result = op.output_shape(*shapes)
    output_h, output_w, _ = result
    weight = np.moveaxis(op.weight, 2, 0)
    encoded = encode(weight, block)
    stride, (kernel_h, kernel_w) = window.stride[0], window.kernel
    columns = -(-output_w // SPARSE_WINDOWS) * SPARSE_WINDOWS * stride
    pitch = (columns + -(-kernel_w // block) * block) // 2 * 2
    most = max(1, (MOST_SCRATCH // (2 * pitch) - kernel_h) // stride + 1)
    strip = -(-output_h // -(-output_h // most))
    scratch = 2 * pitch * ((strip - 1) * stride + kernel_h) + SPARSE_BLOCK_BYTES * int(encoded.blocks.max())
    layer = dict(sparse_layer_params(encoded, weight, op.bias, op.input_zero_point, op.output))
    params = convolution_params(window, shapes[0], result)
    return KernelCall(
        kernel="tnf_depthwise_conv2d_sparse",
        params={
            **{name: v for name, v in params.items() if not name.startswith(("stride", "dilation"))},
            "stride": stride,
            "strip": strip,
            "pitch": pitch,
            "input_zero_point": op.input_zero_point,
            **{name: v for name, v in layer.items() if name not in ("block", "quick")},
        },
        sources=("depthwise_conv2d_sparse",),
        scratch_bytes=-(-scratch // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT,
        in_place=_in_place(shapes[0], result, strip),
        macs=output_h * output_w * op.weight.size,
        sparse_block=block,
        work=output_h * output_w * encoded.weights,
    )


def _in_place(image: Shape, result: Shape, strip: int) -> tuple[int, ...]:
    """Over the input, whose channels have all been read when theirs of the output are written: in one strip."""
    return (0,) if image == result and strip >= result[0] else ()


def _strip_rows(strip: int, stride: int) -> int:
    """Rows of the image that so many rows of windows read."""
    return (strip - 1) * stride + DSP_KERNEL


def _strip(output_h: int, stride: int, row_bytes: int) -> int:
    """Output rows to compute at a time, even: strips of one size, within `MOST_SCRATCH` where two rows are."""
    most = max(2, ((MOST_SCRATCH // row_bytes - DSP_KERNEL) // stride + 1) // 2 * 2)
    strips = -(-output_h // most)
    return -(-output_h // strips // 2) * 2


def _rows(weight: Int8Array) -> Int32Array:
    """Weights (KH, KW, C) as words (C, 3): rows of the kernel, first weights lowest, filled up with 0."""
    height, width, channels = weight.shape
    filled = np.zeros((channels, DSP_KERNEL, 4), np.int8)
    filled[:, :height, :width] = np.moveaxis(weight, 2, 0)
    return filled.view("<i4").astype(np.int32).ravel()
