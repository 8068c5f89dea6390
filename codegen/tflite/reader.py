"""Reading a .tflite file into tensors and operators, all indices and sizes checked."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.tflite.flatbuffer import FlatBuffer, Table
from codegen.tflite.schema import ELEMENT_TYPES, IDENTIFIER, OPERATORS, OPTIONS, VERSION
from refsim.errors import ModelError, UnsupportedError, located
from refsim.tensor import Shape

_LARGEST_TENSOR = 2**24
"""Elements of one tensor, far beyond any microcontroller: what a corrupt size asks for is not even tried."""
_LARGEST_RANK = 8

_STORED = {"float32": "f4", "int32": "i4", "uint8": "u1", "int64": "i8", "int16": "i2", "int8": "i1", "bool": "u1"}
"""How a constant's elements lie in its buffer."""


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor of the file.

    Attributes:
        name: unique in the file.
        shape: batch axis included.
        free: axes of free size, which `shape` gives as 1 or as the converter found them.
        element_type: by the schema's name in lower case.
        scale, zero_point: of its quantisation, float32 and int64; of one length, empty where it has none.
        axis: along which they stand, where there are several.
        data: a constant's elements in its shape; None for what is computed.
    """

    name: str
    shape: Shape
    free: tuple[int, ...]
    element_type: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class FileOperator:
    """An operator of the file.

    Attributes:
        kind: by the schema's name.
        inputs: tensors; None where an optional one is left out.
        outputs: tensors.
        options: its own table of options; None where the file leaves it out.
    """

    kind: str
    inputs: tuple[FileTensor | None, ...]
    outputs: tuple[FileTensor, ...]
    options: Table | None

    def option(self, number: int, code: str, default: float = 0) -> Any:
        """A field of the options."""
        return default if self.options is None else self.options.number(number, code, default)


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A checked model: its inputs, outputs and operators in execution order."""

    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]


def read_file(path: Path) -> ModelFile:
    """Read and check a model file.

    Raises:
        ModelError: missing, corrupt or inconsistent file.
        UnsupportedError: an operator or form of model that is not supported.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model: {error.strerror or error}") from error
    buffer = FlatBuffer(data)
    model = buffer.root(IDENTIFIER)
    version = model.number(0, "I")
    if version != VERSION:
        raise UnsupportedError(f"schema version {version} is not supported; {VERSION} is")
    graphs = model.tables(2)
    if len(graphs) != 1:
        raise UnsupportedError(
            f"the model has {len(graphs)} subgraphs; one is supported: control flow and several signatures are not"
        )
    graph = graphs[0]
    buffers = model.tables(4)
    tensors = _tensors(graph, buffers)
    kinds = [_kind(code) for code in model.tables(1)]
    operators = tuple(_operator(table, kinds, tensors) for table in graph.tables(3))
    inputs, outputs = (_select(graph.integers(number), tensors, "the graph") for number in (1, 2))
    if not inputs or not outputs or not operators:
        raise ModelError("the model has no input, no output or no operator")
    if len(set(inputs)) != len(inputs):
        raise ModelError("the model names an input twice")
    return ModelFile(inputs, outputs, operators)


def _tensors(graph: Table, buffers: list[Table]) -> list[FileTensor]:
    taken: set[str] = set()
    return [_tensor(table, index, buffers, taken) for index, table in enumerate(graph.tables(0))]


def _tensor(table: Table, index: int, buffers: list[Table], taken: set[str]) -> FileTensor:
    wanted = table.text(3) or f"tensor_{index}"
    name = wanted if wanted not in taken else f"{wanted}:{index}"
    while name in taken:
        name += "'"
    taken.add(name)
    with located(f"tensor {name!r}"):
        code = table.number(1, "b")
        shape = tuple(table.integers(0))
        if len(shape) > _LARGEST_RANK or any(n < 0 for n in shape) or math.prod(shape) > _LARGEST_TENSOR:
            raise ModelError(f"shape {shape} has over {_LARGEST_RANK} axes or over {_LARGEST_TENSOR} elements")
        if table.table(6) is not None:
            raise UnsupportedError("it is stored in a sparse format: convert to a dense one")
        element_type = ELEMENT_TYPES.get(code, f"type {code}")
        number = table.number(2, "I")
        if number >= len(buffers) and number:
            raise ModelError(f"its buffer {number} does not exist")
        signature = table.integers(7)
        quantization = table.table(4)
        scale = quantization.vector(2, "f4") if quantization else np.empty(0, np.float32)
        zero_point = quantization.vector(3, "i8") if quantization else np.empty(0, np.int64)
        if zero_point.size == 0:
            zero_point = np.zeros(scale.size, np.int64)
        if scale.size != zero_point.size:
            raise ModelError(f"it has {scale.size} scales and {zero_point.size} zero points")
        return FileTensor(
            name,
            shape,
            tuple(axis for axis, n in enumerate(signature) if n < 0),
            element_type,
            scale,
            zero_point,
            quantization.number(6, "i") if quantization else 0,
            _constant(buffers[number] if number else None, element_type, shape),
        )


def _constant(buffer: Table | None, element_type: str, shape: Shape) -> NDArray[Any] | None:
    """A constant's elements from its buffer; None where the buffer is empty."""
    if buffer is None:
        return None
    data = buffer.vector(0, "u1")
    offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
    if offset > 1:  # large models keep buffers behind the tables; 0 and 1 say that they do not
        whole = buffer.buffer.data
        if offset + size > len(whole):
            raise ModelError(f"its {size} bytes at {offset} lie outside the file")
        data = np.frombuffer(whole, np.uint8, size, offset)
    if data.size == 0:
        return None
    if element_type not in _STORED:
        raise UnsupportedError(f"a constant of {element_type} is not supported; {', '.join(_STORED)} are")
    dtype = np.dtype(_STORED[element_type]).newbyteorder("<")
    if data.size != math.prod(shape) * dtype.itemsize:
        raise ModelError(f"shape {shape} of {element_type} does not fit its {data.size} bytes")
    return data.view(dtype).reshape(shape)


def _kind(code: Table) -> str:
    # Codes above 127 do not fit the older field, which then holds a placeholder.
    number = max(code.number(0, "b"), code.number(3, "i"))
    kind = OPERATORS[number] if 0 <= number < len(OPERATORS) else f"number {number}"
    return f"CUSTOM {code.text(1)!r}" if kind == "CUSTOM" else kind


def _operator(table: Table, kinds: list[str], tensors: list[FileTensor]) -> FileOperator:
    index = table.number(0, "I")
    if index >= len(kinds):
        raise ModelError(f"operator code {index} does not exist")
    kind = kinds[index]
    numbers = table.integers(1)
    inputs = tuple(None if n == -1 else _select([n], tensors, kind)[0] for n in numbers)
    outputs = _select(table.integers(2), tensors, kind)
    options = table.table(4)
    if options is not None and kind in OPTIONS and table.number(3, "B") != OPTIONS[kind]:
        raise ModelError(f"operator {kind} of {outputs[0].name if outputs else ''!r} has another operator's options")
    return FileOperator(kind, inputs, outputs, options)


def _select(numbers: list[int], tensors: list[FileTensor], where: str) -> tuple[FileTensor, ...]:
    for number in numbers:
        if not 0 <= number < len(tensors):
            raise ModelError(f"{where} names tensor {number}, but there are {len(tensors)}")
    return tuple(tensors[number] for number in numbers)
