"""Models in the TensorFlow Lite format, written tensor by tensor for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from numpy.typing import NDArray

from codegen.tflite.schema import ELEMENT_TYPES, OPERATORS, OPTIONS

_CODES = {name: code for code, name in ELEMENT_TYPES.items()}
_SCALARS = {
    "b": number_types.Int8Flags,
    "B": number_types.Uint8Flags,
    "H": number_types.Uint16Flags,
    "i": number_types.Int32Flags,
    "I": number_types.Uint32Flags,
    "f": number_types.Float32Flags,
    "Q": number_types.Uint64Flags,
}
Options = Mapping[int, tuple[str, float]]


class TFLiteNet:
    """A model of one subgraph; every method that adds a tensor returns its index."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = [b""]
        self.tensors: list[dict[str, Any]] = []
        self.operators: list[tuple[str, list[int], list[int], Options, int | None]] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.identifier = b"TFL3"
        self.version = 3
        self.subgraphs = 1

    def tensor(
        self,
        shape: Sequence[int],
        scale: float | Sequence[float] | None = None,
        zero_point: int | Sequence[int] = 0,
        *,
        dtype: str = "int8",
        axis: int = 0,
        data: NDArray[Any] | None = None,
        signature: Sequence[int] = (),
    ) -> int:
        scales = np.atleast_1d(np.asarray([] if scale is None else scale, np.float32))
        zeros = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape)
        number = 0
        if data is not None:
            number = len(self.buffers)
            self.buffers.append(np.ascontiguousarray(data).tobytes())
        index = len(self.tensors)
        self.tensors.append(
            {
                "name": f"t{index}",
                "shape": list(shape),
                "type": _CODES[dtype],
                "buffer": number,
                "scale": scales,
                "zero_point": zeros,
                "axis": axis,
                "signature": list(signature),
            }
        )
        return index

    def input(self, shape: Sequence[int], scale: float | None, zero_point: int = 0, **more: Any) -> int:
        self.inputs.append(self.tensor(shape, scale, zero_point, **more))
        return self.inputs[-1]

    def constant(self, data: NDArray[Any], scale: Any = None, zero_point: int = 0, axis: int = 0) -> int:
        return self.tensor(data.shape, scale, zero_point, dtype=str(data.dtype), axis=axis, data=data)

    def integers(self, *values: int) -> int:
        return self.constant(np.array(values, np.int32))

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: int | Sequence[int],
        options: Options | None = None,
        *,
        options_type: int | None = None,
    ) -> None:
        written = [outputs] if isinstance(outputs, int) else list(outputs)
        self.operators.append((kind, list(inputs), written, options or {}, options_type))

    def write(self, path: Path, *outputs: int) -> Path:
        self.outputs = list(outputs) or self.outputs
        path.write_bytes(self.data())
        return path

    def data(self, *, behind: bool = False) -> bytes:
        """The file; with `behind` its constants lie behind the tables, as in large models."""
        if not behind:
            return self._tables(None)
        start = len(self._tables(2**32))
        return self._tables(start) + b"".join(self.buffers)

    def _buffers(self, writer: "_Writer", start: int | None) -> list[int]:
        if start is None:
            vectors = (writer.vector(np.frombuffer(data, np.uint8)) if data else None for data in self.buffers)
            return [writer.table({0: vector}) for vector in vectors]
        offsets = start + np.cumsum([0, *map(len, self.buffers)])
        return [
            writer.table({1: ("Q", int(offset)), 2: ("Q", len(data))} if data else {})
            for offset, data in zip(offsets, self.buffers, strict=False)
        ]

    def _tables(self, start: int | None) -> bytes:
        writer = _Writer()
        kinds = sorted({kind for kind, *_ in self.operators})
        codes = []
        for kind in kinds:
            code = OPERATORS.index(kind) if kind in OPERATORS else int(kind)
            fields = {0: ("b", min(code, 127)), 3: ("i", code)}
            if kind == "CUSTOM":
                fields[1] = writer.text("MyOperator")
            codes.append(writer.table(fields))
        operators = [
            writer.table(
                {
                    0: ("I", kinds.index(kind)),
                    1: writer.vector(np.array(inputs, np.int32)),
                    2: writer.vector(np.array(outputs, np.int32)),
                    3: ("B", (OPTIONS.get(kind, 0) if options else 0) if chosen is None else chosen),
                    4: writer.table(options) if options else None,
                }
            )
            for kind, inputs, outputs, options, chosen in self.operators
        ]
        tensors = [self._tensor(writer, tensor) for tensor in self.tensors]
        graph = writer.table(
            {
                0: writer.offsets(tensors),
                1: writer.vector(np.array(self.inputs, np.int32)),
                2: writer.vector(np.array(self.outputs, np.int32)),
                3: writer.offsets(operators),
            }
        )
        buffers = writer.offsets(self._buffers(writer, start))
        graphs, operator_codes = writer.offsets([graph] * self.subgraphs), writer.offsets(codes)
        root = writer.table({0: ("I", self.version), 1: operator_codes, 2: graphs, 4: buffers})
        return writer.finish(root, self.identifier)

    @staticmethod
    def _tensor(writer: "_Writer", tensor: dict[str, Any]) -> int:
        quantization = None
        if tensor["scale"].size:
            quantization = writer.table(
                {2: writer.vector(tensor["scale"]), 3: writer.vector(tensor["zero_point"]), 6: ("i", tensor["axis"])}
            )
        return writer.table(
            {
                0: writer.vector(np.array(tensor["shape"], np.int32)),
                1: ("b", tensor["type"]),
                2: ("I", tensor["buffer"]),
                3: writer.text(tensor["name"]),
                4: quantization,
                7: writer.vector(np.array(tensor["signature"], np.int32)) if tensor["signature"] else None,
            }
        )


class _Writer:
    """The flatbuffers builder, with tables as mappings from field number to (code, number) or to an offset."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def table(self, fields: Mapping[int, tuple[str, float] | int | None]) -> int:
        present = {number: value for number, value in fields.items() if value is not None}
        self.builder.StartObject(max(present, default=-1) + 1)
        for number, value in present.items():
            if isinstance(value, tuple):
                self.builder.PrependSlot(_SCALARS[value[0]], number, value[1], None)
            else:
                self.builder.PrependUOffsetTRelativeSlot(number, value, 0)
        return int(self.builder.EndObject())

    def vector(self, values: NDArray[Any]) -> int:
        return int(self.builder.CreateNumpyVector(np.ascontiguousarray(values)))

    def text(self, value: str) -> int:
        return int(self.builder.CreateString(value))

    def offsets(self, values: Sequence[int]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(value)
        return int(self.builder.EndVector())

    def finish(self, root: int, identifier: bytes) -> bytes:
        self.builder.Finish(root, identifier)
        return bytes(self.builder.Output())
