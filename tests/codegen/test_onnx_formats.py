"""Files as older exporters and other quantisers write them: QOperator nodes, old operator sets, moves of integers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

import refsim
from codegen.onnx import load, quantize
from refsim.errors import ModelError, UnsupportedError
from tests.codegen.onnx_models import PATTERNS, Net
from tests.codegen.test_onnx_errors import layer, qdq, refused, saved, stored, weights
from tests.codegen.test_onnx_patterns import STEPS, Reader, likeness, run_file, steps_apart

QOPERATOR = (
    "convolutional",
    "pooled_and_cut",
    "tokens",
    "attention",
    "class_token",
    "written_out_silu",
    "gated",
    "function_behind_relu",
)
"""Between them they have all QLinear operators that ONNX Runtime's quantiser writes, but QLinearReduceMean."""


@pytest.mark.parametrize("activation", [QuantType.QInt8, QuantType.QUInt8])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", QOPERATOR)
def test_qoperator_format(name: str, per_channel: bool, activation: QuantType, tmp_path: Path) -> None:
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    x = net.samples(24)
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "q.onnx",
        Reader(x),
        quant_format=QuantFormat.QOperator,
        activation_type=activation,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )
    kinds = {node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node}
    assert any(kind.startswith(("QLinear", "QGemm")) for kind in kinds)
    graph = load(tmp_path / "q.onnx")
    (found,) = refsim.predict(graph, x).values()
    real, theirs = run_file(tmp_path / "float.onnx", x), run_file(tmp_path / "q.onnx", x)
    assert likeness(found, real) > 0.99
    assert steps_apart(graph, found, theirs) <= STEPS or np.abs(found - real).mean() < np.abs(theirs - real).mean()


def test_qlinear_convolution_equals_onnx_runtime(tmp_path: Path) -> None:
    """One layer between integers: the same bytes, ties apart."""
    net = Net(3, 9, 9)
    x = net.add("QuantizeLinear", "x", net.const(0.03), net.const(120, np.uint8))
    weight, scales = net.const(weights(4, 3, 3, 3), np.int8), net.const([0.002, 0.003, 0.004, 0.005])
    y = net.add(
        "QLinearConv",
        *(x, net.const(0.03), net.const(120, np.uint8)),
        *(weight, scales, net.const(np.zeros(4), np.int8)),
        *(net.const(0.1), net.const(131, np.uint8), net.const([100, -200, 300, 0], np.int32)),
        pads=[1, 1, 1, 1],
    )
    y = net.add("DequantizeLinear", y, net.const(0.1), net.const(131, np.uint8))
    path = saved(net, y, tmp_path / "m.onnx")
    graph = load(path)
    assert graph.nodes[0].name == "/qlinearconv_1"
    assert graph.tensors[graph.outputs[0].tensor].zero_point == 3
    (found,) = refsim.predict(graph, net.samples(16)).values()
    np.testing.assert_allclose(found, run_file(path, net.samples(16)), atol=1e-6)


def test_qlinear_node_without_its_inputs(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("QLinearMatMul", "x", net.const(0.1), net.const(0, np.int8))
    (tmp_path / "m.onnx").write_bytes(net.proto(y, shapes={y: ["n", 4]}).SerializeToString())
    refused(ModelError, tmp_path / "m.onnx", "/qlinearmatmul_0", "needs 8 inputs, found 3")


def test_a_sum_of_nothing(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("Sum")
    (tmp_path / "m.onnx").write_bytes(net.proto(y, shapes={y: ["n", 8]}).SerializeToString())
    refused(ModelError, tmp_path / "m.onnx", "/sum_0", "needs an input")


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_old_operator_sets(opset: int, tmp_path: Path) -> None:
    """A float network with what changed since: attributes that are inputs today, dropout, ir_version 3."""
    net = Net(3, 8, 8, opset=opset)
    positive = net.const(0.5 + net.random.random(6))
    y = net.conv("x", 3, 6, 3)
    y = net.add("BatchNormalization", y, net.weight(6), net.weight(6), net.weight(6), positive)
    y = net.add("Clip", net.add("Dropout", y), min=0.0, max=6.0)
    y = net.add("Pad", y, pads=[0, 0, 1, 1, 0, 0, 0, 0], value=0.0)
    y = net.add("Slice", y, axes=[2], starts=[1], ends=[100]) if opset < 10 else y
    y = net.add("ReduceMean", net.add("MaxPool", y, kernel_shape=[2, 2]), axes=[2, 3], keepdims=0)
    y = net.add("Softmax", net.add("Gemm", y, net.weight(6, 4), net.weight(4)))
    model = net.proto(y, shapes={y: ["n", 4]})
    model.ir_version = 3
    model.graph.input.extend(  # as files of that age list their weights
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    onnx.save(model, tmp_path / "float.onnx")
    x = net.samples(24)
    onnx.save(quantize(tmp_path / "float.onnx", x), tmp_path / "qdq.onnx")
    graph = load(tmp_path / "qdq.onnx")
    (found,) = refsim.predict(graph, x).values()
    assert steps_apart(graph, found, run_file(tmp_path / "qdq.onnx", x)) <= STEPS
    assert likeness(found, run_file(tmp_path / "float.onnx", x)) > 0.99


def test_weights_around_another_zero_point(tmp_path: Path) -> None:
    """Exact where every distance from the zero point is a byte."""
    net = Net(8)
    data = np.random.default_rng(0).integers(60, 200, (8, 4)).astype(np.uint8)
    graph = load(saved(net, layer(net, qdq(net, "x"), stored(net, data, zero_point=110)), tmp_path / "m.onnx"))
    np.testing.assert_array_equal(graph.nodes[0].op.weight, data.T.astype(int) - 110)


@pytest.mark.parametrize(("dtype", "zero_point"), [(np.int8, 5), (np.uint8, 133)])
def test_moves_of_integers(dtype: Any, zero_point: int, tmp_path: Path) -> None:
    """Operators between QuantizeLinear and DequantizeLinear; a padded byte is a byte, not a real number."""
    net = Net(4, 6, 6)
    parameters = net.const(0.05), net.const(zero_point, dtype)
    y = net.add("MaxPool", net.add("QuantizeLinear", "x", *parameters), kernel_shape=[2, 2], strides=[2, 2])
    y = net.add("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 0, 0), net.const(7, dtype))
    y = net.add("DequantizeLinear", net.add("Flatten", y), *parameters)
    path = saved(net, y, tmp_path / "m.onnx")
    (found,) = refsim.predict(load(path), net.samples(4)).values()
    np.testing.assert_array_equal(found, run_file(path, net.samples(4)))


@pytest.mark.parametrize(("opset", "kind"), [(7, "Upsample"), (9, "Upsample"), (10, "Resize"), (13, "Resize")])
def test_upsampling_in_every_operator_set(opset: int, kind: str, tmp_path: Path) -> None:
    net = Net(3, 4, 5, opset=opset)
    y = net.conv("x", 3, 3, 1)
    scales = [1.0, 1.0, 2.0, 3.0]
    if opset == 7:
        y = net.add(kind, y, mode="nearest", scales=scales)
    elif opset < 11:
        y = net.add(kind, y, net.const(scales), mode="nearest")
    else:
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        y = net.add(kind, y, "", net.const(scales), mode="nearest", **modes)
    onnx.save(net.proto(y, shapes={y: ["n", 3, 8, 15]}), tmp_path / "float.onnx")
    onnx.save(quantize(tmp_path / "float.onnx", net.samples(8)), tmp_path / "qdq.onnx")
    (found,) = refsim.predict(load(tmp_path / "qdq.onnx"), net.samples(8)).values()
    np.testing.assert_allclose(found, run_file(tmp_path / "qdq.onnx", net.samples(8)), atol=1e-6)


def test_resize_that_interpolates(tmp_path: Path) -> None:
    net = Net(3, 4, 5)
    y = net.add("Resize", qdq(net, "x"), "", net.const([1, 1, 2, 2]), mode="linear")
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "'linear'", "'nearest'", "/resize_2")


def test_a_slope_for_each_channel(tmp_path: Path) -> None:
    net = Net(3, 4, 5)
    y = net.add("PRelu", net.conv("x", 3, 6, 1), net.const(np.linspace(-0.2, 0.5, 6).reshape(6, 1, 1)))
    x = net.samples(16)
    onnx.save(net.proto(y), tmp_path / "float.onnx")
    onnx.save(quantize(tmp_path / "float.onnx", x), tmp_path / "qdq.onnx")
    graph = load(tmp_path / "qdq.onnx")
    assert [node.op.name for node in graph.nodes] == ["conv2d", "lookup", "mul", "lookup", "add"]
    (found,) = refsim.predict(graph, x).values()
    assert steps_apart(graph, found, run_file(tmp_path / "qdq.onnx", x)) <= STEPS
    assert likeness(found, run_file(tmp_path / "float.onnx", x)) > 0.99


@pytest.mark.parametrize(
    ("kind", "dtype", "zero_point"), [("Clip", np.int8, 5), ("Clip", np.uint8, 133), ("Relu", np.int8, -5)]
)
def test_limits_of_integers(kind: str, dtype: Any, zero_point: int, tmp_path: Path) -> None:
    """Exporters of fewer than eight bits limit the integers between QuantizeLinear and DequantizeLinear."""
    net = Net(4, 6, 6)
    parameters = net.const(0.05), net.const(zero_point, dtype)
    bounds = [net.const(zero_point - 8, dtype), net.const(zero_point + 7, dtype)] if kind == "Clip" else []
    y = net.add(kind, net.add("QuantizeLinear", "x", *parameters), *bounds)
    path = saved(net, net.add("DequantizeLinear", y, *parameters), tmp_path / "m.onnx")
    (found,) = refsim.predict(load(path), net.samples(4)).values()
    np.testing.assert_array_equal(found, run_file(path, net.samples(4)))
