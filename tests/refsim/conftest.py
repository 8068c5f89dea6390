"""A small classifier for the tests of the library: its float file, its quantised file and labelled samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import codegen
from tests.codegen.onnx_models import Net

CLASSES = 4


@dataclass(frozen=True)
class Files:
    """float_model and model: .onnx; data: .npz of 150 samples and the float model's own answers."""

    float_model: Path
    model: Path
    data: Path
    samples: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """conv - ReLU - tokens - LayerNorm - linear - mean - linear on 3 x 6 x 6 images."""
    folder = tmp_path_factory.mktemp("library")
    net = Net(3, 6, 6)
    image = net.add("Relu", net.conv("x", 3, 8, 3, pads=[1, 1, 1, 1]))
    rows = net.add("Transpose", net.add("Reshape", image, net.ints(0, 8, 36)), perm=[0, 2, 1])
    hidden = net.linear(net.layer_norm(rows, 8), 8, 8)
    pooled = net.add("ReduceMean", net.add("Add", rows, hidden), axes=[1], keepdims=0)
    product = net.linear(pooled, 8, CLASSES, bias=False)
    base = np.random.default_rng(5).standard_normal((CLASSES, 3, 6, 6))
    samples = (base[np.arange(150) % CLASSES] + 0.6 * net.samples(150)).astype(np.float32)
    raw = onnxruntime.InferenceSession(net.proto(product).SerializeToString()).run(None, {"x": samples})[0]
    scores = net.add("Add", product, net.const(-raw.mean(axis=0)))  # so that every class occurs
    onnx.save(net.proto(scores), folder / "float.onnx")
    onnx.save(codegen.quantize(folder / "float.onnx", samples[:40]), folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "float.onnx"))
    labels = session.run(None, {"x": samples})[0].argmax(1)
    assert set(labels) == set(range(CLASSES))
    np.savez(folder / "data.npz", inputs=samples, labels=labels)
    return Files(folder / "float.onnx", folder / "model.onnx", folder / "data.npz", samples, labels)
