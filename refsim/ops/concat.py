"""Concat: join tensors along one axis, requantising those that differ (docs/numerics.md, concat)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import Int8Array, Rounding
from refsim.ops.base import Operator, Requantization
from refsim.ops.requantize import Requantize
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class Concat(Operator):
    """Join the inputs along `axis`.

    Attributes:
        axis: of one sample, not negative.
        rescale: for each input, the requantisation onto the output's scale, or None to copy its bytes.

    Raises:
        ShapeError: no input.
        QuantizationError: the requantisations differ in zero point or rounding, or clamp.
    """

    name: ClassVar[str] = "concat"
    arity: ClassVar[int | None] = None

    axis: int
    rescale: tuple[Requantize | None, ...]

    def __post_init__(self) -> None:
        if not self.rescale or self.axis < 0:
            raise ShapeError("concat needs at least one input and an axis of at least 0")
        outputs = {
            (r.output.zero_point, r.output.rounding, r.output.act_min, r.output.act_max) for r in self.rescale if r
        }
        if len(outputs) > 1 or any(o[2:] != (-128, 127) for o in outputs):
            raise QuantizationError(
                "concat requantises all its inputs onto one zero point with one rounding, unclamped"
            )

    @classmethod
    def from_types(
        cls, axis: int, inputs: Sequence[TensorType], y: TensorType, rounding: Rounding = Rounding.SINGLE
    ) -> "Concat":
        """Build from the quantisation of inputs and output.

        Raises:
            QuantizationError: scales too far apart.
        """
        return cls(
            axis,
            tuple(
                None
                if x.same_quantization(y)
                else Requantize(
                    x.zero_point, Requantization.from_real(x.scale / y.scale, y.zero_point, rounding=rounding)
                )
                for x in inputs
            ),
        )

    def output_shape(self, *shapes: Shape) -> Shape:
        if len(shapes) != len(self.rescale):
            raise ShapeError(f"concat was built for {len(self.rescale)} inputs, found {len(shapes)}")
        first = shapes[0]
        if self.axis >= len(first) or any(
            len(s) != len(first) or s[: self.axis] != first[: self.axis] or s[self.axis + 1 :] != first[self.axis + 1 :]
            for s in shapes
        ):
            raise ShapeError(f"concat cannot join {list(shapes)} along axis {self.axis}")
        return (*first[: self.axis], sum(s[self.axis] for s in shapes), *first[self.axis + 1 :])

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        for tensor, rescale in zip(inputs, self.rescale, strict=True):
            if rescale is None:
                self._expect_same_quantization([tensor], output)
            else:
                rescale.check_quantization([tensor], output)

    def run(self, *inputs: Int8Array) -> Int8Array:
        parts = [x if r is None else r.run(x) for x, r in zip(inputs, self.rescale, strict=True)]
        return np.concatenate(parts, axis=self.axis + 1)
