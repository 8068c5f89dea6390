"""Softmax: over the last axis, in fixed point (docs/numerics.md, softmax)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refsim.compiled import compiled
from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import Int8Array, Integer, clamp, floor_log2, normalise_multiplier, rdbpot, srdhm
from refsim.ops.base import Operator
from refsim.tensor import Shape, TensorType

OUTPUT_SCALE = 1 / 256
OUTPUT_ZERO_POINT = -128
LONGEST_ROW = 4095
"""Rows up to this length cannot overflow the Q12.19 sum."""


@dataclass(frozen=True, eq=False)
class Softmax(Operator):
    """y = 256 * softmax(x) - 128 over the last axis; output scale 1/256, zero point -128.

    Attributes:
        multiplier, shift: the input scale in Q5.26, srdhm(d << shift, multiplier); shift in [1, 31].
        diff_min: differences to the row's maximum below this give -128; -floor(31 * 2^26 / 2^shift).

    Raises:
        QuantizationError: multiplier, shift or diff_min out of range.
    """

    name: ClassVar[str] = "softmax"

    multiplier: int
    shift: int
    diff_min: int

    def __post_init__(self) -> None:
        if not 2**30 <= self.multiplier < 2**31 or not 1 <= self.shift <= 31:
            raise QuantizationError(
                "softmax needs a multiplier in [2^30, 2^31) and a shift in [1, 31], "
                f"found {self.multiplier}, {self.shift}"
            )
        if self.diff_min != smallest_difference(self.shift):
            raise QuantizationError(f"softmax with shift {self.shift} has diff_min {smallest_difference(self.shift)}")

    @classmethod
    def from_scale(cls, scale: float) -> "Softmax":
        """Build for an input of the given scale.

        Raises:
            QuantizationError: the scale is too small (2^-26 or less).
        """
        real = min(scale * 2.0**26, 2.0**31 - 1)
        if real <= 1:
            raise QuantizationError(f"softmax needs an input scale above 2^-26, found {scale:g}")
        multiplier, shift = normalise_multiplier(real)
        return cls(multiplier, shift, smallest_difference(shift))

    def output_shape(self, *shapes: Shape) -> Shape:
        if not shapes[0] or shapes[0][-1] > LONGEST_ROW:
            raise ShapeError(f"softmax takes rows of up to {LONGEST_ROW} elements, found shape {shapes[0]}")
        return shapes[0]

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        if output.scale != OUTPUT_SCALE or output.zero_point != OUTPUT_ZERO_POINT:
            raise QuantizationError(
                f"softmax writes scale 1/256, zero point -128, but its output has {output.scale:g}, {output.zero_point}"
            )

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty_like(x)
        batched = x.reshape(x.shape[0], -1, x.shape[-1])
        _softmax(batched, self.multiplier, self.shift, self.diff_min, y.reshape(batched.shape))
        return y


def smallest_difference(shift: int) -> int:
    """diff_min for a shift: differences below it would leave Q5.26."""
    return -(31 * 2**26 >> shift)


@compiled()
def exp_on_negative(a: Integer) -> np.int64:
    """e^a for a <= 0 in Q5.26, as Q0.31."""
    if a == 0:
        return np.int64(2**31 - 1)
    quarter = (np.int64(a) & np.int64(2**24 - 1)) - np.int64(2**24)
    x = (quarter << np.int64(5)) + np.int64(2**28)
    x2 = srdhm(x, x)
    x3 = srdhm(x2, x)
    x4 = srdhm(x2, x2)
    polynomial = rdbpot(srdhm(rdbpot(x4, 2) + x3, 715827883) + x2, 1)
    result = np.int64(1895147668) + srdhm(1895147668, x + polynomial)
    remainder = quarter - np.int64(a)
    for step in range(7):
        if remainder & (np.int64(1) << np.int64(24 + step)):
            result = srdhm(result, _EXP_FACTORS[step])
    return result


_EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""e^(-2^(k - 2)) in Q0.31, k = 0..6."""


@compiled()
def reciprocal(a: Integer) -> np.int64:
    """1 / (1 + a) for 0 <= a < 1, both in Q0.31."""
    half = (np.int64(a) + np.int64(2**31)) >> np.int64(1)
    x = np.int64(1515870810) + srdhm(half, -1010580540)
    for _ in range(3):
        correction = srdhm(x, np.int64(2**29) - srdhm(half, x))
        x = x + clamp(correction << np.int64(2), -(2**31), 2**31 - 1)
    return clamp(x << np.int64(1), -(2**31), 2**31 - 1)


@compiled()
def _softmax(x: Int8Array, multiplier: int, shift: int, diff_min: int, y: Int8Array) -> None:
    # An exponential depends on the difference alone: evaluate each of the 256 once. Below diff_min it is 0, which adds
    # nothing to a sum and gives -128.
    exponentials = np.zeros(256, np.int32)
    for magnitude in range(min(np.int64(255), -np.int64(diff_min)) + 1):
        scaled = srdhm(-(np.int64(magnitude) << np.int64(shift)), multiplier)
        exponentials[magnitude] = np.int32(exp_on_negative(scaled))
    rows = x.shape[1]
    e = np.empty((rows, x.shape[2]), np.int32)
    largest = np.empty(rows, np.int8)
    total = np.empty(rows, np.int64)  # in Q12.19
    inverse = np.empty(rows, np.int64)
    exponent = np.empty(rows, np.int64)
    for n in range(x.shape[0]):
        for row in range(rows):
            largest[row] = np.int8(-128)
            for i in range(x.shape[2]):
                largest[row] = max(largest[row], x[n, row, i])
        for row in range(rows):
            for i in range(x.shape[2]):
                e[row, i] = exponentials[np.uint8(np.int64(largest[row]) - np.int64(x[n, row, i]))]
        for row in range(rows):
            total[row] = np.int64(0)
            for i in range(x.shape[2]):
                total[row] += rdbpot(e[row, i], 12)
        for row in range(rows):
            headroom = np.int64(31) - floor_log2(total[row])
            inverse[row] = reciprocal((total[row] << headroom) - np.int64(2**31))
            exponent[row] = np.int64(12) - headroom + np.int64(23)
        for row in range(rows):
            if exponent[row] > np.int64(31):
                y[n, row, :] = np.int8(-128)
                continue
            for i in range(x.shape[2]):
                share = rdbpot(srdhm(inverse[row], e[row, i]), exponent[row])
                y[n, row, i] = np.int8(clamp(share - np.int64(128), -128, 127))
