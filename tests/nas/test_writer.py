"""Networks as ONNX: what ONNX Runtime computes, against the layers computed one by one in numpy."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from nas.layers import MODULE_INPUT, Activation, Kind, Layer, Network, describe
from nas.resources import integer_graph
from nas.sampling import random_architecture
from nas.space import Downsample, Encoder, Pooling, Space, StageSpace, load_space
from nas.writer import as_blocks, from_blocks, random_weights, write_network
from refsim.errors import ModelError
from refsim.ops.conv2d import Conv2D

Array = NDArray[np.float64]

SIGNALS = Space(
    "signals", (2, 1, 25), 4, (StageSpace((8,)), StageSpace((12,), encoders=(Encoder(2.0, convolutions=False),))),
    heads=(1, 2), last_linear=(8,),
)  # fmt: skip
ODD = Space("odd", (1, 7, 5), 3, (StageSpace((8,), downsamples=(Downsample.CONV_POOL,)),), heads=(2,), last_linear=(8,))


def network(space: Space, seed: int) -> tuple[Network, dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    found = describe(random_architecture(space, rng))
    return found, random_weights(found, rng)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": x})
    assert isinstance(logits, np.ndarray)
    return logits


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def convolve(x: Array, weight: Array, layer: Layer) -> Array:
    """One output position after another, "same" padding."""
    (height, width), (down, right) = layer.kernel, layer.stride
    padded = np.pad(x, ((0, 0), (height // 2, height // 2), (width // 2, width // 2)))
    groups = padded.reshape(layer.groups, -1, *padded.shape[1:])
    filters = weight.reshape(layer.groups, -1, *weight.shape[1:])
    out = np.empty(layer.shape)
    for y, z in np.ndindex(*layer.shape[1:]):
        window = groups[:, :, y * down : y * down + height, z * right : z * right + width]
        out[:, y, z] = np.einsum("gihw,goihw->go", window, filters).ravel()
    return out


def compute(layer: Layer, inputs: list[Array], weights: Mapping[str, NDArray[np.float32]]) -> Array:
    x = inputs[0]
    if layer.weight is not None:
        weight, bias = (weights[f"{layer.name}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    match layer.kind:
        case Kind.CONV:
            x = convolve(x, weight, layer) + bias[:, None, None]
        case Kind.LINEAR:
            x = x @ weight.T + bias
        case Kind.LAYER_NORM:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias
        case Kind.MAX_POOL:
            (height, width), (_, rows, columns) = layer.kernel, layer.shape
            x = np.stack([[x[:, i * height : (i + 1) * height, j * width : (j + 1) * width].max((1, 2))
                           for j in range(columns)] for i in range(rows)]).transpose(2, 0, 1)  # fmt: skip
        case Kind.TO_TOKENS:
            x = x.reshape(x.shape[0], -1).T
        case Kind.TO_MAP:
            x = x.T.reshape(layer.shape)
        case Kind.ATTENTION:
            tokens, dim = layer.shape
            query, key, value = (t.reshape(tokens, layer.heads, -1).swapaxes(0, 1) for t in inputs)
            shares = softmax(query @ key.swapaxes(1, 2) / np.sqrt(dim // layer.heads))
            x = (shares @ value).swapaxes(0, 1).reshape(tokens, dim)
        case Kind.ADD:
            x = inputs[0] + inputs[1]
        case Kind.SEQUENCE_POOL:
            x = softmax(inputs[0][:, 0]) @ inputs[1]
        case Kind.MEAN:
            x = x.mean((1, 2))
    assert x.shape == layer.shape
    limits = {Activation.NONE: (-np.inf, np.inf), Activation.RELU: (0, np.inf), Activation.RELU6: (0, 6)}
    return np.asarray(x.clip(*limits[layer.activation]))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("space", [SIGNALS, ODD, load_space("tiny")], ids=lambda space: space.name)
def test_onnx_computes_the_layers(space: Space, seed: int) -> None:
    net, weights = network(space, seed)
    model = write_network(net, weights)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(seed).uniform(-1, 1, (2, *space.input_shape)).astype(np.float32)
    expected = []
    for sample in x:
        value = sample.astype(np.float64)
        for module in net.modules:
            values = {MODULE_INPUT: value}
            for layer in module.layers:
                values[layer.name] = compute(layer, [values[name] for name in layer.inputs], weights)
            value = values[module.output.name]
        expected.append(value)
    np.testing.assert_allclose(run(model, x), np.stack(expected), rtol=1e-3, atol=1e-4)


def test_every_kind_of_layer_and_candidate_occurs_above() -> None:
    nets = [network(space, seed)[0] for space in (SIGNALS, ODD, load_space("tiny")) for seed in range(4)]
    assert {layer.kind for net in nets for layer in net.layers} == set(Kind)
    assert {module.candidate for net in nets for module in net.modules} >= {*Downsample, *Pooling}


def test_masks_reach_the_integer_model() -> None:
    """Random weights have the blocks of zeros that pruning takes, and the generated model's weights have them too."""
    net, weights = network(load_space("tiny"), 5)
    graph = integer_graph(net, weights)
    convolutions = {node.name: node.op for node in graph.nodes if isinstance(node.op, Conv2D)}
    pruned = 0
    for layer in net.layers:
        if layer.weight is None or layer.kind is Kind.LAYER_NORM:
            continue
        zero = ~as_blocks(weights[f"{layer.name}.weight"], layer).any(axis=1)
        assert zero.sum() == layer.pruned_blocks
        if layer.kind is Kind.CONV and not layer.depthwise:
            # outputs, kernel rows, kernel columns, inputs: the order of the blocks
            integers = convolutions[f"{layer.name}/Conv"].weight.reshape(-1, layer.pruning.block)
            assert not integers[zero].any()
            pruned += int(zero.sum())
    assert pruned > 0


def test_blocks_lie_along_the_input_channels() -> None:
    net, _ = network(load_space("tiny"), 6)
    pruned = [layer for layer in net.layers if layer.kernel == (3, 3) and layer.pruning.sparsity]
    layer = next(layer for layer in pruned if not layer.depthwise)
    assert layer.weight is not None
    weight = np.arange(np.prod(layer.weight), dtype=np.float32).reshape(layer.weight)
    blocks = as_blocks(weight, layer)
    np.testing.assert_array_equal(blocks[0], weight[0, : layer.pruning.block, 0, 0])
    np.testing.assert_array_equal(from_blocks(blocks, layer), weight)
    depthwise = next(layer for layer in pruned if layer.depthwise)
    assert depthwise.weight is not None
    weight = np.arange(np.prod(depthwise.weight), dtype=np.float32).reshape(depthwise.weight)
    np.testing.assert_array_equal(as_blocks(weight, depthwise)[1], weight[0, 0, 1])
    np.testing.assert_array_equal(from_blocks(as_blocks(weight, depthwise), depthwise), weight)


def test_more_weights_than_the_network_has_change_nothing() -> None:
    net, weights = network(ODD, 0)
    more = {**weights, "stages.0.downsample.other.weight": np.zeros(3, np.float32)}
    assert write_network(net, more) == write_network(net, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.last.bias"), "'head.last.bias' is missing"),
        (lambda w: w.update({"head.last.bias": np.zeros(9, np.float32)}), r"shape \(9,\); the network's has \(8,\)"),
        (lambda w: w["head.last.bias"].fill(np.nan), "not finite"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(change: object, message: str) -> None:
    net, weights = network(ODD, 0)
    change(weights)
    with pytest.raises(ModelError, match=message):
        write_network(net, weights)
