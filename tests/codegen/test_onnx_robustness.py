"""Whatever is wrong with a file, one error of the project's own says so, at once."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from codegen.onnx import load, quantize
from refsim.errors import ModelError, TinyFormerError, UnsupportedError
from tests.codegen.onnx_models import PATTERNS, Net

MODELS = ["convolutional", "attention", "class_token", "pooled_and_cut", "gated", "shape_arithmetic"]
FLOATS = [0.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, 1e-30, 3e38]
INTEGERS = [0, -1, 1, 2, 127, 128, 255, 1_000_000, 2**31 - 1, 2**31, 2**62, -(2**31), -(2**62)]
TYPES = [np.int8, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_]
OPERATORS = ["Conv", "Add", "MatMul", "Reshape", "Softmax", "QuantizeLinear", "Concat", "Identity", "Cast", "Loop", ""]


class Mutator:
    """Changes a model at random, always into something that protobuf can hold."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def mutate(self, model: onnx.ModelProto) -> None:
        values = [self.value, self.value, self.shape, self.kind, self.dimension]
        nodes = [self.wiring, self.attribute, self.operator, self.removal, self.copy]
        self.pick([*values, *nodes, self.port, self.opset])(model)

    def _replace(self, model: onnx.ModelProto, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        tensor = self.pick(model.graph.initializer)
        with np.errstate(all="ignore"), contextlib.suppress(ValueError):  # of a tensor that is corrupt already
            changed = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), tensor.name))

    def value(self, model: onnx.ModelProto) -> None:
        def change(data: NDArray[Any]) -> NDArray[Any]:
            if data.size:
                odd = self.pick(FLOATS if np.issubdtype(data.dtype, np.floating) else INTEGERS)
                data.reshape(-1)[self.rng.integers(data.size)] = np.asarray(odd).astype(data.dtype)
            return data

        self._replace(model, change)

    def shape(self, model: onnx.ModelProto) -> None:
        changes = [
            np.ravel,
            np.transpose,
            lambda data: data[None],
            lambda data: np.ravel(data)[:-1],
            lambda data: np.ravel(data)[:1],
        ]
        self._replace(model, self.pick(changes))

    def kind(self, model: onnx.ModelProto) -> None:
        self._replace(model, lambda data: data.astype(self.pick(TYPES)))

    def dimension(self, model: onnx.ModelProto) -> None:
        dims = self.pick(model.graph.initializer).dims
        dims.insert(int(self.rng.integers(len(dims) + 1)), self.pick(INTEGERS))

    def wiring(self, model: onnx.ModelProto) -> None:
        node = self.pick([node for node in model.graph.node if node.input])
        names = [name for other in model.graph.node for name in other.output]
        names += ["", "nowhere", *(tensor.name for tensor in model.graph.initializer)]
        if self.rng.integers(2):
            node.input[int(self.rng.integers(len(node.input)))] = self.pick(names)
        elif self.rng.integers(2):
            node.input.pop()
        else:
            node.output[0] = self.pick(names)

    def attribute(self, model: onnx.ModelProto) -> None:
        attribute = self.pick([a for node in model.graph.node for a in node.attribute])
        if attribute.type == onnx.AttributeProto.INTS and attribute.ints:
            attribute.ints[int(self.rng.integers(len(attribute.ints)))] = self.pick(INTEGERS)
        elif attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = self.pick(FLOATS)
        else:
            attribute.i = self.pick(INTEGERS)

    def port(self, model: onnx.ModelProto) -> None:
        kind = self.pick([*model.graph.input, *model.graph.output]).type.tensor_type
        if self.rng.integers(2):
            kind.elem_type = int(self.rng.integers(24))
        else:
            kind.shape.dim.add().dim_value = self.pick(INTEGERS)

    def operator(self, model: onnx.ModelProto) -> None:
        self.pick(model.graph.node).op_type = self.pick(OPERATORS)

    def removal(self, model: onnx.ModelProto) -> None:
        items = self.pick([model.graph.node, model.graph.initializer, self.pick(model.graph.node).attribute])
        if items:
            items.remove(self.pick(items))

    def copy(self, model: onnx.ModelProto) -> None:
        model.graph.node.add().CopyFrom(self.pick(model.graph.node))

    def opset(self, model: onnx.ModelProto) -> None:
        model.opset_import.add(domain=self.pick(["", "x", "com.microsoft"]), version=self.pick(INTEGERS))


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
