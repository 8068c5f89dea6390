"""Normalisers of operators that work element by element."""

import math

import numpy as np

from codegen.onnx import functions
from codegen.onnx.context import Context, Normalizer
from codegen.onnx.network import Function


def _scalar(context: Context, position: int) -> float | None:
    """The scalar constant at an input position, if it does not enlarge the other input."""
    other = context.inputs[1 - position]
    if other in context.network.constants or context.network.shapes[other] != context.output_shape:
        return None
    return context.network.scalar(context.inputs[position])


def _unary(context: Context, function: Function, operand: float | None = None, position: int = 0) -> None:
    context.emit("Unary", [context.inputs[position]], function=function, of=context.node.op_type, operand=operand)


def _add(context: Context) -> None:
    for position in (0, 1):
        value = _scalar(context, position)
        before = context.network.producer(context.inputs[1 - position])
        if value is not None and (before is None or before.kind not in ("Linear", "Conv")):  # behind those it is a bias
            _unary(context, functions.shift(value), value, 1 - position)
            return
    context.emit("Add", context.inputs)


def _sub(context: Context) -> None:
    left, right = _scalar(context, 0), _scalar(context, 1)
    if right is not None:
        return _unary(context, lambda x: x - right, -right)
    if left is not None:
        return _unary(context, lambda x: left - x, None, 1)
    subtracted = context.network.constants.get(context.inputs[1])
    if subtracted is None:
        context.emit("Sub", context.inputs)
    else:
        negative = context.network.add_constant(f"{context.inputs[1]}/negative", subtracted.multiply(-1.0))
        context.emit("Add", [context.inputs[0], negative])
    return None


def _mul(context: Context) -> None:
    if context.inputs[0] == context.inputs[1]:
        return _unary(context, np.square, 2.0)
    for position in (0, 1):
        value = _scalar(context, position)
        if value is not None:
            context.emit("Scale", [context.inputs[1 - position]], factor=value)
            return None
    context.emit("Mul", context.inputs)
    return None


def _div(context: Context) -> None:
    left, right = _scalar(context, 0), _scalar(context, 1)
    if right:
        context.emit("Scale", factor=1 / right)
        return None
    if left is not None:
        return _unary(context, lambda x: left / x, left, 1)
    divisor = context.network.constants.get(context.inputs[1])
    if divisor is None:
        context.emit("Div", context.inputs)
        return None
    if not np.asarray(divisor.real).all():
        raise context.unsupported(f"the divisor {context.inputs[1]!r} holds a zero")
    inverse = type(divisor)(1 / divisor.real)
    context.emit("Mul", [context.inputs[0], context.network.add_constant(f"{context.inputs[1]}/inverse", inverse)])
    return None


def _pow(context: Context) -> None:
    exponent = _scalar(context, 1)
    if exponent is None:
        raise context.unsupported("the exponent must be a constant scalar")
    _unary(context, lambda x: np.power(x, exponent), exponent)


def _limit(position: int) -> Normalizer:
    """Max and Min with a scalar constant."""

    def build(context: Context) -> None:
        for side in (0, 1):
            value = _scalar(context, side) if len(context.inputs) == 2 else None
            if value is not None:
                low, high = (value, math.inf) if position == 0 else (-math.inf, value)
                context.emit("Clip", [context.inputs[1 - side]], low=low, high=high)
                return
        raise context.unsupported("one of two inputs must be a constant scalar")

    return build


def _clip(context: Context) -> None:
    low, high = (
        missing if bound is None else float(bound.reshape(()))
        for bound, missing in ((context.constant(1, "min"), -math.inf), (context.constant(2, "max"), math.inf))
    )
    _limits(context, low, high)


def _relu(context: Context) -> None:
    _limits(context, 0.0, math.inf)


def _limits(context: Context, low: float, high: float) -> None:
    """Bounds of the integers, between QuantizeLinear and DequantizeLinear, become those of what they stand for."""
    if np.issubdtype(context.dtype, np.integer):
        known = context.network.quantizations.get(context.inputs[0])
        if known is None:
            raise context.unsupported(
                f"it works on the integers of {context.inputs[0]!r}: that is supported behind QuantizeLinear only"
            )
        zero_point = known.zero_point + (128 if context.dtype == np.uint8 else 0)
        low, high = (low - zero_point) * known.scale, (high - zero_point) * known.scale
    context.emit("Clip", low=low, high=high)


def _prelu(context: Context) -> None:
    slope = context.network.scalar(context.inputs[1])
    if slope is None:
        raise context.unsupported("one slope for all channels is supported")
    _unary(context, functions.UNARY["LeakyRelu"]({"alpha": slope}))


def _activation(context: Context) -> None:
    if len([name for name in context.inputs if name]) > 1:
        raise context.unsupported("a fused bias is not supported: export it as Add")
    _unary(context, functions.UNARY[context.node.op_type](context.attributes))


ELEMENTWISE: dict[str, Normalizer] = {
    "Add": _add,
    "Clip": _clip,
    "Div": _div,
    "Max": _limit(0),
    "Min": _limit(1),
    "Mul": _mul,
    "PRelu": _prelu,
    "Pow": _pow,
    "Relu": _relu,
    "Sub": _sub,
    **dict.fromkeys(functions.UNARY, _activation),
}
"""By ONNX operator type."""
