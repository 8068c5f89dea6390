"""Real numbers as integers: ranges, constants and biases."""

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.network import Constant
from refsim import TensorType
from refsim.errors import QuantizationError
from refsim.numerics import Int8Array, round_half_away, round_half_away_array


def affine(low: float, high: float, floor: float = 2.0**-24) -> tuple[float, int]:
    """Scale (float32) and zero point of the int8 quantisation of a range, widened so that zero is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, floor)))
    return scale, min(127, max(-128, round_half_away(-128 - low / scale)))


def quantize_constant(constant: Constant) -> tuple[Int8Array, TensorType]:
    """A constant as int8 with one scale: its own integers if it has them, else its range quantised."""
    stored = constant.stored
    if stored is not None and stored.min() >= -128 and stored.max() <= 127:
        scales, zeros = np.unique(constant.scale), np.unique(constant.zero_point)
        if scales.size == 1 and zeros.size == 1:
            kind = TensorType(stored.shape, float(np.float32(scales[0])), int(zeros[0]))
            return stored.astype(np.int8), kind
    real = constant.real.astype(np.float64)
    if not np.isfinite(real).all():
        raise QuantizationError("a constant holds values that are not finite")
    scale, zero_point = affine(float(real.min()), float(real.max()))
    kind = TensorType(tuple(real.shape), scale, zero_point)
    return kind.quantize(real), kind


def bias_steps(bias: Constant, steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """A bias in the accumulator's steps: its own integers where it has them at this scale."""
    real = bias.real.reshape(-1).astype(np.float64)
    if not np.isfinite(real).all():
        raise QuantizationError("the bias holds values that are not finite")
    if real.size != steps.size:
        real = np.broadcast_to(real, steps.shape)
    integers = round_half_away_array(np.clip(real / steps, -(2.0**40), 2.0**40))
    if bias.stored is not None and bias.stored.size == steps.size:
        same = np.abs(bias.scale.reshape(-1) - steps) <= 2.0**-20 * steps
        integers = np.where(same, bias.stored.reshape(-1) - bias.zero_point.reshape(-1), integers)
    return integers
