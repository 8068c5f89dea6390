"""MatMul: batched product of two activations (docs/numerics.md, matmul)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.numerics import (
    CHANNEL_BLOCK,
    ROW_BLOCK,
    VECTOR,
    Int8Array,
    Stage,
    Weight,
    accumulate,
    finish_rows,
    largest_distance,
    padded_length,
    prefers_columns,
    remove_zero_point,
)
from refsim.ops.base import Requantization, Requantizing, check_channels, check_zero_point
from refsim.tensor import Shape


@dataclass(frozen=True, eq=False)
class MatMul(Requantizing):
    """y = requantised sum over k of (a[..., m, k] - z_a) * (b[..., k, n] - z_b).

    Attributes:
        a_zero_point, b_zero_point: of the inputs.
        output: requantisation, one multiplier.
        transpose_b: b is (..., N, K) instead of (..., K, N).

    Raises:
        ShapeError: more than one multiplier.
        QuantizationError: a zero point out of range.
    """

    name: ClassVar[str] = "matmul"
    arity: ClassVar[int | None] = 2

    a_zero_point: int
    b_zero_point: int
    output: Requantization
    transpose_b: bool = False

    def __post_init__(self) -> None:
        check_channels(self.output, 1, self.name)
        check_zero_point(self.a_zero_point, "matmul first input")
        check_zero_point(self.b_zero_point, "matmul second input")

    def output_shape(self, *shapes: Shape) -> Shape:
        a, b = shapes
        if len(a) < 2 or len(a) != len(b):
            raise ShapeError(f"matmul takes two inputs of one rank, at least 2, found {a} and {b}")
        depth, columns = (b[-1], b[-2]) if self.transpose_b else (b[-2], b[-1])
        if a[:-2] != b[:-2] or a[-1] != depth:
            raise ShapeError(f"matmul cannot multiply {a} by {b}" + (" transposed" if self.transpose_b else ""))
        self.output.check([depth * largest_distance(self.a_zero_point) * largest_distance(self.b_zero_point)])
        return (*a[:-1], columns)

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.a_zero_point, self.b_zero_point)

    def run(self, *inputs: Int8Array) -> Int8Array:
        a, b = inputs
        shape = self.output_shape(a.shape[1:], b.shape[1:])
        y = np.empty((a.shape[0], *shape), np.int8)
        _matmul(
            a.reshape(a.shape[0], -1, *a.shape[-2:]),
            b.reshape(b.shape[0], -1, *b.shape[-2:]),
            self.transpose_b,
            self.output.stage(shape[-1]),
            self.a_zero_point,
            self.b_zero_point,
            y.reshape(y.shape[0], -1, *shape[-2:]),
        )
        return y


@compiled()
def _matmul(
    a: Int8Array, b: Int8Array, transpose_b: bool, stage: Stage, a_zero_point: int, b_zero_point: int, y: Int8Array
) -> None:
    by_columns = prefers_columns(a.shape[3], y.shape[3])
    depth = padded_length(a.shape[3], VECTOR)
    width = padded_length(y.shape[3], VECTOR if by_columns else CHANNEL_BLOCK)
    taps = np.zeros((padded_length(a.shape[2], ROW_BLOCK), depth), np.int16)
    rows = np.zeros((0 if by_columns else width, depth), np.int16)  # of the right matrix, transposed
    columns = np.zeros((depth if by_columns else 0, width), np.int32)
    weight = Weight(rows, columns, np.zeros(width, np.int32))
    acc = np.empty((taps.shape[0], width), np.int32)
    for n in range(a.shape[0]):
        for batch in range(a.shape[1]):
            right = b[n, batch].T if transpose_b else b[n, batch]
            if by_columns:
                remove_zero_point(right, b_zero_point, columns)
            else:
                remove_zero_point(right.T, b_zero_point, rows)
            remove_zero_point(a[n, batch], a_zero_point, taps)
            accumulate(taps, weight, acc)
            finish_rows(acc, stage, y[n, batch])
