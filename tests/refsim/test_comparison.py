"""Error of every layer against a reference, sensitivity, bytes beside ONNX Runtime, the LayerNorm ablation."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import refsim
from refsim import Model
from refsim.ablation import REAL, ablate_layernorm, with_real_layernorm, with_scale_bits
from refsim.comparison import batch_size, decibels
from refsim.errors import ModelError, QuantizationError
from refsim.float_model import FloatModel, OnnxSession, find_order, turn
from refsim.graph import Graph
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.real import run_real
from tests.refsim.conftest import Files
from tests.refsim.test_engine import small_graph


@pytest.fixture(scope="module")
def model(files: Files) -> Model:
    return refsim.load(files.model)


def scaled_weights(graph: Graph, node: str) -> Graph:
    """The graph with one layer spoiled: its weights, halved, lose their last bit and their meaning."""
    nodes = [
        replace(n, op=replace(n.op, weight=(n.op.weight // 4))) if n.name == node and isinstance(n.op, Linear) else n
        for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def test_figures_are_those_of_their_definitions(model: Model, files: Files) -> None:
    found = model.compare(files.float_model, files.data, progress=False)
    assert found.samples == 150
    assert not found.unmatched
    last = found.layers[-1]
    trace = model.trace(files.samples)
    kind = model.graph.tensors[last.tensor]
    golden = kind.dequantize(trace[last.tensor]).astype(np.float64)
    session = OnnxSession(files.float_model)
    real = session.run(session.outputs, {"x": files.samples})[session.outputs[0]].astype(np.float64)
    error = golden - real
    assert last.sqnr_db == pytest.approx(10 * math.log10((real**2).sum() / (error**2).sum()))
    assert last.cosine == pytest.approx((golden * real).sum() / math.sqrt((golden**2).sum() * (real**2).sum()))
    assert last.max_error == pytest.approx(np.abs(error).max())
    assert last.mean_error == pytest.approx(error.mean())
    assert last.rms_error == pytest.approx(math.sqrt((error**2).mean()))
    assert last.rms_steps == pytest.approx(math.sqrt((error**2).mean()) / kind.scale)
    assert last.real_range == pytest.approx((real.min(), real.max()))
    assert last.clipped == np.mean((real < last.range[0] - kind.scale / 2) | (real > last.range[1] + kind.scale / 2))
    np.testing.assert_array_equal(last.histogram, [np.sum(trace[last.tensor] == byte) for byte in range(-128, 128)])
    assert last.saturation == np.mean((trace[last.tensor] == -128) | (trace[last.tensor] == 127))
    assert found.quantized is not None
    assert found.real is not None
    assert found.real.accuracy == 1.0
    assert found.agreement == found.quantized.accuracy == np.mean(golden.argmax(1) == files.labels)


@pytest.mark.parametrize("beside", ["float model", "itself"])
def test_a_good_model_is_near_in_every_layer(model: Model, files: Files, beside: str) -> None:
    found = model.compare(files.float_model if beside == "float model" else None, files.samples, progress=False)
    assert found.quantized is None
    for layer in found.layers:
        assert layer.sqnr_db is not None
        assert layer.sqnr_db > 25
        assert layer.cosine is not None
        assert layer.cosine > 0.99
        assert (layer.clipped is None) == (beside == "itself")
    assert all(set(record) == set(found.records()[0]) for record in found.records())


def test_the_spoiled_layer_is_found(model: Model, files: Files) -> None:
    linear = next(node.name for node in model.graph.nodes if isinstance(node.op, Linear))
    spoiled = Model(scaled_weights(model.graph, linear))
    assert spoiled.compare(files.float_model, files.samples, progress=False).worst(1)[0].node == linear
    costs = spoiled.sensitivity(files.data, float_model=files.float_model, progress=False)
    assert costs.layers[0].node == linear
    assert costs.samples == 128
    before = {layer.node: layer for layer in model.sensitivity(files.data, float_model=files.float_model).layers}
    assert costs.layers[0].sqnr_db < before[linear].sqnr_db - 10
    # Every other layer costs what it did: the rest of the model runs in real numbers.
    for layer in costs.layers[1:]:
        assert layer.sqnr_db == pytest.approx(before[layer.node].sqnr_db)


def test_sensitivity_without_a_float_model(model: Model, files: Files) -> None:
    costs = model.sensitivity(files.data, limit=20, progress=False)
    assert [layer.sqnr_db for layer in costs.layers] == sorted(layer.sqnr_db for layer in costs.layers)
    assert costs.samples == 20
    assert {record["operator"] for record in costs.records()} >= {"conv2d", "layernorm", "linear"}
    # The last layer writes the output: its effect is its own error.
    last = next(layer for layer in costs.layers if layer.tensor == model.graph.outputs[0].tensor)
    assert 20 < last.sqnr_db < 60


def test_dead_channels_are_found(files: Files) -> None:
    graph = refsim.load(files.model).graph
    last = graph.nodes[-1]
    assert isinstance(last.op, Linear)
    weight = last.op.weight.copy()
    weight[2] = 0
    dead = replace(graph, nodes=(*graph.nodes[:-1], replace(last, op=replace(last.op, weight=weight))))
    layers = Model(dead).compare(None, files.samples, progress=False).layers
    assert layers[-1].dead_channels == (2,)
    assert layers[-1].channels == 4


def test_layers_without_a_tensor_of_their_name_are_reported(model: Model, files: Files, tmp_path: Path) -> None:
    proto = onnx.load(files.float_model)
    conv = next(node for node in model.graph.nodes if node.op.name == "conv2d").output
    for node in proto.graph.node:
        node.input[:] = ["renamed" if name == conv else name for name in node.input]
        node.output[:] = ["renamed" if name == conv else name for name in node.output]
    onnx.save(proto, tmp_path / "renamed.onnx")
    found = model.compare(tmp_path / "renamed.onnx", files.samples, progress=False)
    assert [layer.tensor for layer in found.unmatched] == [conv]
    assert found.unmatched[0].record()["sqnr_db"] is None
    assert found.layers[-1].sqnr_db is not None
    costs = model.sensitivity(files.samples, float_model=tmp_path / "renamed.onnx", progress=False)
    assert conv not in {layer.tensor for layer in costs.layers}


def test_sensitivity_needs_the_outputs(model: Model, files: Files, tmp_path: Path) -> None:
    proto = onnx.load(files.float_model)
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "elsewhere"
    onnx.save(proto, tmp_path / "outputs.onnx")
    with pytest.raises(ModelError, match=r"outputs\.onnx lacks the outputs 'add_\d+'"):
        model.sensitivity(files.samples, float_model=tmp_path / "outputs.onnx", progress=False)


def test_batches_are_smaller_where_tensors_are_large(model: Model) -> None:
    assert batch_size(model.graph) == 64
    large = refsim.TensorType((1024, 1024, 8), 1.0, 0)
    assert batch_size(replace(model.graph, tensors={**model.graph.tensors, "large": large})) == 1


def test_another_float_model_is_refused(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give the float model that it was made from"):
        FloatModel(files.float_model, small_graph())
    with pytest.raises(ModelError, match=r"none\.onnx: cannot read"):
        OnnxSession(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match="not an ONNX file"):
        OnnxSession(tmp_path / "text.onnx")


def test_a_float_model_of_fixed_batch(files: Files, model: Model, tmp_path: Path) -> None:
    proto = onnx.load(files.float_model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    del proto.graph.value_info[:]
    onnx.save(proto, tmp_path / "four.onnx")
    expected = model.compare(files.float_model, files.samples[:50], progress=False)
    found = model.compare(tmp_path / "four.onnx", files.samples[:50], progress=False)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        assert ours.sqnr_db == pytest.approx(theirs.sqnr_db, rel=1e-3)


def test_axes_are_found_by_their_values() -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 1, 5, 2))
    golden = x.transpose(0, 3, 4, 2, 1) + 0.01
    order = find_order(x, golden)
    assert order is not None
    np.testing.assert_array_equal(turn(x, order, golden.shape[1:]), x.transpose(0, 3, 4, 2, 1))
    assert find_order(x, golden[:, :4]) is None
    assert find_order(x[:2], golden) is None


def test_decibels_of_nothing() -> None:
    assert decibels(1.0, 0.0) == math.inf
    assert decibels(0.0, 1.0) == -math.inf
    assert decibels(100.0, 1.0) == pytest.approx(20)


def test_bytes_beside_onnx_runtime(model: Model, files: Files) -> None:
    found = model.agreement(files.data, progress=False)
    by_operator = {layer.operator: layer for layer in found.layers}
    assert by_operator["conv2d"].alone_equal > 0.999
    assert by_operator["conv2d"].equal == by_operator["conv2d"].alone_equal  # it is the first: its inputs are equal
    assert by_operator["conv2d"].bytes == 150 * 36 * 8
    assert all(layer.alone_largest <= 1 for layer in found.layers)
    assert found.same_class is not None
    assert found.same_class > 0.9
    # A layer that computes something else differs alone; the layers behind it do not, on ONNX Runtime's own bytes.
    linear = next(node.name for node in model.graph.nodes if isinstance(node.op, Linear))
    spoiled = Model(scaled_weights(model.graph, linear), files.model).agreement(files.data, progress=False)
    for before, after in zip(found.layers, spoiled.layers, strict=True):
        assert (before.alone_equal == after.alone_equal) == (before.node != linear)
    assert spoiled.layers[-1].equal < found.layers[-1].equal


def test_agreement_needs_the_quantised_file(model: Model, files: Files) -> None:
    with pytest.raises(ModelError, match="comes from no file"):
        Model(model.graph).agreement(files.data, progress=False)
    with pytest.raises(ModelError, match="holds no QuantizeLinear"):
        Model(model.graph, files.float_model).agreement(files.data, progress=False)


def test_fewer_scale_bits_round_the_normalised_value(model: Model, files: Files) -> None:
    for bits in (0, 3, 7, 10):
        graph = with_scale_bits(model.graph, bits)
        (node,) = (n for n in graph.nodes if isinstance(n.op, LayerNorm))
        assert node.op.scale_bits == bits
        found = Model(graph).compare(files.float_model, files.samples, progress=False)
        error = next(layer.rms_steps for layer in found.layers if layer.operator == "layernorm")
        assert error is not None
        assert error > 5 if bits == 0 else error < 5
    same = with_scale_bits(with_scale_bits(model.graph, 9), 7)
    np.testing.assert_array_equal(Model(same).predict(files.samples), model.predict(files.samples))
    with pytest.raises(QuantizationError, match="takes 0 to 14 scale bits, found 15"):
        with_scale_bits(model.graph, 15)


def test_a_layernorm_in_real_numbers_rounds_once(model: Model, files: Files) -> None:
    graph = with_real_layernorm(model.graph)
    (node,) = (n for n in graph.nodes if isinstance(n.op, LayerNorm))
    (original,) = (n for n in model.graph.nodes if isinstance(n.op, LayerNorm))
    traced = Model(graph).trace(files.samples)
    exact = run_real(original.op, traced[node.inputs[0]].astype(np.float64))
    assert np.abs(traced[node.output] - exact).max() <= 0.5
    integers = original.op.run(traced[node.inputs[0]])
    assert (traced[node.output] != integers).any(), "7 bits are not exact"
    assert np.abs(traced[node.output].astype(int) - integers).max() <= 1


def test_ablation_of_layernorm(model: Model, files: Files) -> None:
    found = ablate_layernorm(model, files.data, float_model=files.float_model, bits=(7, 0), progress=False)
    assert (found.samples, found.layers) == (150, 1)
    real, scaled, naive = found.variants
    assert (real.scale_bits, scaled.scale_bits, naive.scale_bits) == (None, 7, 0)
    assert real.accuracy == real.agreement == 1.0
    assert scaled.accuracy == model.evaluate(files.data, progress=False).accuracy
    assert naive.accuracy <= scaled.accuracy
    assert next(row["variant"] for row in found.records()) == "float"
    with_real = ablate_layernorm(model, files.data, bits=(0,), real=True, progress=False)
    assert [variant.variant for variant in with_real.variants] == [REAL, "int8, 0 scale bits, naive"]
    assert with_real.variants[0].accuracy == Model(with_real_layernorm(model.graph)).evaluate(files.data).accuracy
    with pytest.raises(QuantizationError, match="holds no LayerNorm"):
        ablate_layernorm(Model(small_graph()), files.data)
