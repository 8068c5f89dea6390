"""Whatever is wrong with a file, one error of the project's own says so, at once."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from codegen.onnx import load, quantize
from refsim.errors import ModelError, TinyFormerError, UnsupportedError
from tests.codegen.mutations import Mutator
from tests.codegen.onnx_models import PATTERNS, Net

MODELS = ["convolutional", "attention", "class_token", "pooled_and_cut", "gated", "shape_arithmetic"]


@pytest.mark.parametrize("name", MODELS)
def test_mutated_models(name: str, tmp_path: Path) -> None:
    """Both roads in: the float file through the quantiser, the quantised one through the importer."""
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    x = net.samples(4)
    originals = onnx.load(tmp_path / "float.onnx"), quantize(tmp_path / "float.onnx", x)
    mutator, path, refused = (
        Mutator(len(name)),
        tmp_path / "mutated.onnx",
        0,
    )
    for count in range(120):
        quantized = count % 3 > 0
        model = onnx.ModelProto()
        model.CopyFrom(originals[quantized])
        for _ in range(1 + count % 2):
            mutator.mutate(model)
        path.write_bytes(model.SerializeToString())
        try:
            if not quantized:
                onnx.save(quantize(path, x), path)
        except TinyFormerError:
            refused += 1
            continue
        try:
            load(path)
        except TinyFormerError:
            assert quantized, "the quantiser wrote what the importer refuses"
            refused += 1
    assert 30 < refused < 120


def test_sizes_beyond_reason_are_not_tried(tmp_path: Path) -> None:
    net = Net(3, 8)
    y = net.add("Relu", net.add("Pad", "x", net.ints(0, 0, 0, 0, 0, 2**40)))
    onnx.save(net.proto(y), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="holds more than"):
        quantize(tmp_path / "m.onnx", net.samples(2))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2**20, 2**20])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [value], [onnx.ValueInfoProto(name="y")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="input 'x': shape .* holds more than"):
        quantize(tmp_path / "m.onnx", net.samples(2))


def test_constant_along_the_batch_axis(tmp_path: Path) -> None:
    net = Net(3, 8)
    onnx.save(net.proto(net.add("Mul", "x", net.weight(5, 3, 8))), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="differs along the batch axis"):
        quantize(tmp_path / "m.onnx", net.samples(5))


@pytest.mark.parametrize("size", [0, -2, 2**13, 2**32, 2**62])
def test_block_of_pixels_beyond_any_tensor(size: int, tmp_path: Path) -> None:
    net = Net(4, 8, 8)
    model = net.proto(net.add("DepthToSpace", "x", blocksize=2))
    model.graph.node[0].attribute[0].i = size
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"DepthToSpace has a blocksize of {size}"):
        quantize(tmp_path / "m.onnx", net.samples(5))


def test_node_without_inputs_and_outputs(tmp_path: Path) -> None:
    net = Net(3, 8)
    model = net.proto(net.add("Relu", "x"))
    model.graph.node.add(op_type="Conv")
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="Conv has no output"):
        quantize(tmp_path / "m.onnx", net.samples(5))


def test_optional_input_absent_by_name(tmp_path: Path) -> None:
    """ONNX Runtime dies of a LayerNormalization whose bias has an empty name."""
    net = Net(3, 8)
    y = net.add("Add", "x", net.weight(1, 3, 8))
    y = net.add("LayerNormalization", y, net.weight(8), "", axis=-1, epsilon=1e-5)
    y = net.linear(y, 8, 4)
    onnx.save(net.proto(y, shapes={y: ["batch", 3, 4]}), tmp_path / "m.onnx")
    onnx.save(quantize(tmp_path / "m.onnx", net.samples(5)), tmp_path / "q.onnx")
    assert "layernorm" in {node.op.name for node in load(tmp_path / "q.onnx").nodes}
