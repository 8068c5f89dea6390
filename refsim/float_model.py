"""The float ONNX model that a quantised one was made from, run by ONNX Runtime with every tensor in sight.

A graph tensor belongs to the float model's tensor of the same name: import names every tensor after what the file
calls it, and a fused operator's output after the last of the operators in it. Where passes turned the layout (images
are channels last), the order of axes is the one that brings the float values nearest to the quantised ones.
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.errors import ModelError
from refsim.graph import Graph
from refsim.numerics import Int8Array
from refsim.real import RealArray
from refsim.reference import Inputs, Values
from refsim.tensor import Shape

ALIGNED_ON = 4
"""Samples by which the order of a tensor's axes is found."""


class FloatModel:
    """The float ONNX model; a `refsim.reference.Reference`.

    Args:
        path: the file.
        graph: the quantised model.

    Attributes:
        name: the file's name.
        names: the float model's name of each graph tensor that it knows.
        bounded: False: its values know no int8 range.

    Raises:
        ModelError: the file is unreadable or takes other inputs, or ONNX Runtime refuses it.
    """

    bounded = False

    def __init__(self, path: str | Path, graph: Graph) -> None:
        self.session = OnnxSession(path)
        self.graph, self.name = graph, Path(path).name
        expected = {port.name: port.file_shape(graph.tensors[port.tensor].shape) for port in graph.inputs}
        if self.session.inputs != expected:
            raise ModelError(
                f"{path}: takes the inputs {self.session.inputs}, but the quantised model takes {expected}: "
                "give the float model that it was made from"
            )
        known = self.session.tensors | set(expected)
        ports = {port.tensor: port.name for port in (*graph.inputs, *graph.outputs)}
        wanted = {name: ports.get(name, name) for name in graph.tensors if name not in graph.constants}
        self.names: Mapping[str, str] = {tensor: name for tensor, name in wanted.items() if name in known}
        self._orders: dict[str, tuple[int, ...] | None] = {}
        self._shapes: dict[str, Shape] = {}

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """The first output, float32 (N, *shape), for inputs as `run` takes them."""
        first = self.session.outputs[0]
        return self.session.run([first], inputs)[first]

    def run(self, inputs: Inputs, trace: Mapping[str, Int8Array]) -> Values:
        """See `Reference`; a tensor that cannot be laid out as the graph's is left out, and leaves `names`."""
        wanted = sorted(set(self.names.values()) - set(inputs))
        found = {**self.session.run(wanted, inputs), **inputs}
        values: Values = {}
        for tensor, name in self.names.items():
            if tensor not in self._orders:
                golden = self.graph.tensors[tensor].dequantize(trace[tensor][:ALIGNED_ON])
                self._orders[tensor] = find_order(found[name][:ALIGNED_ON], golden)
                self._shapes[tensor] = found[name].shape[1:]
            order = self._orders[tensor]
            if order is not None:
                values[tensor] = turn(found[name].astype(np.float64), order, self.graph.tensors[tensor].shape)
        self.names = {tensor: name for tensor, name in self.names.items() if tensor in values}
        return values

    def resume(self, inputs: Inputs, values: Values, tensor: str, value: RealArray) -> Values:
        """See `Reference`."""
        outputs = {port.tensor: self.names[port.tensor] for port in self.graph.outputs if port.tensor in self.names}
        given = {self.names[tensor]: self._file_layout(tensor, value)}
        wanted = sorted(set(outputs.values()) - set(given))
        found = {**self.session.run(wanted, inputs, given), **given} if wanted else given
        return {
            name: turn(found[file_name].astype(np.float64), self._orders[name] or (), self.graph.tensors[name].shape)
            for name, file_name in outputs.items()
        }

    def _file_layout(self, tensor: str, value: RealArray) -> NDArray[np.float32]:
        """A value of the graph as the float model lays it out."""
        order = self._orders[tensor] or ()
        squeezed = value.reshape(len(value), *(n for n in value.shape[1:] if n != 1))
        back = squeezed.transpose(0, *(order.index(axis) + 1 for axis in range(len(order))))
        return np.ascontiguousarray(back.reshape(len(value), *self._shapes[tensor]), np.float32)


class OnnxSession:
    """An ONNX file in ONNX Runtime, any of its tensors readable, any of them replaceable.

    Args:
        path: the file.

    Attributes:
        inputs: shape of one sample by name; an axis of unknown length is 0.
        outputs: names.
        tensors: names of what the nodes write.

    Raises:
        ModelError: the file is unreadable, or ONNX Runtime refuses it.
    """

    def __init__(self, path: str | Path) -> None:
        import onnx  # noqa: PLC0415 - slow to import, and needed for float models only

        self.path = Path(path)
        try:
            self.proto = onnx.load(path)
        except OSError as error:
            raise ModelError(f"{path}: cannot read the model: {error.strerror or error}") from error
        except Exception as error:  # protobuf's own, and onnx's on external data
            raise ModelError(f"{path}: not an ONNX file, or a corrupt one: {_line(error)}") from error
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        ports = [value for value in self.proto.graph.input if value.name not in stored]
        shapes = {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in ports}
        self.inputs: dict[str, Shape] = {name: shape[1:] for name, shape in shapes.items()}
        self.batch = next((shape[0] for shape in shapes.values() if shape and shape[0]), None)
        self.outputs = [value.name for value in self.proto.graph.output]
        self.tensors = {name for node in self.proto.graph.node for name in node.output if name}
        self._sessions: dict[tuple[tuple[str, ...], ...], Any] = {}

    def run(
        self, names: Iterable[str], inputs: Inputs, replaced: Mapping[str, NDArray[np.float32]] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Tensors (N, *shape) by name, in the batches that the file takes.

        Args:
            names: tensors wanted.
            inputs: (N, *shape) by name.
            replaced: tensors that take these values in place of what their nodes write.

        Raises:
            ModelError: ONNX Runtime refuses the model or the inputs.
        """
        names = list(names)
        session = self._session(names, list(replaced or ()))
        taken = {value.name for value in session.get_inputs()}
        feeds = {name: x for name, x in {**inputs, **(replaced or {})}.items() if name in taken}
        size = len(next(iter(inputs.values())))
        step = self.batch or size
        parts: list[list[NDArray[Any]]] = []
        for start in range(0, size, step):
            index = np.arange(start, start + step) % size  # a last batch of fixed size is filled up with others
            try:
                parts.append(session.run(names, {name: np.ascontiguousarray(x[index]) for name, x in feeds.items()}))
            except Exception as error:  # ONNX Runtime's exceptions share no base of their own
                raise ModelError(f"{self.path}: ONNX Runtime cannot run the model: {_line(error)}") from error
        return {name: np.concatenate([_batched(p[i], step) for p in parts])[:size] for i, name in enumerate(names)}

    def _session(self, names: list[str], replaced: list[str]) -> Any:
        key = (tuple(names), tuple(replaced))
        if key not in self._sessions:
            self._sessions[key] = self._new_session(names, replaced)
        return self._sessions[key]

    def _new_session(self, names: list[str], replaced: list[str]) -> Any:
        import onnx  # noqa: PLC0415 - as above
        import onnxruntime  # noqa: PLC0415 - as above

        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for node in proto.graph.node:
            node.output[:] = [f"{name}/replaced" if name in replaced else name for name in node.output]
        proto.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in replaced
        )
        declared = {value.name: value for value in self.proto.graph.output}
        del proto.graph.output[:]
        proto.graph.output.extend(declared.get(name) or onnx.ValueInfoProto(name=name) for name in names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # There may be one session a layer: idle threads that wait busily would take the processors from the others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base of their own
            raise ModelError(f"{self.path}: ONNX Runtime refuses the model: {_line(error)}") from error


def _batched(x: NDArray[Any], size: int) -> NDArray[Any]:
    """A tensor with the batch as its first axis; one that does not hang on the samples is repeated."""
    return x if x.ndim and len(x) == size else np.broadcast_to(x, (size, *x.shape))


def find_order(found: NDArray[Any], golden: NDArray[Any]) -> tuple[int, ...] | None:
    """How to turn a tensor's axes into the graph's layout, axes of length one left out.

    Args:
        found: (N, *shape) in the file's layout.
        golden: (N, *shape) in the graph's, with values near to it.

    Returns:
        The order of the sample's axes, of all that give the shape the one that brings the values nearest; None where
        none does.
    """
    before = tuple(n for n in found.shape[1:] if n != 1)
    after = tuple(n for n in golden.shape[1:] if n != 1)
    fitting = [
        order
        for order in itertools.permutations(range(len(before)))
        if len(order) == len(after) and all(before[axis] == n for axis, n in zip(order, after, strict=True))
    ]
    if len(fitting) <= 1 or len(found) != len(golden):
        return fitting[0] if fitting and len(found) == len(golden) else None

    def distance(order: tuple[int, ...]) -> float:
        turned = turn(found, order, golden.shape[1:])
        return float(np.square(turned - golden).sum())

    return min(fitting, key=distance)


def turn(found: NDArray[Any], order: tuple[int, ...], shape: Shape) -> NDArray[Any]:
    """A tensor (N, *file shape) in the graph's layout (N, *shape), by an order that `find_order` gave."""
    size = len(found)
    squeezed = found.reshape(size, *(n for n in found.shape[1:] if n != 1))
    return squeezed.transpose(0, *(axis + 1 for axis in order)).reshape(size, *shape)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
