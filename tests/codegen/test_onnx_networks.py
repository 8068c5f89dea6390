"""A whole network from the development data: the float CCT through both quantisers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import refsim
from codegen.onnx import load, quantize
from tests.codegen.test_onnx_patterns import likeness, operators


@pytest.fixture(scope="module")
def network(data_folder: Path) -> Path:
    return data_folder / "onnx" / "cct_1_fp32" / "network.onnx"


@pytest.fixture(scope="module")
def images(network: Path) -> NDArray[np.float32]:
    """The recorded input and noisy copies of it, (16, 3, 32, 32)."""
    with np.load(network.with_name("inputs.npz")) as file:
        (recorded,) = (file[name] for name in file.files)
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal((15, 3, 32, 32))
    return np.concatenate([recorded, recorded + noise]).astype(np.float32)


def run_file(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(len(x))])


@pytest.mark.parametrize("per_channel", [True, False])
def test_cct_through_our_quantizer(
    network: Path, images: NDArray[np.float32], per_channel: bool, tmp_path: Path
) -> None:
    onnx.save(quantize(network, images, per_channel=per_channel), tmp_path / "qdq.onnx")
    graph = load(tmp_path / "qdq.onnx")
    kinds = operators(graph)
    assert "transpose" not in kinds and "requantize" not in kinds
    found = refsim.predict(graph, images)["output"]
    assert likeness(found, run_file(tmp_path / "qdq.onnx", images)) > 0.999
    assert likeness(found, run_file(network, images)) > 0.998


def test_cct_through_onnx_runtimes_quantizer(network: Path, images: NDArray[np.float32], tmp_path: Path) -> None:
    class Reader(CalibrationDataReader):
        samples = iter([{"input": images[i : i + 1]} for i in range(len(images))])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.samples, None)

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(network, tmp_path / "qdq.onnx", Reader(), per_channel=False, **types)
    graph = load(tmp_path / "qdq.onnx")
    assert "transpose" not in operators(graph)
    found = refsim.predict(graph, images)["output"]
    assert likeness(found, run_file(tmp_path / "qdq.onnx", images)) > 0.999
    assert likeness(found, run_file(network, images)) > 0.99
