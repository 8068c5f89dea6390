"""Patterns of float operators that become one integer operator.

The same analysis serves import, where Q/DQ pairs may stand inside a pattern (one integer operator in place of several
rounded ones is more exact), and the quantiser, which puts Q/DQ pairs exactly on the boundaries that remain. Quantisers
leave out a ReLU or Clip whose bounds are those of the pair behind it: where a pair disappears, its limits must not.
"""

import math
from collections.abc import Callable

import numpy as np

from codegen.onnx import functions
from codegen.onnx.network import Constant, Function, Network, Op
from refsim.errors import ModelError, UnsupportedError

Rule = Callable[[Network, Op], bool]
"""Tries a pattern that ends in the operator; True if it changed the network."""

CLAMPING = (
    "Conv",
    "Linear",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Mean",
    "MaxPool",
    "AveragePool",
    "LayerNorm",
    "Requantize",
    "Scale",
)
"""Kinds whose output range can be narrowed without another operator."""

SCALING = ("Conv", "Linear", "MatMul", "Mul", "Mean", "Add", "Sub", "LayerNorm")
"""Kinds whose requantisation can take a constant factor."""


def fuse(network: Network) -> None:
    """Apply every rule until none applies."""
    for rules in (
        (_layer_norm,),
        (_function_of_one, _chain),
        (_batch_norm, _bias, _channel_factor),
        (_clamp, _factor_after, _chain),
    ):
        while any(rule(network, op) for rule in rules for op in network.ops):
            network.drop_unused()
    _remaining_batch_norms(network)
    network.drop_unused()


def _elementwise(op: Op | None) -> Function | None:
    """The function of an operator with one activation input that works element by element."""
    if op is None:
        return None
    if op.kind == "Unary":
        function: Function = op.attributes["function"]
        return function
    if op.kind == "Clip":
        return functions.clip(op.attributes["low"], op.attributes["high"])
    if op.kind == "Scale":
        return functions.scale(op.attributes["factor"])
    return None


# LayerNormalization, written out ------------------------------------------------------------------------------------


def _layer_norm(network: Network, op: Op) -> bool:
    """(x - mean) / sqrt(mean of (x - mean)^2 + epsilon) over the last axis [* gamma] [+ beta]."""
    found = _normalised(network, op)
    if found is None:
        return False
    x, epsilon = found
    width = network.shapes[x][-1]
    last, gamma = _with_row(network, op, "Mul", width)
    last, beta = _with_row(network, last, "Add", width)
    if beta and not gamma:
        gamma = [network.add_constant(f"{op.name}/ones", Constant(np.ones(width)))]
    index = network.ops.index(last)
    network.ops[index] = Op(op.name, "LayerNorm", [x, *gamma, *beta], last.output, {"epsilon": epsilon})
    return True


def _with_row(network: Network, op: Op, kind: str, width: int) -> tuple[Op, list[str]]:
    """The operator of that kind behind `op`, and its constant if that is one row; else `op` and nothing."""
    readers = network.consumers(op.output)
    if len(readers) != 1 or readers[0].kind != kind or network.is_output(op.output):
        return op, []
    row = _row(network, readers[0], width)
    return (readers[0], [row]) if row else (op, [])


def _normalised(network: Network, op: Op) -> tuple[str, float] | None:
    """x and epsilon, if the operator ends the normalisation of x."""
    if op.kind == "Div":
        centred, spread = op.inputs[0], _unary(network, op.inputs[1], "Sqrt")
    elif op.kind == "Mul":
        inverses = [_unary(network, name, "Reciprocal") or _unary(network, name, "Div") for name in op.inputs]
        position = 0 if inverses[0] is not None else 1
        centred, spread = op.inputs[1 - position], _unary(network, inverses[position] or "", "Sqrt")
    else:
        return None
    shifted = network.producer(spread or "")
    if shifted is None or shifted.kind != "Unary" or shifted.attributes["of"] != "Add":
        return None
    variance = network.producer(shifted.inputs[0])
    difference = network.producer(centred)
    if variance is None or variance.kind != "Mean" or difference is None or difference.kind != "Sub":
        return None
    square = network.producer(variance.inputs[0])
    if (
        square is None
        or square.kind != "Unary"
        or square.attributes["of"] not in ("Pow", "Mul")
        or square.attributes["operand"] != 2
    ):
        return None
    again = network.producer(square.inputs[0])
    x = difference.inputs[0]
    last = (len(network.shapes[x]) - 1,)
    means = [network.producer(d.inputs[1]) for d in (difference, again) if d is not None and d.kind == "Sub"]
    if len(means) != 2 or again is None or again.inputs[0] != x or variance.attributes["axes"] != last:
        return None
    if any(m is None or m.kind != "Mean" or m.inputs[0] != x or m.attributes["axes"] != last for m in means):
        return None
    return x, float(shifted.attributes["operand"])


def _unary(network: Network, tensor: str, of: str) -> str | None:
    """The input of the unary operator `of` that writes the tensor."""
    op = network.producer(tensor)
    return op.inputs[0] if op is not None and op.kind == "Unary" and op.attributes["of"] == of else None


def _row(network: Network, op: Op, width: int) -> str | None:
    """The constant input of a binary operator if it is one row of the given width."""
    for name in op.inputs:
        constant = network.constants.get(name)
        if constant is not None and constant.real.shape and constant.real.size == constant.real.shape[-1] == width:
            return name
    return None


# functions of one tensor ----------------------------------------------------------------------------------------


def _function_of_one(network: Network, op: Op) -> bool:
    """A binary operator on two functions of one tensor, element by element (GELU, SiLU, ... written out)."""
    combine = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}.get(op.kind)
    if combine is None or len(network.activations(op)) != 2:
        return False
    left, right = op.inputs
    seen: list[str] = [left]
    while True:  # the nearest tensor that both hang on
        first, second = _as_function(network, left, seen[-1]), _as_function(network, right, seen[-1])
        if first is not None and second is not None:
            function = _combined(combine, first, second)
            break
        producer = network.producer(seen[-1])
        if producer is None or _elementwise(producer) is None:
            return False
        seen.append(producer.inputs[0])
    op.kind, op.inputs, op.attributes = "Unary", [seen[-1]], {"function": function, "of": op.kind, "operand": None}
    return True


def _combined(combine: Callable[..., object], first: Function, second: Function) -> Function:
    return lambda x: np.asarray(combine(first(x), second(x)), np.float64)


def _as_function(network: Network, tensor: str, x: str) -> Function | None:
    """The tensor as a function of x, if a chain of element-wise operators leads from one to the other."""
    if tensor == x:
        return lambda value: value
    producer = network.producer(tensor)
    step = _elementwise(producer)
    if producer is None or step is None:
        return None
    inner = _as_function(network, producer.inputs[0], x)
    return None if inner is None else _limited(network, tensor, functions.compose(step, inner))


def _limited(network: Network, tensor: str, function: Function) -> Function:
    """The function that writes a tensor, within the limits of the tensor's quantisation if it has one."""
    known = network.quantizations.get(tensor)
    return function if known is None else functions.compose(functions.clip(*known.limits), function)


def _chain(network: Network, op: Op) -> bool:
    """A function of a function is a function; at least one of the two must need a table."""
    outer = _elementwise(op)
    before = network.producer(op.inputs[0]) if outer is not None else None
    inner = _elementwise(before)
    if outer is None or inner is None or before is None or not network.used_once(before.output):
        return False
    if before.kind != "Unary" and (op.kind != "Unary" or before.output in network.quantizations):
        return False
    inner = _limited(network, before.output, inner)
    op.attributes = {"function": functions.compose(outer, inner), "of": "", "operand": None}
    op.kind, op.inputs = "Unary", list(before.inputs)
    return True


# weights ----------------------------------------------------------------------------------------------------------


def _takes_offset(network: Network, op: Op) -> bool:
    """Whether an offset on the operator's output can move into its bias: not past a ReLU, nor what stands for one."""
    known = network.quantizations.get(op.output)
    one_sided = known is not None and 0.0 in known.limits
    return op.kind in ("Conv", "Linear") and network.used_once(op.output) and not one_sided


def _batch_norm(network: Network, op: Op) -> bool:
    """Batch normalisation into the convolution or linear layer before it."""
    before = network.producer(op.inputs[0]) if op.kind == "BatchNorm" else None
    if before is None or not _takes_offset(network, before):
        return False
    factor, offset = _affine(network, op)
    _scale_channels(network, before, factor, op.name)
    bias = network.constants[before.inputs[2]].real.reshape(-1) if len(before.inputs) > 2 else np.zeros(factor.size)
    _set_bias(network, before, Constant(bias + offset), op.name)
    return _write_instead(network, before, op)


def _affine(network: Network, op: Op) -> tuple[np.ndarray, np.ndarray]:
    """A batch normalisation as y = factor * x + offset, per channel."""
    gamma, beta, mean, variance = (network.constants[name].real.astype(np.float64) for name in op.inputs[1:5])
    if not (variance + op.attributes["epsilon"] > 0).all():
        raise ModelError(f"node {op.name!r}: the variance must be positive")
    factor = gamma / np.sqrt(variance + op.attributes["epsilon"])
    return factor, beta - mean * factor


def _remaining_batch_norms(network: Network) -> None:
    """A batch normalisation that stands alone is a depthwise convolution of one tap."""
    for op in [op for op in network.ops if op.kind == "BatchNorm"]:
        shape = network.shapes[op.inputs[0]]
        if len(shape) not in (2, 3, 4):
            raise UnsupportedError(
                f"node {op.name!r}: a BatchNormalization behind no convolution takes rows or images, found {shape}"
            )
        if len(shape) == 2:
            _as_sequence(network, op)
        rank = max(len(shape) - 2, 1)
        factor, offset = _affine(network, op)
        spread = (factor.size, 1, *[1] * rank)
        sign, magnitude = np.where(factor < 0, -127, 127), np.abs(factor) / 127
        scale = np.where(magnitude > 0, magnitude, 1.0)
        stored = np.where(magnitude > 0, sign, 0)
        weight = Constant(
            factor.reshape(spread), stored.reshape(spread), scale.reshape(spread), np.zeros(spread, np.int64)
        )
        names = [
            network.add_constant(f"{op.name}/weight", weight),
            network.add_constant(f"{op.name}/bias", Constant(offset)),
        ]
        op.kind, op.inputs = "Conv", [op.inputs[0], *names]
        ones, zeros = [1] * rank, [0] * 2 * rank
        op.attributes = {"strides": ones, "pads": zeros, "dilations": ones, "group": factor.size, "bias_at": None}


def _as_sequence(network: Network, op: Op) -> None:
    """Let an operator on rows (N, C) work on sequences of one (N, C, 1)."""
    shape = (*network.shapes[op.output], 1)
    before, after = f"{op.output}/rows", f"{op.output}/sequence"
    network.shapes |= {before: shape, after: shape}
    index = network.ops.index(op)
    network.ops.insert(index, Op(f"{op.name}/sequence", "Reshape", [op.inputs[0]], before))
    network.ops.insert(index + 2, Op(f"{op.name}/rows", "Reshape", [after], op.output))
    op.inputs[0], op.output = before, after


def _scale_channels(network: Network, op: Op, factor: np.ndarray, where: str) -> None:
    """Multiply each output channel of a layer, weight and bias, by its factor."""
    weight = network.constants[op.inputs[1]]
    in_rows = op.kind == "Conv" or op.attributes["transposed"]
    spread = factor.reshape(-1, *[1] * (weight.real.ndim - 1)) if in_rows else factor
    op.inputs[1] = network.add_constant(f"{op.inputs[1]}/scaled", weight.multiply(spread))
    op.attributes["bias_at"] = None
    if len(op.inputs) > 2:
        bias = network.constants[op.inputs[2]]
        _set_bias(network, op, Constant(bias.real.reshape(-1) * factor), where)


def _set_bias(network: Network, op: Op, bias: Constant, where: str) -> None:
    op.inputs[2:] = [network.add_constant(f"{where}/bias", bias)]


def _write_instead(network: Network, op: Op, replaced: Op) -> bool:
    """Let `op` write what `replaced` wrote, with the quantisation noted there."""
    network.quantizations.pop(op.output, None)
    op.output = replaced.output
    network.ops.remove(replaced)
    return True


def _bias(network: Network, op: Op) -> bool:
    """A constant row added to a layer without bias."""
    if op.kind != "Add" or len(network.activations(op)) != 1:
        return False
    before = network.producer(network.activations(op)[0])
    if before is None or not _takes_offset(network, before):
        return False
    constant = network.constants[next(name for name in op.inputs if name in network.constants)]
    row = _channel_row(network, before, constant, op)
    if row is None:
        return False
    if len(before.inputs) > 2:
        row = Constant(row.real + network.constants[before.inputs[2]].real.reshape(-1))
        bias_at = None
    else:
        position = next(i for i, name in enumerate(op.inputs) if name in network.constants)
        bias_at = (op.name, position) if before.kind == "Linear" else None
    _set_bias(network, before, row, op.name)
    before.attributes["bias_at"] = bias_at
    return _write_instead(network, before, op)


def _channel_factor(network: Network, op: Op) -> bool:
    """A constant row multiplied onto a layer, where no quantisation stands between."""
    if op.kind != "Mul" or len(network.activations(op)) != 1:
        return False
    before = network.producer(network.activations(op)[0])
    if before is None or before.kind not in ("Linear", "Conv") or not network.used_once(before.output):
        return False
    constant = network.constants[next(name for name in op.inputs if name in network.constants)]
    row = _channel_row(network, before, constant, op)
    if row is None or before.output in network.quantizations:
        return False
    _scale_channels(network, before, row.real, op.name)
    return _write_instead(network, before, op)


def _channel_row(network: Network, layer: Op, constant: Constant, op: Op) -> Constant | None:
    """A constant that differs along the layer's output channels only, as one value a channel; else None."""
    shape = network.shapes[layer.output]
    axis = 1 if layer.kind == "Conv" else len(shape) - 1
    if network.shapes[op.output] != shape or constant.real.ndim > len(shape):
        return None
    full = constant.map(lambda t: np.broadcast_to(t, shape))
    row = full.map(lambda t: np.moveaxis(t, axis, -1).reshape(-1, shape[axis])[0])
    if not (np.moveaxis(full.real, axis, -1) == row.real).all():
        return None
    return Constant(row.real)


# clamps and factors ---------------------------------------------------------------------------------------------


def _clamp(network: Network, op: Op) -> bool:
    """ReLU and Clip into the operator before them, where that keeps every value.

    Across a Q/DQ pair this holds if the clamp's output is quantised as its input, or not at all.
    """
    if op.kind != "Clip":
        return False
    x, y = op.inputs[0], op.output
    before = network.producer(x)
    if before is None or before.kind not in CLAMPING or not network.used_once(x):
        return False
    known, wanted = network.quantizations.get(x), network.quantizations.get(y)
    if known is not None and wanted not in (None, known):
        return False
    low, high = before.attributes.get("clamp", (-math.inf, math.inf))
    narrowed = (max(low, op.attributes["low"]), min(high, op.attributes["high"]))
    if narrowed[0] > narrowed[1]:
        return False
    before.attributes["clamp"] = narrowed
    if known is not None:
        network.quantizations[y] = known
    return _write_instead(network, before, op)


def _factor_after(network: Network, op: Op) -> bool:
    """A constant factor into the requantisation of the operator before it, where no Q/DQ pair stands between."""
    if op.kind != "Scale" or op.attributes["factor"] <= 0:
        return False
    x = op.inputs[0]
    before = network.producer(x)
    if before is None or before.kind not in SCALING or not network.used_once(x) or x in network.quantizations:
        return False
    factor = op.attributes["factor"]
    before.attributes["factor"] = before.attributes.get("factor", 1.0) * factor
    low, high = before.attributes.get("clamp", (-math.inf, math.inf))
    before.attributes["clamp"] = (low * factor, high * factor)
    if "clamp" in op.attributes:
        low, high = op.attributes["clamp"]
        low, high = max(low, before.attributes["clamp"][0]), min(high, before.attributes["clamp"][1])
        before.attributes["clamp"] = (low, high)
    return _write_instead(network, before, op)
