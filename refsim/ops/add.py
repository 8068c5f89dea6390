"""Add: element-wise sum or difference of two activations with broadcasting (docs/numerics.md, add)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.numerics import (
    Int8Array,
    Integer,
    Multiplier,
    Rounding,
    Stage,
    check_multiplier,
    clamp,
    largest_distance,
    quantize_multiplier,
    requantize,
    requantized_bound,
)
from refsim.ops.base import (
    Requantization,
    Requantizing,
    broadcast_inputs,
    broadcast_shape,
    check_channels,
    check_zero_point,
)
from refsim.tensor import Shape, TensorType

LEFT_SHIFT = 20
"""Bits by which both inputs are raised before they are rescaled."""


@dataclass(frozen=True, eq=False)
class Add(Requantizing):
    """y = requantised (rescaled (a - z_a) * 2^20 + rescaled (b - z_b) * 2^20), or the difference.

    Attributes:
        a_zero_point, b_zero_point: of the inputs.
        a_multiplier, b_multiplier: rescale each input onto 2 * max(s_a, s_b).
        output: requantisation of the sum, one multiplier; its rounding mode holds for the inputs too.
        subtract: the second rescaled input is subtracted. A negated multiplier would round ties the other way.

    Raises:
        ShapeError: more than one output multiplier.
        QuantizationError: a zero point out of range, or a sum that could overflow.
    """

    name: ClassVar[str] = "add"
    arity: ClassVar[int | None] = 2

    a_zero_point: int
    b_zero_point: int
    a_multiplier: Multiplier
    b_multiplier: Multiplier
    output: Requantization
    subtract: bool = False

    def __post_init__(self) -> None:
        check_channels(self.output, 1, self.name)
        check_zero_point(self.a_zero_point, "add first input")
        check_zero_point(self.b_zero_point, "add second input")
        total = 0
        for zero_point, multiplier, what in (
            (self.a_zero_point, self.a_multiplier, "add first input"),
            (self.b_zero_point, self.b_multiplier, "add second input"),
        ):
            check_multiplier(multiplier, what)
            bound = largest_distance(zero_point) << LEFT_SHIFT
            total += requantized_bound(bound, *multiplier, self.output.rounding, what)
        self.output.check([total], "add sum")

    @classmethod
    def from_types(
        cls,
        a: TensorType,
        b: TensorType,
        y: TensorType,
        act_min: int = -128,
        act_max: int = 127,
        rounding: Rounding = Rounding.SINGLE,
        subtract: bool = False,
    ) -> "Add":
        """Build from the quantisation of inputs and output.

        Raises:
            QuantizationError: the scales are too far apart.
        """
        twice = 2 * max(a.scale, b.scale)
        return cls(
            a.zero_point,
            b.zero_point,
            quantize_multiplier(a.scale / twice),
            quantize_multiplier(b.scale / twice),
            Requantization.from_real(twice / (2**LEFT_SHIFT * y.scale), y.zero_point, act_min, act_max, rounding),
            subtract,
        )

    def output_shape(self, *shapes: Shape) -> Shape:
        return broadcast_shape(self.name, *shapes)

    @property
    def zero_points(self) -> tuple[int, ...]:
        return (self.a_zero_point, self.b_zero_point)

    def run(self, *inputs: Int8Array) -> Int8Array:
        a, b, y = broadcast_inputs(self, *inputs)
        _add(
            a.reshape(a.shape[0], -1),
            b.reshape(b.shape[0], -1),
            self.a_zero_point,
            self.b_zero_point,
            self.a_multiplier,
            self.b_multiplier,
            self.output.stage(),
            -1 if self.subtract else 1,
            y.reshape(y.shape[0], -1),
        )
        return y


@compiled(inline=True)
def _add_one(
    a: Integer,
    b: Integer,
    a_multiplier: Multiplier,
    b_multiplier: Multiplier,
    output: Multiplier,
    rounding: int,
    sign: int,
) -> np.int64:
    """The requantised sum of two values, their zero points removed; sign is that of the second."""
    scaled_a = requantize(np.int64(a) << np.int64(LEFT_SHIFT), a_multiplier.multiplier, a_multiplier.shift, rounding)
    scaled_b = requantize(np.int64(b) << np.int64(LEFT_SHIFT), b_multiplier.multiplier, b_multiplier.shift, rounding)
    return requantize(scaled_a + np.int64(sign) * scaled_b, output.multiplier, output.shift, rounding)


@compiled()
def _add(
    a: Int8Array,
    b: Int8Array,
    a_zero_point: int,
    b_zero_point: int,
    a_multiplier: Multiplier,
    b_multiplier: Multiplier,
    stage: Stage,
    sign: int,
    y: Int8Array,
) -> None:
    output = Multiplier(stage.multiplier[0], stage.shift[0])
    for n in range(a.shape[0]):
        if stage.rounding == 0:  # the branch stands outside the loop so that each loop compiles to vector code
            for i in range(a.shape[1]):
                left = np.int64(a[n, i]) - np.int64(a_zero_point)
                right = np.int64(b[n, i]) - np.int64(b_zero_point)
                total = _add_one(left, right, a_multiplier, b_multiplier, output, 0, sign)
                y[n, i] = np.int8(clamp(total + np.int64(stage.zero_point), stage.act_min, stage.act_max))
        else:
            for i in range(a.shape[1]):
                left = np.int64(a[n, i]) - np.int64(a_zero_point)
                right = np.int64(b[n, i]) - np.int64(b_zero_point)
                total = _add_one(left, right, a_multiplier, b_multiplier, output, 1, sign)
                y[n, i] = np.int8(clamp(total + np.int64(stage.zero_point), stage.act_min, stage.act_max))
