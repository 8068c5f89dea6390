"""Linear as a call of tnf_linear, tnf_linear_dsp or tnf_linear_sparse."""

import numpy as np

from codegen.emit.base import (
    KernelCall,
    channel_stage,
    rows_of,
    sparse_layer_params,
    sparse_tile_bytes,
    sparse_work,
    tile_bytes,
    tile_layer_params,
)
from codegen.encoding import BLOCKS, encode
from refsim.ops.linear import Linear
from refsim.tensor import Shape

SPARSE_BLOCKS = BLOCKS
"""Sizes of blocks for which `sparse_kernel_call` has a kernel."""


def kernel_call(op: Linear, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    output_c, input_c = op.weight.shape
    rows = rows_of(shapes[0])
    return KernelCall(
        kernel="tnf_linear",
        params={
            "rows": rows,
            "input_c": input_c,
            "output_c": output_c,
            "input_zero_point": op.input_zero_point,
            "weight": op.weight,
            "bias": op.bias,
            **channel_stage(op.output, output_c),
        },
        sources=("linear",),
        macs=rows * op.weight.size,
    )


def dsp_kernel_call(op: Linear, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for a core with the DSP extension."""
    output_c, input_c = op.weight.shape
    rows = rows_of(shapes[0])
    return KernelCall(
        kernel="tnf_linear_dsp",
        params={
            "rows": rows,
            "input_c": input_c,
            "output_c": output_c,
            **tile_layer_params(op.weight, op.bias, op.input_zero_point, op.output),
        },
        sources=("linear_dsp",),
        scratch_bytes=tile_bytes(input_c, rows),
        macs=rows * op.weight.size,
    )


def sparse_kernel_call(op: Linear, shapes: tuple[Shape, ...], block: int) -> KernelCall:
    """The call with weights in the sparse encoding, in blocks of that size."""
    output_c, input_c = op.weight.shape
    rows = rows_of(shapes[0])
    encoded = encode(op.weight[:, np.newaxis], block)
    return KernelCall(
        kernel="tnf_linear_sparse",
        params={
            "rows": rows,
            "input_c": input_c,
            "output_c": output_c,
            **sparse_layer_params(encoded, op.weight, op.bias, op.input_zero_point, op.output),
        },
        sources=("linear_sparse",),
        scratch_bytes=sparse_tile_bytes(rows, 1, input_c, block),
        macs=rows * op.weight.size,
        sparse_block=block,
        work=sparse_work(rows, encoded),
    )
