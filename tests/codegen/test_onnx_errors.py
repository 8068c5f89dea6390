"""What the importer and the quantiser refuse, each with one clear error of the project's own."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper, numpy_helper

import refsim
from codegen.onnx import load, quantize
from refsim.errors import DataError, ModelError, QuantizationError, TinyFormerError, UnsupportedError
from tests.codegen.onnx_models import Net


def qdq(net: Net, x: str, scale: Any = 0.05, zero_point: Any = 0, dtype: Any = np.int8) -> str:
    parameters = net.const(scale), net.const(zero_point, dtype)
    return str(net.add("DequantizeLinear", net.add("QuantizeLinear", x, *parameters), *parameters))


def stored(net: Net, data: NDArray[Any], scale: Any = 0.01, zero_point: Any = 0, **attributes: Any) -> str:
    constants = net.const(data, data.dtype), net.const(scale), net.const(zero_point, data.dtype)
    return str(net.add("DequantizeLinear", *constants, **attributes))


def weights(*shape: int, dtype: Any = np.int8) -> NDArray[Any]:
    info = np.iinfo(dtype)
    return np.random.default_rng(3).integers(max(info.min, -127), min(info.max, 255), shape).astype(dtype)


def layer(net: Net, x: str, weight: str) -> str:
    return qdq(net, net.add("MatMul", x, weight))


def saved(net: Net, output: str, path: Path, **changes: Any) -> Path:
    model = net.proto(output)
    for key, value in changes.items():
        setattr(model, key, value)
    onnx.save(model, path)
    return path


def small(tmp_path: Path) -> Path:
    net = Net(8)
    return saved(net, layer(net, qdq(net, "x"), stored(net, weights(8, 4))), tmp_path / "small.onnx")


def refused(error: type[TinyFormerError], path: Path, *words: str) -> None:
    with pytest.raises(error) as caught:
        load(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_the_small_model_loads(tmp_path: Path) -> None:
    graph = load(small(tmp_path))
    assert [node.op.name for node in graph.nodes] == ["linear"]
    assert graph.name == "small"
    assert load(small(tmp_path), name="other").name == "other"


# files --------------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    refused(ModelError, tmp_path / "none.onnx", "cannot read the model")


@pytest.mark.parametrize("data", [b"", b"hello, this is no model", bytes(range(256)) * 20, b"\x08\x07"])
def test_not_onnx(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    refused(ModelError, path, "not an ONNX file")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = small(tmp_path).read_bytes()
    for size in range(0, len(whole), 7):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            load(path)


def test_flipped_bytes_never_escape_the_hierarchy(tmp_path: Path) -> None:
    whole = small(tmp_path).read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "flipped.onnx"
    for _ in range(150):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        try:
            load(path)
        except TinyFormerError:
            continue


def with_external_data(tmp_path: Path, location: str) -> Path:
    path = small(tmp_path)
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.dims == [8, 4])
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    external_data_helper.set_external_data(tensor, location, offset=0, length=32)
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read(tmp_path: Path) -> None:
    weight = load(with_external_data(tmp_path, "weights.bin")).nodes[0].op.weight
    np.testing.assert_array_equal(weight, weights(8, 4).T)


def test_external_data_missing(tmp_path: Path) -> None:
    refused(ModelError, with_external_data(tmp_path, "nothing.bin"), "nothing.bin", "missing")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", ""])
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(32))
    refused(ModelError, with_external_data(tmp_path / "model", location), "outside the model's folder")


@pytest.mark.parametrize("location", ["weights.bin\0", "w" * 5000, "circle"])
def test_external_data_where_no_file_can_be(location: str, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    refused(ModelError, with_external_data(tmp_path, location), "external data", "no path")


def test_external_data_of_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither outside nor in the current folder, where ONNX Runtime would look."""
    (tmp_path / "model").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(128))
    monkeypatch.chdir(tmp_path)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 4], data_location=TensorProto.EXTERNAL)
    location = tensor.external_data.add(key="location")
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor), helper.make_node("MatMul", ["x", "w"], ["y"])]
    function = helper.make_function("local", "F", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
    (held,) = function.node[0].attribute
    graph = helper.make_graph(
        [helper.make_node("F", ["x"], ["y"], domain="local")],
        "calls",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for place, says in (("weights.bin", "missing beside the model"), ("../weights.bin", "outside the model's folder")):
        location.value = place
        held.t.CopyFrom(tensor)
        model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)
        path = tmp_path / "model" / "m.onnx"
        path.write_bytes(model.SerializeToString())
        refused(ModelError, path, "weights.bin", says)


def test_external_data_too_short(tmp_path: Path) -> None:
    path = with_external_data(tmp_path, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"abc")
    refused(ModelError, path, "weights.bin", "cannot be read")


# models -------------------------------------------------------------------------------------------------------------


def test_float_model(tmp_path: Path) -> None:
    net = Net(8)
    refused(ModelError, saved(net, net.linear("x", 8, 4), tmp_path / "m.onnx"), "tinyformer quantize")


@pytest.mark.parametrize("opset", [6, 99])
def test_operator_set(opset: int, tmp_path: Path) -> None:
    path = small(tmp_path)
    model = onnx.load(path)
    model.opset_import[0].version = opset
    path.write_bytes(model.SerializeToString())
    refused(UnsupportedError, path, f"operator set {opset}", "7 to 24", "version_converter")


def test_unknown_domain(tmp_path: Path) -> None:
    path = small(tmp_path)
    model = onnx.load(path)
    model.graph.node[-1].domain = "my.company"
    path.write_bytes(model.SerializeToString())
    refused(UnsupportedError, path, "my.company", model.graph.node[-1].name)


def test_unsupported_operator(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("CumSum", qdq(net, "x"), net.const(1, np.int64))
    refused(
        UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "/cumsum_2", "CumSum", "supported are", "Conv"
    )


def test_control_flow(tmp_path: Path) -> None:
    net = Net(8)
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)])
    y = net.add("If", net.const(True, np.bool_), then_branch=branch, else_branch=branch)
    model = helper.make_model(
        helper.make_graph(
            [*net.nodes, helper.make_node("QuantizeLinear", [y, net.const(0.1)], ["q"])],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
            [helper.make_tensor_value_info("q", TensorProto.UINT8, None)],
            net.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(UnsupportedError, tmp_path / "m.onnx", "control flow")


def test_dynamic_shape(tmp_path: Path) -> None:
    path = small(tmp_path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].Clear()
    path.write_bytes(model.SerializeToString())
    refused(UnsupportedError, path, "'x'", "dynamic beyond the batch axis")


def test_unwritten_input(tmp_path: Path) -> None:
    path = small(tmp_path)
    model = onnx.load(path)
    node = next(n for n in model.graph.node if n.op_type == "MatMul")
    node.input[0] = "nobody"
    path.write_bytes(model.SerializeToString())
    refused(ModelError, path, "'nobody'", node.name)


def test_inconsistent_tensor(tmp_path: Path) -> None:
    path = small(tmp_path)
    model = onnx.load(path)
    next(t for t in model.graph.initializer if t.dims == [8, 4]).raw_data = b"abc"
    path.write_bytes(model.SerializeToString())
    refused(ModelError, path)


# quantisation -------------------------------------------------------------------------------------------------------


def test_no_quantization_behind_an_operator(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("MatMul", qdq(net, "x"), stored(net, weights(8, 4)))
    refused(
        UnsupportedError, saved(net, y, tmp_path / "m.onnx"), "'/matmul_3'", "would have to run in float", "'matmul_3'"
    )


def test_float_weight(tmp_path: Path) -> None:
    net = Net(8)
    weight = net.weight(8, 4)
    refused(UnsupportedError, saved(net, layer(net, qdq(net, "x"), weight), tmp_path / "m.onnx"), weight, "in float")


def test_asymmetric_weight(tmp_path: Path) -> None:
    net = Net(8)
    weight = stored(net, weights(8, 4, dtype=np.uint8), zero_point=100)
    refused(
        UnsupportedError, saved(net, layer(net, qdq(net, "x"), weight), tmp_path / "m.onnx"), weight, "symmetric", "-28"
    )


def test_uint8_weight_around_128(tmp_path: Path) -> None:
    net = Net(8)
    data = weights(8, 4, dtype=np.uint8)
    graph = load(saved(net, layer(net, qdq(net, "x"), stored(net, data, zero_point=128)), tmp_path / "m.onnx"))
    np.testing.assert_array_equal(graph.nodes[0].op.weight, data.T.astype(int) - 128)


def test_weight_quantised_along_its_inputs(tmp_path: Path) -> None:
    net = Net(8)
    weight = stored(net, weights(8, 4), np.linspace(0.01, 0.02, 8), np.zeros(8), axis=0)
    refused(
        UnsupportedError, saved(net, layer(net, qdq(net, "x"), weight), tmp_path / "m.onnx"), weight, "another axis"
    )


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf])
def test_impossible_scale(scale: float, tmp_path: Path) -> None:
    net = Net(8)
    y = layer(net, qdq(net, "x", scale), stored(net, weights(8, 4)))
    refused(ModelError, saved(net, y, tmp_path / "m.onnx"), "scale", "positive")


def test_sixteen_bits(tmp_path: Path) -> None:
    net = Net(8, opset=21)
    y = layer(net, qdq(net, "x", dtype=np.int16), stored(net, weights(8, 4)))
    refused(UnsupportedError, saved(net, y, tmp_path / "m.onnx", ir_version=10), "int8 or uint8", "int16")


def test_activation_per_channel(tmp_path: Path) -> None:
    net = Net(8)
    y = layer(net, qdq(net, "x", np.full(8, 0.1), np.zeros(8)), stored(net, weights(8, 4)))
    refused(UnsupportedError, saved(net, y, tmp_path / "m.onnx"), "per tensor")


def test_other_scale_behind_the_pair(tmp_path: Path) -> None:
    net = Net(8)
    q = net.add("QuantizeLinear", "x", net.const(0.1), net.const(0, np.int8))
    x = net.add("DequantizeLinear", q, net.const(0.2), net.const(0, np.int8))
    refused(
        UnsupportedError, saved(net, layer(net, x, stored(net, weights(8, 4))), tmp_path / "m.onnx"), "another scale"
    )


def test_overflowing_accumulator(tmp_path: Path) -> None:
    net = Net(8)
    product = net.add("MatMul", qdq(net, "x"), stored(net, weights(8, 4)))
    bias = stored(net, np.full(4, 2**31 - 1, np.int32), 0.05 * 0.01)
    refused(QuantizationError, saved(net, qdq(net, net.add("Add", product, bias)), tmp_path / "m.onnx"), "/matmul_3")


def test_other_quantised_formats(tmp_path: Path) -> None:
    net = Net(8)
    x = net.add("QuantizeLinear", "x", net.const(0.1), net.const(0, np.int8))
    y = net.add("MatMulInteger", x, net.const(weights(8, 4), np.int8))
    model = net.proto(y, shapes={y: ["n", 4]})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT32
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(UnsupportedError, tmp_path / "m.onnx", "MatMulInteger", "QDQ")


def test_dynamic_quantisation(tmp_path: Path) -> None:
    """It has no QuantizeLinear, and is no float model either."""
    net = Net(8)
    x, scale, zero_point = net.add("DynamicQuantizeLinear", "x", outputs=3)
    y = net.add("MatMulInteger", x, net.const(weights(8, 4), np.int8), zero_point)
    y = net.add("Mul", net.add("Cast", y, to=TensorProto.FLOAT), scale)
    refused(UnsupportedError, saved(net, y, tmp_path / "m.onnx"), "DynamicQuantizeLinear", "`tinyformer quantize`")


def test_quotient_of_activations(tmp_path: Path) -> None:
    net = Net(8)
    x = qdq(net, "x")
    y = net.add("Div", qdq(net, net.add("Tanh", x), 0.01), layer(net, x, stored(net, weights(8, 8))))
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "Div", "Add, Sub and Mul are")


def test_second_output(tmp_path: Path) -> None:
    net = Net(3, 8, 8)
    pooled, indices = net.add("MaxPool", qdq(net, "x"), outputs=2, kernel_shape=[2, 2])
    model = net.proto(pooled, indices, shapes={pooled: ["n", 3, 7, 7], indices: ["n", 3, 7, 7]})
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(UnsupportedError, tmp_path / "m.onnx", "/maxpool_2", "first output alone", repr(indices))


def test_training_mode(tmp_path: Path) -> None:
    """What a model exported without `model.eval()` holds."""
    net = Net(4, 6, 6)
    rows = [net.const(np.linspace(0.5, 1.5, 4)) for _ in range(4)]
    y = net.add("BatchNormalization", qdq(net, "x"), *rows, outputs=3, training_mode=1)[0]
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "training mode", "export for inference")
    net = Net(8)
    y = net.add("Dropout", qdq(net, "x"), net.const(0.5), net.const(True, np.bool_))
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "Dropout", "export for inference")


def test_normalisation_with_an_empty_bias(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("LayerNormalization", qdq(net, "x"), net.const(np.ones(8)), net.const(np.zeros(0)))
    y = qdq(net, y)
    (tmp_path / "m.onnx").write_bytes(net.proto(y, shapes={y: ["n", 8]}).SerializeToString())
    refused(ModelError, tmp_path / "m.onnx", "/layernormalization_2")


def test_advice_about_a_last_operator(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("LogSoftmax", layer(net, qdq(net, "x"), stored(net, weights(8, 4))))
    refused(UnsupportedError, saved(net, y, tmp_path / "m.onnx"), "LogSoftmax", "leave it out on export")


def test_arithmetic_on_the_integers(tmp_path: Path) -> None:
    """Between QuantizeLinear and DequantizeLinear: the smaller byte, whatever it stands for."""
    net = Net(8, opset=13)
    parameters = net.const(0.05), net.const(10, np.int8)
    y = net.add("Min", net.add("QuantizeLinear", "x", *parameters), net.const(3, np.int8))
    y = layer(net, net.add("DequantizeLinear", y, *parameters), stored(net, weights(8, 4)))
    refused(UnsupportedError, saved(net, y, tmp_path / "m.onnx"), "/min_1", "int8 integers", "DequantizeLinear")


# the batch axis -----------------------------------------------------------------------------------------------------


def test_softmax_along_the_batch(tmp_path: Path) -> None:
    net = Net(8)
    y = net.add("Softmax", qdq(net, "x"), axis=0)
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "batch axis", "/softmax_2")


def test_mean_along_the_batch(tmp_path: Path) -> None:
    net = Net(4, 8)
    y = net.add("ReduceMean", qdq(net, "x"), axes=[0], keepdims=1)
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "batch axis", "/reducemean_2")


def test_samples_that_mix_unseen(tmp_path: Path) -> None:
    """A reshape that spreads samples over the rows looks innocent for a batch of one."""
    net = Net(6, 8)
    y = net.add("Reshape", qdq(net, "x"), net.ints(6, -1, 8))
    y = net.add("Transpose", y, perm=[1, 0, 2])
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "influence each other")


def test_output_without_a_batch(tmp_path: Path) -> None:
    net = Net(6, 8)
    y = net.add("Transpose", qdq(net, "x"), perm=[1, 0, 2])
    refused(UnsupportedError, saved(net, qdq(net, y), tmp_path / "m.onnx"), "first axis must be the batch")


# the quantiser ------------------------------------------------------------------------------------------------------


def float_model(tmp_path: Path) -> Path:
    net = Net(8)
    return saved(net, net.linear("x", 8, 4), tmp_path / "float.onnx")


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (np.zeros((4, 7), np.float32), "must be float (N, 8)"),
        (np.zeros((4, 8), np.uint8), "must be float (N, 8)"),
        (np.zeros((0, 8), np.float32), "at least one"),
        (np.full((4, 8), np.nan, np.float32), "not finite"),
        ({"y": np.zeros((4, 8), np.float32)}, "['x']"),
    ],
)
def test_calibration_samples(samples: Any, word: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        quantize(float_model(tmp_path), samples)
    assert word in str(caught.value)


def test_calibration_method(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="minmax, percentile, entropy"):
        quantize(float_model(tmp_path), np.zeros((4, 8), np.float32), method="best")


def test_constant_without_elements(tmp_path: Path) -> None:
    net = Net(5, 8)
    batch = net.add("Gather", net.add("Shape", "x"), net.ints(0))
    nothing = net.add("Expand", net.const(np.zeros((1, 0, 8))), net.add("Concat", batch, net.ints(0, 8), axis=0))
    path = saved(net, net.linear(net.add("Concat", nothing, "x", axis=1), 8, 4), tmp_path / "float.onnx")
    with pytest.raises(ModelError, match="no elements"):
        quantize(path, np.zeros((4, 5, 8), np.float32))


def test_quantising_twice(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="quantised already"):
        quantize(small(tmp_path), np.zeros((4, 8), np.float32))


def test_dead_tensors_still_quantise(tmp_path: Path) -> None:
    """Zero weights, a large bias on a channel without weights, and activations that never move."""
    net = Net(8)
    matrix = np.zeros((8, 4), np.float32)
    matrix[0, 0], matrix[0, 1] = 1.0, 1e-9
    y = net.add("Add", net.add("MatMul", "x", net.const(matrix)), net.const([0.1, 50.0, 3.0, 0.0]))
    y = net.add("Relu", net.add("MatMul", y, net.const(np.zeros((4, 4)))))
    path = saved(net, y, tmp_path / "float.onnx")
    onnx.save(quantize(path, net.samples(8)), tmp_path / "qdq.onnx")
    found = refsim.predict(load(tmp_path / "qdq.onnx"), net.samples(3))
    np.testing.assert_array_equal(found[y], np.zeros((3, 4)))


def test_pruned_weights_stay_zero(tmp_path: Path) -> None:
    net = Net(8)
    matrix = net.random.standard_normal((8, 6)).astype(np.float32)
    matrix[net.random.random((8, 6)) < 0.7] = 0
    path = saved(net, net.add("MatMul", "x", net.const(matrix)), tmp_path / "float.onnx")
    model = quantize(path, net.samples(8))
    (integers,) = (numpy_helper.to_array(t) for t in model.graph.initializer if tuple(t.dims) == (8, 6))
    np.testing.assert_array_equal(integers == 0, matrix == 0)
    assert np.abs(integers).max() == 127
    assert quantize(path, net.samples(8)).SerializeToString() == model.SerializeToString()
