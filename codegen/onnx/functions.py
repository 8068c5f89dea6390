"""Real functions of one variable, by ONNX operator: what a lookup table can hold."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.network import Function

Real = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def compose(outer: Function, inner: Function) -> Function:
    """outer(inner(x))."""
    return lambda x: outer(inner(x))


def sigmoid(x: Real) -> Real:
    """1 / (1 + e^-x), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float64)


def gelu(x: Real) -> Real:
    """x * Phi(x), exact."""
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))), np.float64)


def gelu_tanh(x: Real) -> Real:
    """The tanh form of GELU."""
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), np.float64)


def clip(low: float, high: float) -> Function:
    """Limit to [low, high]."""
    return lambda x: np.clip(x, low, high)


def scale(factor: float) -> Function:
    """Multiply by a constant."""
    return lambda x: x * factor


def shift(offset: float) -> Function:
    """Add a constant."""
    return lambda x: x + offset


def _hard_sigmoid(attributes: dict[str, Any]) -> Function:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def _elu(attributes: dict[str, Any]) -> Function:
    alpha = attributes.get("alpha", 1.0)
    return lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _selu(attributes: dict[str, Any]) -> Function:
    alpha, gamma = (
        attributes.get("alpha", 1.67326319217681884765625),
        attributes.get("gamma", 1.05070102214813232421875),
    )
    return lambda x: gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(attributes: dict[str, Any]) -> Function:
    alpha = attributes.get("alpha", 1.0)
    return lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _leaky_relu(attributes: dict[str, Any]) -> Function:
    alpha = attributes.get("alpha", 0.01)
    return lambda x: np.where(x >= 0, x, alpha * x)


def _thresholded_relu(attributes: dict[str, Any]) -> Function:
    alpha = attributes.get("alpha", 1.0)
    return lambda x: np.where(x > alpha, x, 0.0)


def _gelu(attributes: dict[str, Any]) -> Function:
    return gelu_tanh if attributes.get("approximate", b"none") == b"tanh" else gelu


def _swish(default: float) -> Callable[[dict[str, Any]], Function]:
    def build(attributes: dict[str, Any]) -> Function:
        alpha = attributes.get("alpha", default)
        return lambda x: x * sigmoid(alpha * x)

    return build


def _plain(function: Callable[[Real], Any]) -> Callable[[dict[str, Any]], Function]:
    return lambda attributes: lambda x: np.asarray(function(x), np.float64)


UNARY: dict[str, Callable[[dict[str, Any]], Function]] = {
    "Abs": _plain(np.abs),
    "Ceil": _plain(np.ceil),
    "Celu": _celu,
    "Cos": _plain(np.cos),
    "Elu": _elu,
    "Erf": _plain(_erf),
    "Exp": _plain(np.exp),
    "FastGelu": lambda attributes: gelu_tanh,
    "Floor": _plain(np.floor),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "LeakyRelu": _leaky_relu,
    "Log": _plain(np.log),
    "Mish": _plain(lambda x: x * np.tanh(np.logaddexp(0, x))),
    "Neg": _plain(np.negative),
    "QuickGelu": _swish(1.702),
    "Reciprocal": _plain(lambda x: 1 / x),
    "Round": _plain(np.rint),
    "Selu": _selu,
    "Sigmoid": _plain(sigmoid),
    "Sign": _plain(np.sign),
    "Sin": _plain(np.sin),
    "Softplus": _plain(lambda x: np.logaddexp(0, x)),
    "Softsign": _plain(lambda x: x / (1 + np.abs(x))),
    "Sqrt": _plain(np.sqrt),
    "Swish": _swish(1.0),
    "Tanh": _plain(np.tanh),
    "ThresholdedRelu": _thresholded_relu,
}
"""Builders of the function from the node's attributes, by operator type."""
