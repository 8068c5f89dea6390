"""Float networks written layer by layer: names, sharing of constants, and the road to the integer graph."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from codegen.onnx import load, quantize
from codegen.onnx.writer import Activation, NetworkWriter

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def small_network() -> onnx.ModelProto:
    """A convolution, an attention on its positions, sequence pooling and a classifier."""
    net = NetworkWriter()
    x = net.conv("image", normal(8, 3, 3, 3), normal(8), "stem", stride=(2, 2))
    tokens = net.to_tokens(x, 9, 8, "tokens")
    normed = net.layer_norm(tokens, np.ones(8, np.float32), normal(8), "norm")
    query, key, value = (net.linear(normed, normal(8, 8), normal(8), name) for name in ("query", "key", "value"))
    tokens = net.add(tokens, net.attention(query, key, value, 9, 8, 2, "attention"), "sum")
    x = net.conv(net.to_map(tokens, 8, 3, 3, "map"), normal(8, 1, 3, 3), normal(8), "depthwise", groups=8)
    tokens = net.to_tokens(x, 9, 8, "again")
    pooled = net.sequence_pool(net.linear(tokens, normal(1, 8), normal(1), "score"), tokens, 8, "pool")
    logits = net.linear(pooled, normal(4, 8), normal(4), "classifier")
    return net.model("small", ("image", (3, 6, 6)), ("logits", (4,)), logits)


def test_layers_and_parameters_have_the_names_that_were_given() -> None:
    model = small_network()
    onnx.checker.check_model(model, full_check=True)
    nodes = [node.name for node in model.graph.node]
    assert len(set(nodes)) == len(nodes)
    assert {"stem/Conv", "stem/Clip", "query/MatMul", "attention/Softmax", "attention/MatMul_1"} <= set(nodes)
    constants = {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    assert constants["stem.weight"] == (8, 3, 3, 3)
    assert constants["depthwise.weight"] == (8, 1, 3, 3)
    assert constants["norm.bias"] == (8,)
    assert sum(name in ("zero", "six") for name in constants) == 2  # both convolutions share their limits


def test_the_network_quantises_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_network().SerializeToString())
    quantized = tmp_path / "quantized.onnx"
    quantized.write_bytes(quantize(path, normal(4, 3, 6, 6)).SerializeToString())
    graph = load(quantized)
    operators = [node.op.name for node in graph.nodes]
    assert {"conv2d", "depthwise_conv2d", "layernorm", "linear", "matmul", "softmax", "add"} <= set(operators)


@pytest.mark.parametrize(
    ("activation", "expected"), [("none", [-9.0, 3.0, 9.0]), ("relu", [0.0, 3.0, 9.0]), ("relu6", [0.0, 3.0, 6.0])]
)
def test_activations(activation: Activation, expected: list[float]) -> None:
    net = NetworkWriter()
    weight = np.array([[-3], [1], [3]], np.float32)
    y = net.linear("x", weight, np.zeros(3, np.float32), "layer", activation=activation)
    model = net.model("one", ("x", (1,)), ("y", (3,)), y)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": np.array([[3.0]], np.float32)})
    np.testing.assert_array_equal(found, [expected])


@pytest.mark.parametrize(("side", "pooled"), [(4, [5, 7, 13, 15]), (3, [4, 5, 7, 8])])
def test_the_last_window_of_a_pool_may_reach_beyond_the_edge(side: int, pooled: list[int]) -> None:
    net = NetworkWriter()
    model = net.model("pool", ("x", (1, side, side)), ("y", (1, 2, 2)), net.max_pool("x", (2, 2), "pool"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.arange(side * side, dtype=np.float32).reshape(1, 1, side, side)
    (found,) = session.run(["y"], {"x": x})
    assert isinstance(found, np.ndarray)
    assert found.ravel().tolist() == pooled
