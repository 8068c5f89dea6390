"""What a tensor of the integer graph is: its shape for one sample and its affine quantisation."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.compiled import compiled
from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import Int8Array

Shape = tuple[int, ...]

MOST_ELEMENTS = 2**28
"""Of a tensor, so that every index fits int32 in the kernels (docs/numerics.md, section 4)."""


@compiled()
def _quantize(real: NDArray[Any], scale: float, zero_point: int, q: Int8Array) -> None:
    for i in range(real.size):
        steps = np.float64(real[i]) / scale
        whole = math.floor(abs(steps))
        rounded = whole + 1.0 if abs(steps) - whole >= 0.5 else whole
        signed = rounded if steps >= 0.0 else -rounded
        q[i] = np.int8(min(max(signed + zero_point, -128.0), 127.0))


@dataclass(frozen=True)
class TensorType:
    """An int8 activation: real = scale * (q - zero_point) (docs/numerics.md, section 1).

    Attributes:
        shape: shape of one sample, without the batch axis; channels last.
        scale: positive float32 value.
        zero_point: in [-128, 127].

    Raises:
        ShapeError: an axis is not a positive integer, or there are more than 2^28 elements.
        QuantizationError: scale or zero point out of range.
    """

    shape: Shape
    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if any(not isinstance(n, int) or n < 1 for n in self.shape):
            raise ShapeError(f"every axis must be a positive integer, found shape {self.shape}")
        if self.size > MOST_ELEMENTS:
            raise ShapeError(
                f"a tensor holds at most {MOST_ELEMENTS} elements, found {self.size} in shape {self.shape}"
            )
        if not (math.isfinite(self.scale) and self.scale > 0) or float(np.float32(self.scale)) != self.scale:
            raise QuantizationError(f"a scale must be a positive finite float32, found {self.scale!r}")
        if not -128 <= self.zero_point <= 127:
            raise QuantizationError(f"a zero point must lie in [-128, 127], found {self.zero_point}")

    @property
    def size(self) -> int:
        """Elements of one sample, which is also its bytes."""
        return math.prod(self.shape)

    def same_quantization(self, other: "TensorType") -> bool:
        """Whether both map bytes to the same real numbers."""
        return self.scale == other.scale and self.zero_point == other.zero_point

    def quantize(self, real: NDArray[Any]) -> Int8Array:
        """Real numbers (any shape) to int8: over the scale, rounded half away from zero, plus the zero point."""
        flat = np.ascontiguousarray(real, np.float32 if real.dtype == np.float32 else np.float64).reshape(-1)
        q = np.empty(flat.size, np.int8)
        _quantize(flat, self.scale, self.zero_point, q)
        return q.reshape(real.shape)

    def dequantize(self, q: Int8Array) -> NDArray[np.float32]:
        """int8 (any shape) to the float32 numbers they stand for."""
        return ((q.astype(np.int32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)
