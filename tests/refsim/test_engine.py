"""Graphs check themselves, and the engine runs them: batches, traces, chunks and layouts."""

import numpy as np
import pytest

import refsim
from refsim import Graph, Node, Port, TensorType, engine
from refsim.errors import ModelError, QuantizationError, ShapeError
from refsim.ops import Requantization
from refsim.ops.add import Add
from refsim.ops.conv2d import Conv2D
from refsim.ops.mean import Mean
from refsim.ops.transpose import Transpose

SCALE = float(np.float32(0.05))


def small_graph(**changes):
    """Conv, a residual constant, mean: (4, 5, 3) -> (2,)."""
    rng = np.random.default_rng(0)
    image, features = TensorType((4, 5, 3), SCALE, -3), TensorType((4, 5, 2), SCALE, 7)
    vector = TensorType((2,), SCALE, 0)
    conv = Conv2D(
        rng.integers(-127, 128, (2, 3, 3, 3)).astype(np.int8),
        np.array([100, -50], np.int32),
        -3,
        Requantization.from_real([2e-3, 3e-3], 7),
        padding=(1, 1, 1, 1),
    )
    parts = {
        "name": "small",
        "inputs": (Port("x", "image", (1, 2, 0)),),
        "outputs": (Port("y", "scores"),),
        "tensors": {"x": image, "c": features, "k": features, "s": features, "y": vector},
        "nodes": (
            Node("conv", conv, ("x",), "c"),
            Node("residual", Add.from_types(features, features, features), ("c", "k"), "s"),
            Node("pool", Mean(0, 1, 7, Requantization.from_real(1 / 20, 0)), ("s",), "y"),
        ),
        "constants": {"k": rng.integers(-128, 128, (4, 5, 2)).astype(np.int8)},
    }
    return Graph(**{**parts, **changes})


def samples(count):
    return np.random.default_rng(1).integers(-128, 128, (count, 4, 5, 3)).astype(np.int8)


def test_trace_returns_every_tensor_and_the_same_outputs():
    graph, x = small_graph(), samples(3)
    trace = refsim.run(graph, x, trace=True)
    assert set(trace) == {"x", "c", "s", "y"}
    for node in graph.nodes:
        inputs = [trace.get(t, np.broadcast_to(graph.constants.get(t), (3, 4, 5, 2))) for t in node.inputs]
        np.testing.assert_array_equal(node.op.run(*map(np.ascontiguousarray, inputs)), trace[node.output])
    np.testing.assert_array_equal(refsim.run(graph, x)["y"], trace["y"])


def test_a_batch_is_its_samples_also_across_chunks(monkeypatch):
    graph, x = small_graph(), samples(7)
    whole = refsim.run(graph, x)["y"]
    single = np.concatenate([refsim.run(graph, x[i : i + 1])["y"] for i in range(7)])
    monkeypatch.setattr(engine, "CHUNK", 3)
    np.testing.assert_array_equal(refsim.run(graph, x)["y"], whole)
    np.testing.assert_array_equal(single, whole)


def test_predict_takes_the_files_layout_and_real_numbers():
    graph, x = small_graph(), samples(2)
    real = graph.tensors["x"].dequantize(x).transpose(0, 3, 1, 2)
    scores = refsim.predict(graph, real)["scores"]
    np.testing.assert_array_equal(scores, graph.tensors["y"].dequantize(refsim.run(graph, x)["y"]))
    with pytest.raises(ShapeError, match=r"image.*\(N, 3, 4, 5\).*found \(2, 4, 5, 3\)"):
        refsim.predict(graph, real.transpose(0, 2, 3, 1))
    with pytest.raises(ShapeError, match="takes inputs"):
        refsim.predict(graph, {"wrong": real})


def test_an_output_in_another_layout_comes_back_in_the_files():
    image = TensorType((2, 3, 4), SCALE, 0)
    turned = TensorType((4, 2, 3), SCALE, 0)
    graph = Graph(
        "turn",
        (Port("x", "x"),),
        (Port("y", "y", (1, 2, 0)),),
        {"x": turned, "y": image},
        (Node("turn", Transpose((1, 2, 0)), ("x",), "y"),),
    )
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 2, 3) * SCALE
    np.testing.assert_allclose(refsim.predict(graph, x)["y"], x, rtol=1e-6)


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((2, 4, 5, 3), np.uint8),
        np.zeros((2, 4, 5, 4), np.int8),
        np.zeros((4, 5, 3), np.int8),
        np.zeros((0, 4, 5, 3), np.int8),
        {"other": np.zeros((2, 4, 5, 3), np.int8)},
    ],
)
def test_wrong_inputs_are_refused(inputs):
    with pytest.raises(ShapeError, match="takes"):
        refsim.run(small_graph(), inputs)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"outputs": (Port("nowhere", "n"),)}, ModelError, "nowhere"),
        ({"nodes": small_graph().nodes[1:]}, ModelError, "residual.*'c' before"),
        ({"nodes": small_graph().nodes + small_graph().nodes[:1]}, ModelError, "exists already"),
        ({"constants": {"k": np.zeros((4, 5, 3), np.int8)}}, ShapeError, "constant 'k'"),
        ({"inputs": (Port("x", "image", (0, 1)),)}, ShapeError, "permutation"),
        (
            {"tensors": {**small_graph().tensors, "c": TensorType((4, 5, 2), SCALE, 8)}},
            QuantizationError,
            "node 'conv'.*zero point 7",
        ),
        (
            {"tensors": {**small_graph().tensors, "y": TensorType((3,), SCALE, 0)}},
            ShapeError,
            "node 'pool'.*mean turns",
        ),
    ],
)
def test_wrong_graphs_are_refused_with_the_nodes_name(changes, error, words):
    with pytest.raises(error, match=words):
        small_graph(**changes)


def test_quantising_rounds_half_away_and_saturates():
    tensor = TensorType((1,), 0.5, 10)
    real = np.array([0.25, -0.25, 0.24, 1e9, -1e9])
    assert tensor.quantize(real).tolist() == [11, 9, 10, 127, -128]
