"""MatMul: batched product of two activations (docs/numerics.md, matmul)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import prange

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.numerics import Int8Array, Int16Array, Stage, finish_row, largest_distance
from refsim.ops.base import Operator, Requantization, check_channels, check_zero_point
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class MatMul(Operator):
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

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_zero_point(inputs[0], self.a_zero_point, "first input")
        self._expect_zero_point(inputs[1], self.b_zero_point, "second input")
        self._expect_zero_point(output, self.output.zero_point, "output")

    def run(self, *inputs: Int8Array) -> Int8Array:
        a, b = inputs
        shape = self.output_shape(a.shape[1:], b.shape[1:])
        y = np.empty((a.shape[0], *shape), np.int8)
        batched = [t.reshape(t.shape[0], -1, *t.shape[-2:]) for t in (a, b, y)]
        if not self.transpose_b:
            batched[1] = np.ascontiguousarray(batched[1].swapaxes(2, 3))
        _matmul(
            batched[0],
            batched[1],
            self.output.stage(shape[-1]),
            self.a_zero_point,
            self.b_zero_point,
            batched[2],
        )
        return y


@compiled(parallel=True)
def _matmul(a: Int8Array, b: Int8Array, stage: Stage, a_zero_point: int, b_zero_point: int, y: Int8Array) -> None:
    """Multiply rows of a (N, B, M, K) with rows of b (N, B, columns, K)."""
    for n in prange(a.shape[0]):
        acc = np.empty(y.shape[3], np.int32)
        row = np.empty(a.shape[3], np.int16)
        columns = np.empty((b.shape[2], b.shape[3]), np.int16)
        for batch in range(a.shape[1]):
            for j in range(columns.shape[0]):
                _remove_zero_point(b[n, batch, j], b_zero_point, columns[j])
            for m in range(a.shape[2]):
                _remove_zero_point(a[n, batch, m], a_zero_point, row)
                for j in range(acc.size):
                    total = np.int32(0)
                    for k in range(row.size):
                        total = np.int32(total + np.int32(np.int32(row[k]) * np.int32(columns[j, k])))
                    acc[j] = total
                finish_row(acc, stage, 0, y[n, batch, m])


@compiled()
def _remove_zero_point(x: Int8Array, zero_point: int, centred: Int16Array) -> None:
    for i in range(x.size):
        centred[i] = np.int16(np.int16(x[i]) - np.int16(zero_point))
