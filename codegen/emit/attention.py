"""Attention as a call of tnf_attention, or of tnf_attention_dsp."""

import math

from codegen.emit import matmul, softmax
from codegen.emit.base import SCRATCH_ALIGNMENT, TILE_ROWS, KernelCall, Params, tile_bytes
from refsim.ops.attention import Attention
from refsim.tensor import Shape

TILE_BYTES = 1024
"""Scores of a tile of query rows, unless one row, or those of a matmul's tile, are more."""


def kernel_call(op: Attention, shapes: tuple[Shape, ...], rows: int | None = None) -> KernelCall:
    """The call for queries, keys and values of the given shapes (one sample).

    Args:
        op: the operator.
        shapes: of its inputs.
        rows: of queries in a tile; by default so many that their scores fill `TILE_BYTES`.
    """
    *_, m, _ = shapes[0]
    n = op.scores.output_shape(*shapes[:2])[-1]
    rows = rows or min(max(TILE_BYTES // n, 1), m)
    tile = _tile_shapes(op, shapes, rows)
    return KernelCall(
        kernel="tnf_attention",
        params=_params(
            op, shapes, rows, matmul.kernel_call(op.scores, tile[0]), matmul.kernel_call(op.context, tile[1])
        ),
        sources=("attention", "matmul", "softmax"),
        scratch_bytes=softmax.SCRATCH_BYTES + _aligned(rows * n),
        in_place=_in_place(op, shapes),
        macs=_macs(op, shapes),
    )


def dsp_kernel_call(op: Attention, shapes: tuple[Shape, ...], rows: int | None = None) -> KernelCall | None:
    """The call for a core with the DSP extension; None for few rows or few scores, as matmul and softmax do."""
    *_, m, k = shapes[0]
    scores_shape = op.scores.output_shape(*shapes[:2])
    n, d = scores_shape[-1], op.output_shape(*shapes)[-1]
    rows = rows or min(max(TILE_BYTES // n // TILE_ROWS, 1) * TILE_ROWS, m)
    tile = _tile_shapes(op, shapes, rows)
    scores, context = matmul.dsp_kernel_call(op.scores, tile[0]), matmul.dsp_kernel_call(op.context, tile[1])
    if scores is None or context is None or softmax.dsp_kernel_call(op.softmax, (scores_shape,)) is None:
        return None
    params = _params(op, shapes, rows, scores, context)
    packed = matmul.packed_bytes(k, n) + matmul.packed_bytes(n, d)
    return KernelCall(
        kernel="tnf_attention_dsp",
        params={name: value for name, value in params.items() if not name.endswith("_columns")},
        sources=("attention_dsp", "matmul_dsp", "softmax_dsp"),
        scratch_bytes=softmax.DSP_SCRATCH_BYTES + packed + tile_bytes(max(k, n), TILE_ROWS) + _aligned(rows * n),
        in_place=_in_place(op, shapes),
        macs=_macs(op, shapes),
    )


def other_kernel_calls(op: Attention, shapes: tuple[Shape, ...], first: KernelCall) -> list[KernelCall | None]:
    """The same kernel with tiles of other heights, the tallest first: powers of two, and all rows of queries."""
    *_, m, _ = shapes[0]
    make, least = (kernel_call, 1) if first.kernel == "tnf_attention" else (dsp_kernel_call, min(TILE_ROWS, m))
    heights = {m, *(1 << power for power in range(m.bit_length()))} - {first.params["tile_rows"]}
    return [make(op, shapes, rows) for rows in sorted(heights, reverse=True) if least <= rows <= m]


def _tile_shapes(op: Attention, shapes: tuple[Shape, ...], rows: int) -> tuple[tuple[Shape, ...], tuple[Shape, ...]]:
    """What the two matmuls of one tile of one head multiply."""
    q, k, v = shapes
    n = op.scores.output_shape(q, k)[-1]
    return ((rows, q[-1]), k[-2:]), ((rows, n), v[-2:])


def _params(op: Attention, shapes: tuple[Shape, ...], rows: int, scores: KernelCall, context: KernelCall) -> Params:
    *batch, m, d = op.output_shape(*shapes)
    return {
        "batch": math.prod(batch),
        "m": m,
        "k": scores.params["k"],
        "n": scores.params["n"],
        "d": d,
        "tile_rows": rows,
        **{f"scores_{name}": value for name, value in scores.params.items() if name not in _SIZES},
        "softmax_multiplier": op.softmax.multiplier,
        "softmax_shift": op.softmax.shift,
        "softmax_diff_min": op.softmax.diff_min,
        **{f"context_{name}": value for name, value in context.params.items() if name not in _SIZES},
    }


_SIZES = ("batch", "m", "k", "n")


def _in_place(op: Attention, shapes: tuple[Shape, ...]) -> tuple[int, ...]:
    """Over the queries, whose rows are read no more when those of the context are written."""
    return (0,) if op.output_shape(*shapes) == shapes[0] else ()


def _macs(op: Attention, shapes: tuple[Shape, ...]) -> int:
    scores, context = op.scores.output_shape(*shapes[:2]), op.output_shape(*shapes)
    return math.prod(scores) * (shapes[0][-1] + context[-1])


def _aligned(size: int) -> int:
    return -(-size // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT
