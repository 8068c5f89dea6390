"""Every pattern through both quantisers: the integer graph against ONNX Runtime's run of the same QDQ file."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import refsim
from codegen.onnx import load, quantize
from refsim import Graph
from refsim.errors import UnsupportedError
from tests.codegen.onnx_models import PATTERNS

STEPS = 4.5
"""Largest difference allowed, in steps of the output's scale: the two round inside operators differently."""


class Reader(CalibrationDataReader):
    def __init__(self, samples: NDArray[np.float32]) -> None:
        self.samples = iter([{"x": samples[i : i + 1]} for i in range(len(samples))])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.samples, None)


def run_file(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """ONNX Runtime without fusing Q/DQ pairs into integer operators: its Softmax of rows of one element is not 1."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": x[i : i + 1]})[0] for i in range(len(x))])


def steps_apart(graph: Graph, found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max()) / graph.tensors[graph.outputs[0].tensor].scale


def likeness(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def operators(graph: Graph) -> str:
    return " ".join(sorted(node.op.name for node in graph.nodes))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", PATTERNS)
def test_our_quantizer(name: str, per_channel: bool, tmp_path: Path) -> None:
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    x = net.samples(24)
    onnx.save(quantize(tmp_path / "float.onnx", x, per_channel=per_channel), tmp_path / "qdq.onnx")
    onnx.checker.check_model(str(tmp_path / "qdq.onnx"))
    graph = load(tmp_path / "qdq.onnx")
    assert operators(graph) == PATTERNS[name].operators
    (found,) = refsim.predict(graph, x).values()
    assert steps_apart(graph, found, run_file(tmp_path / "qdq.onnx", x)) <= STEPS
    assert likeness(found, run_file(tmp_path / "float.onnx", x)) > 0.99


SETTINGS: dict[str, dict[str, Any]] = {
    "int8": {"activation_type": QuantType.QInt8, "per_channel": False},
    "uint8 per channel": {"activation_type": QuantType.QUInt8, "per_channel": True},
    "symmetric": {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
    "pairs apart": {
        "activation_type": QuantType.QUInt8,
        "per_channel": True,
        "extra_options": {"DedicatedQDQPair": True, "AddQDQPairToWeight": True},
    },
    "float bias": {"activation_type": QuantType.QInt8, "per_channel": True, "extra_options": {"QuantizeBias": False}},
    "kept activations": {"activation_type": QuantType.QUInt8, "extra_options": {"QDQKeepRemovableActivations": True}},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", PATTERNS)
def test_onnx_runtime_quantizer(name: str, setting: str, tmp_path: Path) -> None:
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    x = net.samples(24)
    arguments = {"weight_type": QuantType.QInt8, "quant_format": QuantFormat.QDQ, **SETTINGS[setting]}
    quantize_static(tmp_path / "float.onnx", tmp_path / "qdq.onnx", Reader(x), **arguments)
    if PATTERNS[name].left_in_float:  # the quantiser leaves this node's output without a Q/DQ pair
        with pytest.raises(UnsupportedError, match=f"'{PATTERNS[name].left_in_float}' would have to run in float"):
            load(tmp_path / "qdq.onnx")
        return
    graph = load(tmp_path / "qdq.onnx")
    (found,) = refsim.predict(graph, x).values()
    real, theirs = run_file(tmp_path / "float.onnx", x), run_file(tmp_path / "qdq.onnx", x)
    assert likeness(found, real) > 0.99
    # Where Q/DQ pairs stand inside a pattern, ours is the more exact: then it must be nearer to the float model.
    assert steps_apart(graph, found, theirs) <= STEPS or np.abs(found - real).mean() < np.abs(theirs - real).mean()
