"""Float ONNX of a network from its layers and weights, and random weights where only resources are asked."""

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from codegen.onnx.writer import NetworkWriter
from nas.layers import MODULE_INPUT, Kind, Layer, Network
from refsim.errors import ModelError

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

_Number = TypeVar("_Number", bound=np.generic)

Weights = Mapping[str, NDArray[np.float32]]
"""Parameters by the names of `Network.parameters`."""


def write_network(network: Network, weights: Weights) -> onnx.ModelProto:
    """A network as float32 ONNX with a free batch axis: input ``image``, output ``logits``.

    Args:
        network: its layers.
        weights: all of `network.parameters`, float32, batch normalisation folded; what more there is, such as the rest
            of a supernet, is left out. Zeros stay zeros.

    Raises:
        ModelError: a parameter is missing, of another shape, or not finite.
    """
    for name, shape in network.parameters.items():
        if name not in weights:
            raise ModelError(f"parameter {name!r} is missing; there are {len(weights)} others")
        if weights[name].shape != shape:
            raise ModelError(f"parameter {name!r} has shape {weights[name].shape}; the network's has {shape}")
        if not np.isfinite(weights[name]).all():
            raise ModelError(f"parameter {name!r} holds values that are not finite")
    writer = NetworkWriter()
    x, shape = INPUT_NAME, network.input_shape
    for module in network.modules:
        tensors = {MODULE_INPUT: x}
        for layer in module.layers:
            tensors[layer.name] = _write(writer, layer, [tensors[name] for name in layer.inputs], weights)
        x = tensors[module.output.name]
    return writer.model("tinyformer", (INPUT_NAME, shape), (OUTPUT_NAME, (network.classes,)), x)


def random_weights(network: Network, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Weights that keep activations in range, with as many blocks of zeros as pruning takes, at random places.

    Their encoding has the size that pruned weights' has but for the places of the zeros, and nothing is learnt.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for layer in network.layers:
        if layer.weight is None:
            continue
        fan_in = math.prod(layer.weight[1:])
        if layer.kind is Kind.LAYER_NORM:
            weights[f"{layer.name}.weight"] = np.ones(layer.weight, np.float32)
        else:
            kept = layer.blocks - layer.pruned_blocks
            scale = math.sqrt(2 / fan_in * layer.blocks / kept)
            blocks = rng.standard_normal((layer.blocks, layer.pruning.block), np.float32) * np.float32(scale)
            blocks[rng.permutation(layer.blocks)[kept:]] = 0
            weights[f"{layer.name}.weight"] = from_blocks(blocks, layer)
        weights[f"{layer.name}.bias"] = 0.1 * rng.standard_normal(layer.weight[0], np.float32)
    return weights


def as_blocks(weight: NDArray[_Number], layer: Layer) -> NDArray[_Number]:
    """A layer's weight as (blocks, weights of a block), in the order in which the encoder walks it.

    Blocks lie along the input channels, those of a depthwise convolution along the kernel's width.
    """
    if weight.ndim == 4 and not layer.depthwise:
        weight = weight.transpose(0, 2, 3, 1)
    return weight.reshape(-1, layer.pruning.block)


def from_blocks(blocks: NDArray[_Number], layer: Layer) -> NDArray[_Number]:
    """The weight whose `as_blocks` is `blocks`."""
    assert layer.weight is not None
    if len(layer.weight) == 4 and not layer.depthwise:
        outputs, inputs, height, width = layer.weight
        return np.ascontiguousarray(blocks.reshape(outputs, height, width, inputs).transpose(0, 3, 1, 2))
    return blocks.reshape(layer.weight)


def _write(writer: NetworkWriter, layer: Layer, inputs: list[str], weights: Weights) -> str:
    """Append a layer; its output."""
    name, shape = layer.name, layer.shape
    first, second, third = (*inputs, "", "")[:3]
    parameters = [weights[parameter] for parameter in layer.parameters]
    match layer.kind:
        case Kind.CONV:
            weight, bias = parameters
            return writer.conv(
                first, weight, bias, name, stride=layer.stride, groups=layer.groups, activation=layer.activation.value
            )
        case Kind.LINEAR:
            weight, bias = parameters
            return writer.linear(first, weight, bias, name, activation=layer.activation.value)
        case Kind.LAYER_NORM:
            weight, bias = parameters
            return writer.layer_norm(first, weight, bias, name)
        case Kind.MAX_POOL:
            return writer.max_pool(first, layer.kernel, name)
        case Kind.TO_TOKENS:
            return writer.to_tokens(first, shape[0], shape[1], name)
        case Kind.TO_MAP:
            return writer.to_map(first, shape[0], shape[1], shape[2], name)
        case Kind.ATTENTION:
            return writer.attention(first, second, third, shape[0], shape[1], layer.heads, name)
        case Kind.ADD:
            return writer.add(first, second, name)
        case Kind.SEQUENCE_POOL:
            return writer.sequence_pool(first, second, shape[0], name)
        case Kind.MEAN:
            return writer.mean(first, shape[0], name)
