"""Cross-layer equalisation: weights' channels of like size, across layers, in a float model that computes the same.

A ReLU lets a positive factor pass, relu(s x) = s relu(x): a channel may be made smaller in one layer and larger again
by the weights that read it in the next. Channels then use one weight scale equally well (Nagel, van Baalen, Blankevoort
and Welling, "Data-free quantization through weight equalization and bias correction", 2019, section 4.1, equation 11).

An activation with other bounds, such as ReLU6, would need other bounds in every channel, which no int8 operator has.
Such pairs are left alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from codegen.onnx.layers import Layer, Place, float_layers, fused, with_constants
from codegen.onnx.network import Network, Op
from codegen.onnx.reader import ModelFile

_ROUNDS = 50
_CONVERGED = 1e-3
"""Of the largest log factor in a round."""

_LARGEST_FACTOR = 2.0**8
"""In all, of one channel: dead or nearly dead channels would otherwise make others' biases and activations huge."""

_HOMOGENEOUS = ((-math.inf, math.inf), (0.0, math.inf))
"""Bounds that let a positive factor pass."""


@dataclass(frozen=True)
class Pair:
    """Two layers of which the second alone reads the first.

    Attributes:
        first, second: the layers.
        repeat: inputs of the second that each channel of the first has, behind a flattened image.
    """

    first: Layer
    second: Layer
    repeat: int


@dataclass(frozen=True)
class Equalisation:
    """A float model that computes the same as another.

    Attributes:
        proto: the model.
        pairs: names of the nodes whose channels were balanced.
        bounded: those that an activation with other bounds than ReLU's keeps apart.
    """

    proto: onnx.ModelProto
    pairs: tuple[tuple[str, str], ...]
    bounded: tuple[tuple[str, str], ...]


def equalise(file: ModelFile) -> Equalisation:
    """Balance every pair of layers until all are.

    Args:
        file: the float model; batch normalisations behind convolutions are folded.

    Returns:
        The model with other weights and biases. Zero weights stay zero.
    """
    network = fused(file)
    pairs, bounded = _pairs(file, network)
    weights = {layer.op.name: layer.weight.copy() for pair in pairs for layer in (pair.first, pair.second)}
    total = {pair.first.op.name: np.ones(pair.first.channels) for pair in pairs}
    for _ in range(_ROUNDS):
        largest = 0.0
        for pair in pairs:
            first, second = pair.first.op.name, pair.second.op.name
            factor = _factor(pair, weights[first], weights[second], total[first])
            weights[first] = weights[first] / pair.first.by_channel(factor)
            weights[second] = weights[second] * _by_input(pair, np.repeat(factor, pair.repeat))
            total[first] = total[first] * factor
            largest = max(largest, float(np.abs(np.log(factor)).max()))
        if largest < _CONVERGED:
            break
    constants: dict[Place, NDArray[np.float64]] = {(name, 1): weight for name, weight in weights.items()}
    for pair in pairs:
        if pair.first.bias_at is not None:
            node = next(node for node in file.proto.graph.node if node.name == pair.first.bias_at[0])
            bias = np.asarray(file.values[node.input[pair.first.bias_at[1]]], np.float64)
            constants[pair.first.bias_at] = bias / total[pair.first.op.name]
    names = tuple((pair.first.op.name, pair.second.op.name) for pair in pairs)
    return Equalisation(with_constants(file.proto, constants, "equalised"), names, tuple(bounded))


def _factor(
    pair: Pair, first: NDArray[np.float64], second: NDArray[np.float64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What to divide the first layer's channels by; 1 where a channel is dead in either layer."""
    written = np.abs(np.moveaxis(first, pair.first.axis, 0)).reshape(pair.first.channels, -1).max(axis=1)
    read = _input_ranges(pair, second).reshape(-1, pair.repeat).max(axis=1)
    alive = (written > 0) & (read > 0)
    factor = np.sqrt(np.where(alive, written, 1.0) / np.where(alive, read, 1.0))
    return np.clip(factor, 1 / (_LARGEST_FACTOR * total), _LARGEST_FACTOR / total)


def _input_ranges(pair: Pair, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest magnitude of the second layer's weights for each of its inputs."""
    if pair.second.op.kind == "Linear":
        return np.asarray(np.abs(weight).max(axis=pair.second.axis))
    groups = pair.second.op.attributes["group"]
    grouped = np.abs(weight).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return np.asarray(grouped.max(axis=(1, 3)).reshape(-1))


def _by_input(pair: Pair, row: NDArray[np.float64]) -> NDArray[np.float64]:
    """One value an input of the second layer, shaped to meet its weight."""
    if pair.second.op.kind == "Linear":
        return row.reshape(1, -1) if pair.second.axis == 0 else row.reshape(-1, 1)
    weight = pair.second.weight
    groups = pair.second.op.attributes["group"]
    rows = np.repeat(row.reshape(groups, weight.shape[1]), weight.shape[0] // groups, axis=0)
    return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))


def _pairs(file: ModelFile, network: Network) -> tuple[list[Pair], list[tuple[str, str]]]:
    """The pairs that can be balanced, and those that bounds keep apart."""
    known = float_layers(file, network)
    layers = {layer.op.name: layer for layer in known if np.isfinite(layer.weight).all()}
    pairs, bounded = [], []
    for first in layers.values():
        if first.has_bias and first.bias_at is None:
            continue
        clamps, repeat, reader = [first.op.attributes.get("clamp")], 1, _only_reader(network, first.op.output)
        while reader is not None and reader.name not in layers:
            step = _passes(network, reader, first)
            if step is None:
                break
            repeat *= step
            clamps.append(reader.attributes.get("clamp"))
            if reader.kind == "Clip":
                clamps.append((reader.attributes["low"], reader.attributes["high"]))
            reader = _only_reader(network, reader.output)
        second = layers.get(reader.name) if reader is not None else None
        if second is None or not _fits(network, first, second):
            continue
        if all(clamp is None or clamp in _HOMOGENEOUS for clamp in clamps):
            pairs.append(Pair(first, second, repeat))
        else:
            bounded.append((first.op.name, second.op.name))
    return pairs, bounded


def _only_reader(network: Network, tensor: str) -> Op | None:
    return network.consumers(tensor)[0] if network.used_once(tensor) else None


def _passes(network: Network, op: Op, first: Layer) -> int | None:
    """Elements that each channel becomes, if the operator lets a positive factor of a channel pass; else None."""
    if op.kind == "Clip" or (op.kind == "Unary" and op.attributes["of"] == "LeakyRelu"):
        return 1
    if first.op.kind != "Conv":
        return None
    before, after = network.shapes[op.inputs[0]], network.shapes[op.output]
    if op.kind in ("MaxPool", "AveragePool") or (op.kind == "Mean" and op.attributes["axes"][0] >= 2):
        return 1
    flat = len(after) == 2 and before[0] == after[0] == 1 and before[1] == first.channels
    return math.prod(before[2:]) if op.kind == "Reshape" and flat else None


def _fits(network: Network, first: Layer, second: Layer) -> bool:
    """Whether the second layer's inputs are the first one's channels."""
    if second.op.kind == "Conv":
        return first.op.kind == "Conv"
    return second.weight.ndim == 2 and (first.op.kind == "Linear" or len(network.shapes[second.op.inputs[0]]) == 2)
