"""MatMul: batched product of two activations (docs/numerics.md, matmul)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.matrices import (
    BLOCK,
    accumulate,
    finish_columns,
    finish_rows,
    padded_length,
    remove_zero_point,
    remove_zero_point_transposed,
    write_transposed,
)
from refsim.numerics import Int8Array, Stage, largest_distance
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
        columns = b.shape[-2] if self.transpose_b else b.shape[-1]
        y = np.empty((*a.shape[:-1], columns), np.int8)
        _matmul(
            a.reshape(a.shape[0], -1, *a.shape[-2:]),
            b.reshape(b.shape[0], -1, *b.shape[-2:]),
            self.transpose_b,
            self.output.stage(columns),
            self.a_zero_point,
            self.b_zero_point,
            y.reshape(y.shape[0], -1, *y.shape[-2:]),
        )
        return y


@compiled()
def _matmul(
    a: Int8Array, b: Int8Array, transpose_b: bool, stage: Stage, a_zero_point: int, b_zero_point: int, y: Int8Array
) -> None:
    """a (N, B, I, K) times b (N, B, K, J), or b (N, B, J, K) transposed, to y (N, B, I, J).

    The longer of I and J gives the inner loops: where that is I, the transposed product is computed.
    """
    rows, columns = y.shape[2], y.shape[3]
    swap = rows > columns
    length = rows if swap else columns
    depth = padded_length(a.shape[3], BLOCK)
    left = np.zeros((padded_length(columns if swap else rows, BLOCK), depth), np.int16)
    right = np.zeros((depth, length), np.int32)
    offsets = np.arange(depth) * length
    acc = np.empty((left.shape[0], length), np.int32)
    finished = np.empty((columns, rows), np.int8)
    words = np.empty(max(rows, columns, depth), np.uint64)
    for n in range(a.shape[0]):
        for batch in range(a.shape[1]):
            acc[:] = np.int32(0)
            if swap:
                if transpose_b:
                    remove_zero_point(b[n, batch], b_zero_point, left)
                else:
                    remove_zero_point_transposed(b[n, batch], b_zero_point, words, left)
                remove_zero_point_transposed(a[n, batch], a_zero_point, words, right)
                accumulate(left, right.ravel(), offsets, acc)
                finish_columns(acc, 0, stage, finished)
                write_transposed(finished, words, y[n, batch])
            else:
                remove_zero_point(a[n, batch], a_zero_point, left)
                if transpose_b:
                    remove_zero_point_transposed(b[n, batch], b_zero_point, words, right)
                else:
                    remove_zero_point(b[n, batch], b_zero_point, right)
                accumulate(left, right.ravel(), offsets, acc)
                finish_rows(acc, stage, y[n, batch])
