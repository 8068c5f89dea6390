"""Changes to valid model files: of an ONNX model's fields, and of any file's bytes."""

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

FLOATS = [0.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, 1e-30, 3e38]
INTEGERS = [0, -1, 1, 2, 127, 128, 255, 1_000_000, 2**31 - 1, 2**31, 2**62, -(2**31), -(2**62)]
TYPES = [np.int8, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_]
OPERATORS = ["Conv", "Add", "MatMul", "Reshape", "Softmax", "QuantizeLinear", "Concat", "Identity", "Cast", "Loop", ""]
WORDS = [0, 1, 2, 3, 4, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4]


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


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One or two changes: bits, bytes, words, pieces left out, doubled or swapped, the end cut off or extended."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 3))):
        at, other = (int(n) for n in rng.integers(0, len(changed), 2))
        length = int(rng.integers(1, 33))
        match int(rng.integers(8)):
            case 0 | 1:
                changed[at] ^= 1 << int(rng.integers(8))
            case 2:
                changed[at] = int(rng.integers(256))
            case 3 | 4:
                at &= ~3
                changed[at : at + 4] = struct.pack("<I", WORDS[int(rng.integers(len(WORDS)))])
            case 5:
                changed[at : at + length] = changed[other : other + length]
            case 6:
                del changed[at : at + length]
            case _:
                changed = changed[: max(at, 9)] if rng.integers(2) else changed + rng.bytes(length)
        if len(changed) < 9:
            changed += bytes(9)
    return bytes(changed)
