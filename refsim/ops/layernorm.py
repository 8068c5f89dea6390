"""LayerNorm: the paper's Scaled-LayerNorm over the last axis (section III-C; docs/numerics.md, layernorm)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refsim.compiled import compiled
from refsim.errors import QuantizationError, ShapeError
from refsim.matrices import finish_rows
from refsim.numerics import (
    Int8Array,
    Int16Array,
    Int32Array,
    Rounding,
    Stage,
    clamp,
    floor_log2,
    isqrt,
    round_half_away,
    round_half_away_array,
)
from refsim.ops.base import Operator, Requantization, check_array, check_channels
from refsim.tensor import Shape, TensorType

LONGEST_ROW = 2**15
LARGEST_EPSILON = 2**62 - 1
MOST_SCALE_BITS = 14


@dataclass(frozen=True, eq=False)
class LayerNorm(Operator):
    """y = requantised (normalised x, times 2^scale_bits) * gamma + beta.

    Attributes:
        gamma: int16 (C,), in [-32767, 32767].
        beta: int32 (C,), at scale s_gamma * 2^-scale_bits.
        epsilon: E = round(eps * C^2 / s_x^2), in [0, 2^62).
        output: requantisation, one multiplier.
        scale_bits: fraction bits of the normalised value; 7 is the paper's choice, 0 its naive variant; in [0, 14].

    Raises:
        ShapeError: gamma and beta do not fit, or rows are longer than 2^15.
        QuantizationError: a parameter out of range, or an accumulator that could overflow.
    """

    name: ClassVar[str] = "layernorm"

    gamma: Int16Array
    beta: Int32Array
    epsilon: int
    output: Requantization
    scale_bits: int = 7

    def __post_init__(self) -> None:
        check_array(self.gamma, np.int16, (None,), "layernorm gamma")
        check_array(self.beta, np.int32, (self.gamma.size,), "layernorm beta")
        check_channels(self.output, 1, self.name)
        if self.gamma.size > LONGEST_ROW:
            raise ShapeError(f"layernorm takes rows of up to {LONGEST_ROW} elements, found {self.gamma.size}")
        if (self.gamma == -(2**15)).any():
            raise QuantizationError("layernorm gamma must lie in [-32767, 32767], found -32768")
        if not 0 <= self.epsilon <= LARGEST_EPSILON:
            raise QuantizationError(f"layernorm epsilon must lie in [0, 2^62), found {self.epsilon}")
        if not 0 <= self.scale_bits <= MOST_SCALE_BITS:
            raise QuantizationError(f"layernorm takes 0 to {MOST_SCALE_BITS} scale bits, found {self.scale_bits}")
        gammas, betas = self.gamma.astype(np.int64), self.beta.astype(np.int64)
        self.output.check(32768 * np.abs(gammas) + np.abs(betas), "layernorm element")

    @classmethod
    def from_real(
        cls,
        gamma: NDArray[Any],
        beta: NDArray[Any],
        epsilon: float,
        x: TensorType,
        y: TensorType,
        scale_bits: int = 7,
        rounding: Rounding = Rounding.SINGLE,
    ) -> "LayerNorm":
        """Quantise real gamma and beta (C,) and epsilon for the given input and output.

        Raises:
            ShapeError: gamma and beta do not fit.
            QuantizationError: a parameter cannot be represented.
        """
        gamma64, beta64 = np.asarray(gamma, np.float64), np.asarray(beta, np.float64)
        if not (np.isfinite(gamma64).all() and np.isfinite(beta64).all() and epsilon >= 0):
            raise QuantizationError("layernorm needs finite gamma and beta and an epsilon of at least 0")
        largest = max(np.abs(gamma64).max() / 32767, np.abs(beta64).max() * 2**scale_bits / 2**29)
        scale = float(np.float32(largest)) or 1.0
        count = gamma64.size
        raw_epsilon = round_half_away((epsilon * count * count) / (x.scale * x.scale))
        return cls(
            np.clip(round_half_away_array(gamma64 / scale), -32767, 32767).astype(np.int16),
            round_half_away_array(beta64 / (scale * 2.0**-scale_bits)).astype(np.int32),
            max(raw_epsilon, 1) if epsilon > 0 else 0,
            Requantization.from_real((scale * 2.0**-scale_bits) / y.scale, y.zero_point, rounding=rounding),
            scale_bits,
        )

    def output_shape(self, *shapes: Shape) -> Shape:
        if not shapes[0] or shapes[0][-1] != self.gamma.size:
            raise ShapeError(f"layernorm takes rows of {self.gamma.size} elements, found shape {shapes[0]}")
        return shapes[0]

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_zero_point(output, self.output.zero_point, "output")

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty_like(x)
        batched = x.reshape(x.shape[0], -1, x.shape[-1])
        _layernorm(
            batched,
            self.gamma,
            self.beta,
            self.epsilon,
            self.scale_bits,
            self.output.stage(self.gamma.size),
            y.reshape(batched.shape),
        )
        return y


@compiled()
def _layernorm(
    x: Int8Array, gamma: Int16Array, beta: Int32Array, epsilon: int, scale_bits: int, stage: Stage, y: Int8Array
) -> None:
    rows, count = x.shape[1], np.int64(gamma.size)
    total = np.empty(rows, np.int64)
    variance = np.empty(rows, np.int64)
    half_shift = np.empty(rows, np.int64)  # p of the contract
    scaled = np.empty(rows, np.int64)
    root = np.empty(rows, np.int64)
    acc = np.empty((rows, gamma.size), np.int32)
    for n in range(x.shape[0]):
        for row in range(rows):
            total[row], variance[row] = _moments(x[n, row], epsilon)
            half_shift[row] = (np.int64(61) - floor_log2(max(variance[row], np.int64(1)))) >> np.int64(1)
            if half_shift[row] >= np.int64(0):
                scaled[row] = variance[row] << (np.int64(2) * half_shift[row])
            else:
                scaled[row] = variance[row] >> (np.int64(-2) * half_shift[row])
        isqrt(scaled, root)
        for row in range(rows):
            if variance[row] == np.int64(0):
                acc[row, :] = beta
                continue
            inverse = np.int64(2**61) // root[row]
            t = np.int64(61) - np.int64(scale_bits) - half_shift[row]
            half = np.int64(1) << (t - np.int64(1))
            for i in range(gamma.size):
                centred = count * np.int64(x[n, row, i]) - total[row]
                normalised = np.int32(clamp((centred * inverse + half) >> t, -(2**15), 2**15 - 1))
                acc[row, i] = np.int32(normalised * np.int32(gamma[i]) + beta[i])
        finish_rows(acc, stage, y[n])


@compiled()
def _moments(x: Int8Array, epsilon: int) -> tuple[np.int64, np.int64]:
    """Sum of a row, and its variance times the square of its length plus epsilon."""
    total = np.int64(0)
    squares = np.int64(0)
    for i in range(x.size):
        total += np.int64(x[i])
        squares += np.int64(x[i]) * np.int64(x[i])
    return total, np.int64(x.size) * squares - total * total + np.int64(epsilon)
