"""The exported file computes what PyTorch computes, reads well and holds nothing of the machine that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')
pytest.importorskip("onnxscript", reason='onnxscript is not installed: pip install "tinyformer[nas]"')

from nas import export as export_module
from nas.export import export_onnx, fold_batch_norm
from nas.models import TinyFormer, TinyFormerConfig
from refsim.errors import ModelError

SMALL = TinyFormerConfig(image_size=16, classes=5, stem_channels=4, dim=8, hidden=12)

STANDARD_OPERATORS = {
    "Add", "Clip", "Conv", "Gelu", "Gemm", "LayerNormalization", "MatMul", "MaxPool", "Mul", "Relu", "Reshape",
    "Softmax", "Transpose",
}  # fmt: skip


def randomised() -> Any:
    """A network in which every parameter and statistic differs from its initial 0 or 1."""
    torch.manual_seed(0)
    model = TinyFormer(SMALL).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim < 2:
                tensor.uniform_(0.5, 1.5) if "var" in name else tensor.add_(torch.randn_like(tensor) * 0.3)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = randomised()
    path = tmp_path_factory.mktemp("export") / "new" / "float.onnx"
    export_onnx(model, path, SMALL.input_shape)
    return model, path


def test_same_logits_for_any_batch(exported: tuple[Any, Path]) -> None:
    model, path = exported
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        images = np.random.default_rng(batch).uniform(-1, 1, (batch, *SMALL.input_shape)).astype(np.float32)
        (found,) = session.run(["logits"], {"image": images})
        with torch.no_grad():
            np.testing.assert_allclose(found, model(torch.from_numpy(images)).numpy(), atol=1e-4)


def test_file_is_plain_and_readable(exported: tuple[Any, Path]) -> None:
    _, path = exported
    proto = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 20)]
    assert {node.op_type for node in proto.graph.node} <= STANDARD_OPERATORS
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    assert all(name.startswith("/") for name in names)
    for expected in ("/stem/mobilenet/depthwise/conv/Conv", "/encoders/0/attention/query/MatMul", "/pool/Softmax"):
        assert expected in names
    constants = {constant.name for constant in proto.graph.initializer}
    assert {"stem.conv.conv.bias", "encoders.1.norm2.weight", "/encoders/0/fc1/MatMul/weight"} <= constants
    assert all(constant.data_location == onnx.TensorProto.DEFAULT for constant in proto.graph.initializer)
    assert not proto.metadata_props
    assert not proto.graph.metadata_props
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_file_holds_nothing_of_the_machine(exported: tuple[Any, Path]) -> None:
    _, path = exported
    data = path.read_bytes()
    for trace in (str(Path(export_module.__file__).parents[1]), str(path.parent), "site-packages", ".py", "torch"):
        assert trace.encode() not in data, trace
    assert [entry.name for entry in path.parent.iterdir()] == ["float.onnx"]


def test_parameters_take_most_of_the_file(exported: tuple[Any, Path]) -> None:
    model, path = exported
    floats = sum(parameter.numel() for parameter in model.parameters())
    assert path.stat().st_size < 4 * floats + 20_000


def test_folding_leaves_the_original_alone() -> None:
    model = randomised()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    images = torch.rand(3, *SMALL.input_shape) * 2 - 1
    torch.testing.assert_close(folded(images), model(images), atol=1e-5, rtol=1e-5)


def test_a_wrong_export_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strip = export_module._strip

    def damage(proto: onnx.ModelProto, name: str) -> None:
        strip(proto, name)
        (bias,) = (constant for constant in proto.graph.initializer if constant.name == "head.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))

    monkeypatch.setattr(export_module, "_strip", damage)
    with pytest.raises(ModelError, match=r"differs from PyTorch by 1\.00e-02"):
        export_onnx(randomised(), tmp_path / "float.onnx", SMALL.input_shape)
    assert list(tmp_path.iterdir()) == []
