"""int8 -> int8 functions as TensorFlow Lite's reference kernels define them, tabulated over all 256 bytes."""

import math
from collections.abc import Callable

import numpy as np

from refsim.errors import QuantizationError, UnsupportedError
from refsim.numerics import Int8Array, Multiplier, Rounding, quantize_multiplier, rdbpot, requantize, round_half_away
from refsim.tensor import TensorType

_BYTES = range(-128, 128)
_INT16_MAX = 2**15 - 1


def float_table(function: Callable[[float], float], x: TensorType, y: TensorType) -> Int8Array:
    """A table as the engine fills it, in float32 throughout.

    Args:
        function: of a real number; its result is rounded to float32.
        x: quantisation of the input.
        y: quantisation of the output.

    Returns:
        int8 (256,).

    Raises:
        QuantizationError: the scales leave float32's range.
    """
    inverse = np.float32(1) / np.float32(y.scale)
    values = []
    for q in _BYTES:
        real = np.float32(x.scale) * np.float32(q - x.zero_point)
        scaled = float(np.float32(function(float(real))) * inverse)
        if math.isnan(scaled):
            raise QuantizationError(f"scales {x.scale:g} and {y.scale:g} are out of float32's range together")
        values.append(round_half_away(max(-1e6, min(1e6, scaled))) + y.zero_point)
    return np.clip(values, -128, 127).astype(np.int8)


def logistic(x: float) -> float:
    """1 / (1 + e^-x), each step rounded to float32."""
    return float(np.float32(1) / (np.float32(1) + np.float32(np.exp(-x))))


def gelu(x: float) -> float:
    """x * Phi(x), with erfc so that nothing cancels; each step rounded to float32."""
    real = np.float32(x)
    return float(np.float32(0.5) * real * np.float32(math.erfc(real * np.float32(-math.sqrt(0.5)))))


def gelu_tanh(x: float) -> float:
    """GELU's approximation with tanh (Hendrycks and Gimpel, arXiv:1606.08415); each step rounded to float32."""
    real, one = np.float32(x), np.float32(1)
    inner = np.float32(math.sqrt(2 / math.pi)) * real * (one + np.float32(0.044715) * real * real)
    return float(np.float32(0.5) * real * (one + np.float32(math.tanh(inner))))


def leaky_relu_table(alpha: float, x: TensorType, y: TensorType, rounding: Rounding) -> Int8Array:
    """Two slopes, each with its own multiplier, computed from float32 scales in float32.

    Returns:
        int8 (256,).

    Raises:
        QuantizationError: a multiplier out of range.
    """
    sx, sy = np.float32(x.scale), np.float32(y.scale)
    slopes = {
        sign: quantize_multiplier(float(real)) for sign, real in ((1, sx / sy), (-1, sx * np.float32(abs(alpha)) / sy))
    }
    if alpha < 0:
        raise UnsupportedError(f"a LEAKY_RELU with the negative slope {alpha:g} is not supported")
    values = []
    for q in _BYTES:
        distance = q - x.zero_point
        pair = slopes[1 if distance >= 0 else -1]
        values.append(int(requantize(distance, pair.multiplier, pair.shift, int(rounding))) + y.zero_point)
    return np.clip(values, -128, 127).astype(np.int8)


def hard_swish_table(x: TensorType, y: TensorType) -> Int8Array:
    """x * relu6(x + 3) / 6 in 16-bit fixed point.

    The input is taken 7 bits to the left. One factor is scaled onto the output, before its last shift; the other onto
    [-1, 1] for x in [-3, 3], saturating, and moved to [0, 1].

    Returns:
        int8 (256,).

    Raises:
        UnsupportedError: the output's scale is smaller than the input's over 128, where the engine stops too.
    """
    fine = np.float32(1 / 128) * np.float32(x.scale)
    onto_output, output_shift = _to_int16(quantize_multiplier(float(fine / np.float32(y.scale))))
    onto_unit, unit_shift = _to_int16(quantize_multiplier(float(fine / (np.float32(3) / np.float32(32768)))))
    if output_shift > 0:
        raise UnsupportedError(
            f"a HARD_SWISH from scale {x.scale:g} to {y.scale:g} is not supported: the output's must be at least "
            "1/128 of the input's"
        )
    values = []
    for q in _BYTES:
        value = (q - x.zero_point) << 7
        scaled = _srdhm16(value, onto_output)
        gate = value
        if unit_shift > 0:
            gate = _sat16(gate << (unit_shift - 1))
        gate = _srdhm16(gate, onto_unit)
        if unit_shift > 0:
            gate = _sat16(gate << 1)
        elif unit_shift < 0:
            gate = int(rdbpot(gate, min(-unit_shift, 31)))
        gate = (gate + 2**15) >> 1
        product = int(gate * scaled / 2**15)  # exact in float64, truncated
        values.append(int(rdbpot(product, min(-output_shift, 31))) + y.zero_point)
    return np.clip(values, -128, 127).astype(np.int8)


def _to_int16(pair: Multiplier) -> tuple[int, int]:
    """A multiplier's upper 16 bits, rounded."""
    return min((pair.multiplier + 2**15) >> 16, _INT16_MAX), pair.shift


def _srdhm16(a: int, b: int) -> int:
    """`srdhm` of two int16; b is positive."""
    product = a * b + (2**14 if a * b >= 0 else 1 - 2**14)
    return abs(product) // 2**15 * (1 if product >= 0 else -1)


def _sat16(v: int) -> int:
    return max(-(2**15), min(_INT16_MAX, v))
