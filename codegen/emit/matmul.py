"""MatMul as a call of tnf_matmul."""

import math

from codegen.emit.base import KernelCall, tensor_stage
from refsim.ops.matmul import MatMul
from refsim.tensor import Shape


def kernel_call(op: MatMul, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    *batch, m, k = shapes[0]
    n = op.output_shape(*shapes)[-1]
    return KernelCall(
        kernel="tnf_matmul",
        params={
            "batch": math.prod(batch),
            "m": m,
            "k": k,
            "n": n,
            "transpose_b": int(op.transpose_b),
            "a_zero_point": op.a_zero_point,
            "b_zero_point": op.b_zero_point,
            **tensor_stage(op.output),
        },
        sources=("matmul",),
        macs=math.prod(batch) * m * k * n,
    )
