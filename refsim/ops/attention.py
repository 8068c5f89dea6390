"""Attention: softmax of scores times values, without its scores in memory (docs/numerics.md, attention)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from refsim.errors import QuantizationError
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.ops.matmul import MatMul
from refsim.ops.softmax import OUTPUT_ZERO_POINT, Softmax
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class Attention(Operator):
    """y = context(softmax(scores(q, k)), v): three operators one after the other, by definition.

    Attributes:
        scores: from queries q (..., M, K) and keys k (..., K, N), or (..., N, K) transposed.
        softmax: over the N scores of each query.
        context: from probabilities and values v (..., N, D), or (..., D, N) transposed.

    Raises:
        QuantizationError: `context` was built for probabilities of another zero point than softmax writes.
    """

    name: ClassVar[str] = "attention"
    arity: ClassVar[int | None] = 3

    scores: MatMul
    softmax: Softmax
    context: MatMul

    def __post_init__(self) -> None:
        if self.context.a_zero_point != OUTPUT_ZERO_POINT:
            raise QuantizationError(
                f"attention's probabilities have zero point {OUTPUT_ZERO_POINT}, "
                f"but their product with the values was built for {self.context.a_zero_point}"
            )

    def output_shape(self, *shapes: Shape) -> Shape:
        q, k, v = shapes
        return self.context.output_shape(self.softmax.output_shape(self.scores.output_shape(q, k)), v)

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        zero_points = (*self.scores.zero_points, self.context.b_zero_point)
        for index, (tensor, zero_point) in enumerate(zip(inputs, zero_points, strict=True)):
            self._expect_zero_point(tensor, zero_point, f"input {index}")
        self._expect_zero_point(output, self.context.output.zero_point, "output")

    def run(self, *inputs: Int8Array) -> Int8Array:
        q, k, v = inputs
        return self.context.run(self.softmax.run(self.scores.run(q, k)), v)
