"""Particular forms of QDQ files: batches, types of ports, shared and different quantisations, names."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import refsim
from codegen.onnx import load, quantize
from codegen.onnx.reader import new_session
from refsim.errors import QuantizationError
from tests.codegen.onnx_models import PATTERNS, Net
from tests.codegen.test_onnx_errors import layer, qdq, saved, stored, weights
from tests.codegen.test_onnx_patterns import STEPS, Reader, likeness, operators, run_file, steps_apart


def compare(path: Path, x: NDArray[np.float32], steps: float = STEPS) -> refsim.Graph:
    graph = load(path)
    (found,) = refsim.predict(graph, x).values()
    assert steps_apart(graph, found, run_file(path, x)) <= steps
    return graph


@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_batch(batch: int, tmp_path: Path) -> None:
    """The file spells its batch out in the input and in reshapes."""
    net = Net(6, 8, batch=batch)
    y = net.add("Reshape", net.linear("x", 8, 8), net.ints(batch, 6, 2, 4))
    y = net.add("Reshape", net.add("Transpose", y, perm=[0, 2, 1, 3]), net.ints(batch, 48))
    path = saved(net, net.linear(y, 48, 3), tmp_path / "float.onnx")
    x = net.samples(8)
    onnx.save(quantize(path, x), tmp_path / "qdq.onnx")
    graph = load(tmp_path / "qdq.onnx")
    assert operators(graph) == "linear linear reshape"  # the transpose went into the weights
    (found,) = refsim.predict(graph, x).values()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    real = np.concatenate([session.run(None, {"x": x[i : i + batch]})[0] for i in range(0, 8, batch)])
    assert likeness(found, real) > 0.99


@pytest.mark.parametrize("name", ["inverted_residual", "shape_arithmetic", "class_token", "written_out_gelu"])
def test_preprocessed_for_quantization(name: str, tmp_path: Path) -> None:
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    quant_pre_process(str(tmp_path / "float.onnx"), str(tmp_path / "ready.onnx"), skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(tmp_path / "ready.onnx", tmp_path / "qdq.onnx", Reader(net.samples(16)), per_channel=True, **types)
    compare(tmp_path / "qdq.onnx", net.samples(16))


@pytest.mark.parametrize(
    ("opset", "per_channel"), [(11, True), (12, True), (12, False), (13, True), (20, True), (24, True)]
)
def test_operator_sets(opset: int, per_channel: bool, tmp_path: Path) -> None:
    net = Net(4, 6, 6, opset=opset)
    y = net.add("Relu", net.conv("x", 4, 8, 3))
    path = saved(net, net.linear(net.add("Flatten", y), 128, 5), tmp_path / "float.onnx", ir_version=8)
    onnx.save(quantize(path, net.samples(8), per_channel=per_channel), tmp_path / "qdq.onnx")
    graph = compare(tmp_path / "qdq.onnx", net.samples(8))
    assert operators(graph) == "conv2d linear reshape"


def integer_ports(dtype: Any, path: Path) -> Path:
    """Input and output are integers already: the file begins with DequantizeLinear and ends with QuantizeLinear."""
    net = Net(8)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    zero = 128 if dtype == np.uint8 else 0
    x = net.add("DequantizeLinear", "x", net.const(0.05), net.const(zero, dtype))
    y = net.add("MatMul", x, stored(net, weights(8, 4)))
    y = net.add("QuantizeLinear", y, net.const(0.03), net.const(zero + 5, dtype))
    graph = helper.make_graph(
        net.nodes,
        "net",
        [helper.make_tensor_value_info("x", element, ["n", 8])],
        [helper.make_tensor_value_info(y, element, ["n", 4])],
        net.initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integer_ports(dtype: Any, tmp_path: Path) -> None:
    path = integer_ports(dtype, tmp_path / "m.onnx")
    graph = load(path)
    offset = 128 if dtype == np.uint8 else 0
    q = np.random.default_rng(0).integers(-128, 128, (16, 8)).astype(np.int8)
    (found,) = refsim.run(graph, q).values()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": (q.astype(int) + offset).astype(dtype)})
    assert np.abs(found.astype(int) + offset - expected.astype(int)).max() <= 1
    assert graph.tensors["x"].zero_point == 0
    assert graph.tensors[graph.outputs[0].tensor].zero_point == 5


def test_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    net = Net(6, 8)
    model = net.proto(net.add("Add", "x", "x"))
    a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6, 8]) for name in "ab")
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"], name="sum"),
        helper.make_node("Mul", ["a", "sum"], ["product"], name="product"),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 6, 8]) for name in ("product", "sum")]
    model = helper.make_model(
        helper.make_graph(nodes, "net", [a, b], outputs), opset_imports=model.opset_import, ir_version=8
    )
    onnx.save(model, tmp_path / "float.onnx")
    x = {"a": net.samples(16), "b": net.samples(16)[::-1].copy()}
    onnx.save(quantize(tmp_path / "float.onnx", x), tmp_path / "qdq.onnx")
    graph = load(tmp_path / "qdq.onnx")
    assert [port.name for port in graph.inputs] == ["a", "b"]
    found = refsim.predict(graph, x)
    assert list(found) == ["product", "sum"]
    assert likeness(found["sum"], x["a"] + x["b"]) > 0.999
    assert likeness(found["product"], x["a"] * (x["a"] + x["b"])) > 0.999


def test_softmax_output_that_the_file_hands_out_keeps_its_quantization(tmp_path: Path) -> None:
    net = Net(6)
    y = qdq(net, net.add("Softmax", qdq(net, "x")), 1 / 255, 0, np.uint8)
    graph = compare(saved(net, y, tmp_path / "m.onnx"), net.samples(32), 1.5)
    assert operators(graph) == "requantize softmax"
    assert graph.tensors[graph.outputs[0].tensor].scale == np.float32(1 / 255)


def test_softmax_output_inside_takes_the_finer_scale(tmp_path: Path) -> None:
    net = Net(6)
    y = qdq(net, net.add("Softmax", qdq(net, "x")), 1 / 255, 0, np.uint8)
    graph = compare(saved(net, layer(net, y, stored(net, weights(6, 4))), tmp_path / "m.onnx"), net.samples(32))
    assert operators(graph) == "linear softmax"


def test_pair_behind_a_pair_requantises(tmp_path: Path) -> None:
    net = Net(8)
    y = qdq(net, qdq(net, layer(net, qdq(net, "x"), stored(net, weights(8, 4))), 0.1, 3), 0.02, -7)
    graph = load(saved(net, y, tmp_path / "m.onnx"))
    compare(tmp_path / "m.onnx", net.samples(32))
    assert operators(graph).startswith("linear") and len(graph.nodes) == 2  # the two requantisations are one table


def test_pool_with_another_quantization_behind_it(tmp_path: Path) -> None:
    net = Net(2, 6, 6)
    y = qdq(net, net.add("MaxPool", qdq(net, "x"), kernel_shape=[2, 2]), 0.03, 4)
    graph = compare(saved(net, y, tmp_path / "m.onnx"), net.samples(8))
    assert operators(graph) == "max_pool2d requantize"


@pytest.mark.parametrize("opset", [13, 19])
@pytest.mark.parametrize("pads", [[0, 0], [1, 0], [1, 1]])
def test_pool_windows_over_the_edge(pads: list[int], opset: int, tmp_path: Path) -> None:
    """What ceil_mode adds does not count where padding does. (ONNX Runtime's own int8 pool counts it.)"""
    net = Net(2, 8, opset=opset)
    attributes: dict[str, Any] = {"kernel_shape": [3], "strides": [2], "pads": pads, "ceil_mode": 1}
    y = net.add("AveragePool", qdq(net, "x"), count_include_pad=1, **attributes)
    graph = load(saved(net, qdq(net, y), tmp_path / "m.onnx"))
    session = new_session(onnx.load(tmp_path / "m.onnx"), optimized=False)
    x = net.samples(8)
    (found,) = refsim.predict(graph, x).values()
    assert steps_apart(graph, found, session.run(None, {"x": x})[0]) <= 1.01


@pytest.mark.parametrize(
    ("second", "kinds"), [((0.05, -20), "linear"), ((0.03, -128), "linear lookup")], ids=["same", "different"]
)
def test_relu_behind_a_pair(second: tuple[float, int], kinds: str, tmp_path: Path) -> None:
    """It folds into the layer only where its output is quantised as its input."""
    net = Net(8)
    y = qdq(net, net.add("MatMul", qdq(net, "x"), stored(net, weights(8, 4))), 0.05, -20)
    graph = compare(saved(net, qdq(net, net.add("Relu", y), *second), tmp_path / "m.onnx"), net.samples(32), 2.5)
    assert operators(graph) == kinds


@pytest.mark.parametrize("inside", [True, False])
def test_constant_factor(inside: bool, tmp_path: Path) -> None:
    """Behind a pair it becomes a requantisation; without one it folds into the layer."""
    net = Net(8)
    y = net.add("MatMul", qdq(net, "x"), stored(net, weights(8, 4)))
    y = net.add("Mul", qdq(net, y) if inside else y, net.const(0.3))
    graph = compare(saved(net, qdq(net, y, 0.02), tmp_path / "m.onnx"), net.samples(32), 1.5)
    assert operators(graph) == ("linear requantize" if inside else "linear")


def test_negative_batch_norm_flips_the_weights(tmp_path: Path) -> None:
    net = Net(2, 4, 4)
    rows = [net.const(v) for v in ([1.0, -2.0], [0.1, 0.2], [0.0, 0.5], [1.0, 4.0])]
    data = weights(2, 2, 1, 1)
    y = net.add("Conv", qdq(net, "x"), stored(net, data), kernel_shape=[1, 1])
    graph = load(saved(net, qdq(net, net.add("BatchNormalization", y, *rows)), tmp_path / "m.onnx"))
    weight = graph.nodes[0].op.weight
    np.testing.assert_array_equal(weight[:, 0, 0, :], data[:, :, 0, 0] * np.array([[1], [-1]]))
    compare(tmp_path / "m.onnx", net.samples(8), 1.5)
    data[1, 0] = -128
    net.initializers[[t.dims for t in net.initializers].index([2, 2, 1, 1])].raw_data = data.tobytes()
    with pytest.raises(QuantizationError, match="-128"):
        load(saved(net, net.nodes[-1].output[0], tmp_path / "m.onnx"))


def test_names_are_the_files(tmp_path: Path) -> None:
    net = PATTERNS["tokens"].write(tmp_path / "float.onnx")
    onnx.save(quantize(tmp_path / "float.onnx", net.samples(8)), tmp_path / "qdq.onnx")
    graph = load(tmp_path / "qdq.onnx")
    assert [node.name for node in graph.nodes] == [
        "/conv_0", "/leakyrelu_1", "/conv_2", "/reshape_3", "/layernormalization_5", "/matmul_6"
    ]  # fmt: skip
    assert [node.output for node in graph.nodes if node.op.name == "conv2d"] == ["conv_0", "conv_2"]
    assert graph.inputs[0].name == "x" and graph.outputs[0].name == "add_7"


def test_nameless_nodes_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    net = Net(8)
    x = layer(net, qdq(net, "x"), stored(net, weights(8, 8)))
    saved(net, layer(net, x, stored(net, weights(8, 8))), path)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    path.write_bytes(model.SerializeToString())
    assert [node.name for node in load(path).nodes] == ["MatMul:matmul_3", "MatMul:matmul_7"]


def test_gemm_factors(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("Gemm", "x", net.weight(5, 8), net.weight(5), transB=1, alpha=-0.5, beta=2.0)
    path = saved(net, y, tmp_path / "float.onnx")
    onnx.save(quantize(path, net.samples(16)), tmp_path / "qdq.onnx")
    graph = compare(tmp_path / "qdq.onnx", net.samples(16), 1.5)
    assert operators(graph) == "linear"


def test_weight_shared_by_two_layers(tmp_path: Path) -> None:
    net = Net(8)
    weight = net.weight(8, 8)
    y = net.add("MatMul", net.add("Relu", net.add("MatMul", "x", weight)), weight)
    path = saved(net, y, tmp_path / "float.onnx")
    model = quantize(path, net.samples(16))
    onnx.save(model, tmp_path / "qdq.onnx")
    assert sum(tuple(t.dims) == (8, 8) for t in model.graph.initializer) == 1
    compare(tmp_path / "qdq.onnx", net.samples(16))


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_calibration_methods(method: Any, tmp_path: Path) -> None:
    net = PATTERNS["sequence_pooling"].write(tmp_path / "float.onnx")
    x = net.samples(16)
    onnx.save(quantize(tmp_path / "float.onnx", x, method=method), tmp_path / "qdq.onnx")
    compare(tmp_path / "qdq.onnx", x)
    assert likeness(run_file(tmp_path / "qdq.onnx", x), run_file(tmp_path / "float.onnx", x)) > 0.98


def test_ranges_come_from_the_samples(tmp_path: Path) -> None:
    net = Net(4)
    path = saved(net, net.add("MatMul", "x", net.const(np.eye(4))), tmp_path / "float.onnx")
    samples = np.array([[-1, 0, 2, 4]], np.float32)
    onnx.save(quantize(path, samples), tmp_path / "qdq.onnx")
    for kind in load(tmp_path / "qdq.onnx").tensors.values():
        assert kind.scale == np.float32(5 / 255)
        assert kind.zero_point == -77


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3,), (1, 3)])
def test_gemm_bias_broadcasts(shape: tuple[int, ...], tmp_path: Path) -> None:
    net = Net(4)
    bias = net.const(net.random.standard_normal(shape))
    onnx.save(net.proto(net.add("Gemm", "x", net.weight(4, 3), bias)), tmp_path / "float.onnx")
    x = net.samples(16)
    onnx.save(quantize(tmp_path / "float.onnx", x), tmp_path / "qdq.onnx")
    (found,) = refsim.predict(compare(tmp_path / "qdq.onnx", x, 1.5), x).values()
    assert likeness(found, run_file(tmp_path / "float.onnx", x)) > 0.999
