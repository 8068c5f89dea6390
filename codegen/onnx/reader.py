"""Reading an ONNX file: checks, external data, batch axis, shapes and constants. Only project errors leave here."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, numpy_helper

from codegen.onnx.network import unique_names
from codegen.onnx.rewrite import write_out
from refsim.errors import ModelError, UnsupportedError
from refsim.tensor import Shape

OPSETS = range(7, 25)
"""Versions of the ai.onnx operator set that are read."""

_QUANTIZED_OPSET = 11
"""The oldest operator set that a quantised model is written in: ONNX Runtime fuses pairs into operators of set 10."""

DOMAINS = ("", "ai.onnx", "com.microsoft")
_LARGEST_TENSOR = 2**24
"""Elements of one tensor, far beyond any microcontroller: what a corrupt size asks for is not even tried."""

# What ONNX Runtime finds arrives here as exceptions and values; its log would only scatter it over the terminal.
onnxruntime.set_default_logger_severity(4)


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A checked model.

    Attributes:
        proto: with all data inside, nodes in order and uniquely named, functions inlined, and the file's batch axis.
        values: every tensor's value for one sample of zeros; those that hang on shapes alone are constants.
        element_types: onnx element type of the graph's inputs, by name.
        batch: the file's batch size; None if it is free.
    """

    proto: onnx.ModelProto
    values: dict[str, NDArray[Any]]
    element_types: dict[str, int]
    batch: int | None

    def shape(self, tensor: str) -> Shape:
        """Shape of a tensor for one sample, batch axis (of 1) included."""
        return tuple(int(n) for n in self.values[tensor].shape)


def read_file(path: Path) -> ModelFile:
    """Read and check a model file.

    Raises:
        ModelError: missing, corrupt or inconsistent file, or external data that is missing or outside its folder.
        UnsupportedError: operator set, operator domain or dynamic shape that is not supported.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model: {error.strerror or error}") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        _read_all_text(proto)
    except Exception as error:  # protobuf's DecodeError or UnicodeDecodeError, whichever implementation runs
        raise ModelError("not an ONNX file, or a corrupt one: its protobuf does not parse") from error
    if not proto.graph.node or not proto.opset_import:
        raise ModelError("not an ONNX file: it holds no operators or names no operator set")
    _load_external_data(proto, path.parent)
    return read_proto(proto)


def read_proto(proto: onnx.ModelProto) -> ModelFile:
    """Check a model that is in memory, data included; the argument is not changed.

    Raises:
        ModelError, UnsupportedError: as `read_file`.
    """
    proto = _inline_functions(copy.deepcopy(proto))
    _check_operator_sets(proto)
    initializers = {constant.name for constant in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in initializers]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 4)  # before that every initializer had to be an input as well
    _name_nodes(proto)
    write_out(proto)
    _sort(proto)
    batch, element_types = _check_inputs(proto)
    try:
        values = _evaluate(proto)
    except ModelError as error:
        if batch in (None, 1):
            raise
        raise ModelError(f"the file fixes a batch of {batch}: export it with a free one, or of 1 ({error})") from error
    return ModelFile(proto, values, element_types, batch)


def modern(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A checked model in an operator set that Q/DQ pairs can stand in: itself, or converted.

    Raises:
        ModelError: the conversion fails.
    """
    opset = next(o for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    if opset.version >= _QUANTIZED_OPSET:
        return proto
    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(proto, _QUANTIZED_OPSET)
    except Exception as error:  # its errors share no base
        raise ModelError(
            f"operator set {opset.version} does not convert to {_QUANTIZED_OPSET}: {_first_line(error)}"
        ) from error
    return converted


def new_session(proto: onnx.ModelProto, *, optimized: bool = True) -> Any:
    """An ONNX Runtime session on the CPU, quiet and on one thread.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base of their own
        raise ModelError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error


def _read_all_text(message: Any) -> None:
    """Check all text: protobuf decodes it only when it is read, and hands out bytes if it cannot."""
    for field, items in _fields(message):
        if field.message_type is not None:
            for item in items:
                _read_all_text(item)
        elif field.type == field.TYPE_STRING and any(isinstance(item, bytes) for item in items):
            raise ValueError(f"{field.name} is not UTF-8")


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor of a message, however deep: an initializer, an attribute, one within a function."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, items in _fields(message):
        if field.message_type is not None:
            for item in items:
                yield from _tensors(item)


def _fields(message: Any) -> Iterator[tuple[Any, Iterable[Any]]]:
    for field, value in message.ListFields():
        several = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
        yield field, value if several else [value]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def _load_external_data(proto: onnx.ModelProto, folder: Path) -> None:
    for tensor in _tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        where = f"tensor {tensor.name!r}: external data {location!r}"
        try:
            target = (folder / location).resolve()
            outside, missing = not target.is_relative_to(folder.resolve()), not target.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a null byte
            raise ModelError(f"{where} is no path: {_first_line(error)}") from error
        if not location or outside:
            raise ModelError(f"{where} lies outside the model's folder")
        if missing:
            raise ModelError(f"{where} is missing beside the model")
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            numpy_helper.to_array(tensor)
        except Exception as error:  # checker, value, OS and range errors alike
            raise ModelError(f"{where} cannot be read: {_first_line(error)}") from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    if not proto.functions:
        return proto
    try:
        inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(proto)
    except Exception as error:
        raise ModelError(f"the model's functions cannot be inlined: {_first_line(error)}") from error
    return inlined


def _check_operator_sets(proto: onnx.ModelProto) -> None:
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS:
            raise UnsupportedError(
                f"operator set {opset.version} is not supported: export with {OPSETS[0]} to {OPSETS[-1]}, or convert "
                "with onnx.version_converter"
            )
    for node in proto.graph.node:
        if node.domain not in DOMAINS:
            raise UnsupportedError(
                f"node {node.name!r}: operator {node.op_type} of domain {node.domain!r} is not supported; "
                "the domains read are ai.onnx and com.microsoft"
            )
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise UnsupportedError(
                f"node {node.name!r}: control flow ({node.op_type}) is not supported: unroll it on export"
            )


def _name_nodes(proto: onnx.ModelProto) -> None:
    wanted = [node.name or f"{node.op_type}:{next(iter(node.output), '')}" for node in proto.graph.node]
    for node, name in zip(proto.graph.node, unique_names(wanted), strict=True):
        node.name = name
        if not any(node.output):  # ONNX Runtime drops it unchecked
            raise ModelError(f"node {name!r}: {node.op_type} has no output")
        for attribute in node.attribute:
            # ONNX Runtime divides by its square, which may be 0 in 64 bits, and dies.
            if attribute.name == "blocksize" and not (attribute.i > 0 and attribute.i**2 <= _LARGEST_TENSOR):
                raise ModelError(f"node {name!r}: {node.op_type} has a blocksize of {attribute.i}")
        while node.input and not node.input[-1]:  # absent by name: ONNX Runtime's optimiser may die of it
            node.input.pop()


def _sort(proto: onnx.ModelProto) -> None:
    """Put the nodes in execution order, otherwise as they are."""
    known = {""} | {t.name for t in proto.graph.initializer} | {v.name for v in proto.graph.input}
    known |= {t.values.name for t in proto.graph.sparse_initializer}
    pending = list(proto.graph.node)
    order = []
    while pending:
        waiting = []
        for node in pending:
            if all(name in known for name in node.input):
                order.append(node)
                known.update(node.output)
            else:
                waiting.append(node)
        if len(waiting) == len(pending):
            node = waiting[0]
            missing = next(name for name in node.input if name not in known)
            raise ModelError(f"node {node.name!r}: its input {missing!r} is never written, or hangs on the node itself")
        pending = waiting
    del proto.graph.node[:]
    proto.graph.node.extend(order)


def _check_inputs(proto: onnx.ModelProto) -> tuple[int | None, dict[str, int]]:
    if not proto.graph.input or not proto.graph.output:
        raise ModelError("the model has no input or no output")
    batches: list[int | None] = []
    element_types = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        where = f"input {value.name!r}"
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape") or not tensor.shape.dim:
            raise UnsupportedError(f"{where}: a tensor with a batch axis and known shape is needed")
        if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8):
            raise UnsupportedError(
                f"{where}: element type {tensor.elem_type} is not supported; float32, int8 and uint8 (1, 3 and 2) are"
            )
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if any(n is None for n in sizes[1:]):
            raise UnsupportedError(
                f"{where}: shape {[n or '?' for n in sizes]} is dynamic beyond the batch axis (the first): "
                "fix it on export"
            )
        if any(n is not None and n < 1 for n in sizes):
            raise ModelError(f"{where}: shape {sizes} holds an axis below 1")
        if math.prod(n or 1 for n in sizes) > _LARGEST_TENSOR:
            raise ModelError(f"{where}: shape {sizes} holds more than {_LARGEST_TENSOR} elements")
        batches.append(sizes[0])
        element_types[value.name] = tensor.elem_type
    if len(set(batches)) > 1:
        raise UnsupportedError(f"the inputs' batch axes differ ({batches}): the first axis must be the batch")
    return batches[0], element_types


def single_sample(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model for a batch of one, its declared output shapes forgotten."""
    single = copy.deepcopy(proto)
    del single.graph.value_info[:]
    fixed = [value.type.tensor_type.shape.dim[0].dim_value for value in single.graph.input]
    for value in single.graph.input:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    if any(n > 1 for n in fixed):
        _rebatch_reshapes(single, fixed[0])
    return single


def _rebatch_reshapes(proto: onnx.ModelProto, batch: int) -> None:
    """Reshape targets that spell out the file's batch as their first axis get a 1 there."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("Reshape", "Expand") and len(node.input) > 1 and node.input[1] in constants:
            target = numpy_helper.to_array(constants[node.input[1]]).copy()
            if target.size and target[0] == batch:
                target[0] = 1
                name = f"{node.name}/one_sample"
                proto.graph.initializer.append(numpy_helper.from_array(target, name))
                node.input[1] = name


def _evaluate(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Every tensor's value for one sample of zeros (constants keep theirs)."""
    single = single_sample(proto)
    zeros = {
        value.name: np.zeros(
            [d.dim_value for d in value.type.tensor_type.shape.dim],
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
        )
        for value in single.graph.input
    }
    for count in _doubtful_starts(single):
        start = copy.deepcopy(single)
        del start.graph.node[count:], start.graph.output[:]
        _run_all(start, zeros)
    values = _run_all(single, zeros)
    values.update(zeros)
    for tensor in proto.graph.initializer:
        try:
            values[tensor.name] = numpy_helper.to_array(tensor)
        except Exception as error:
            raise ModelError(f"tensor {tensor.name!r} is inconsistent: {_first_line(error)}") from error
    return values


def _doubtful_starts(proto: onnx.ModelProto) -> list[int]:
    """How many nodes to try beforehand.

    ONNX ends the whole process on a Slice of a negative size, as a window larger than its image seems to give. Run
    without the Slice, ONNX Runtime refuses such a window.
    """
    counts, window = [], False
    for index, node in enumerate(proto.graph.node):
        window |= node.op_type.endswith(("Conv", "Pool", "Pad"))
        if window and node.op_type == "Slice":
            counts.append(index)
            window = False
    return counts


def _run_all(proto: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Every tensor that the nodes write; the model's outputs are changed."""
    declared = {value.name for value in proto.graph.output}
    for node in proto.graph.node:
        proto.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in node.output if name and name not in declared
        )
    session = new_session(proto, optimized=False)
    for value in session.get_outputs():
        if math.prod(n for n in value.shape or () if isinstance(n, int)) > _LARGEST_TENSOR:
            raise ModelError(f"tensor {value.name!r}: shape {value.shape} holds more than {_LARGEST_TENSOR} elements")
    names = [value.name for value in proto.graph.output]
    try:
        found = session.run(names, inputs)
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run the model on one sample: {_first_line(error)}") from error
    return {name: value for name, value in zip(names, found, strict=True) if isinstance(value, np.ndarray)}
