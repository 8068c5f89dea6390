"""MatMul as a call of tnf_matmul, or of tnf_matmul_dsp."""

import math

from codegen.emit.base import TILE_ROWS, KernelCall, dsp_quick, tensor_stage, tile_bytes
from refsim.ops.matmul import MatMul
from refsim.tensor import Shape

PACKED_BYTES = 4096
"""Scratch for the columns of b that are rearranged at a time."""

MIN_COLUMNS = 8
"""So many are taken even where they need more: the rows of a are taken apart anew for each time."""

MIN_ROWS = 3
"""Rows of a from which rearranging b pays."""


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


def dsp_kernel_call(op: MatMul, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension; a few rows are left to the portable kernel."""
    *_, m, k = shapes[0]
    if m < MIN_ROWS:
        return None
    portable = kernel_call(op, shapes)
    n = op.output_shape(*shapes)[-1]
    columns = min(max(PACKED_BYTES // packed_bytes(k, 1) * 2, MIN_COLUMNS), n + 1) // 2 * 2
    return KernelCall(
        kernel="tnf_matmul_dsp",
        params={**portable.params, "quick": dsp_quick(op.output), "columns": columns},
        sources=("matmul_dsp",),
        scratch_bytes=tile_bytes(k, TILE_ROWS) + packed_bytes(k, columns),
        macs=portable.macs,
    )


def packed_bytes(k: int, columns: int) -> int:
    """Bytes of so many columns of b, of k elements each, rearranged: quads of pairs, a multiple of 8."""
    return -(-k // 4) * 4 * -(-columns // 2) * 2
