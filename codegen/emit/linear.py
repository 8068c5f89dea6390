"""Linear as a call of tnf_linear, or of tnf_linear_dsp."""

from codegen.emit.base import KernelCall, channel_stage, rows_of, tile_bytes, tile_layer_params
from refsim.ops.linear import Linear
from refsim.tensor import Shape


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
        scratch_bytes=tile_bytes(input_c),
        macs=rows * op.weight.size,
    )
