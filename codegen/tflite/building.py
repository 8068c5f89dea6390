"""A graph under construction from a .tflite file: what the rules for its operators have in common.

The file's shapes have a batch axis of one in front, which samples lack. Some operators lose it (a fully connected layer
over tokens, say), so the rule is about shapes alone: a first axis of one is left out, whatever it stands for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from codegen.tflite.profiles import Profile
from codegen.tflite.reader import FileOperator, FileTensor, ModelFile
from codegen.tflite.schema import Activation
from refsim import Graph, Node, Port, TensorType
from refsim.errors import ModelError, QuantizationError, ShapeError, UnsupportedError, located
from refsim.numerics import Int8Array, Int32Array, round_half_away
from refsim.ops import Operator, Requantization
from refsim.ops.reshape import Reshape
from refsim.tensor import Shape


class GraphBuilder:
    """What the rules for operators share: the graph so far, and the operator at hand.

    Attributes:
        tensors, constants, nodes: of the graph, as in `Graph`.
        ports: inputs of the file -> the graph's.
        aliases: tensors of the file -> the graph's tensor of their bytes.
        real: float or uint8 outputs of the file -> the graph's tensor behind them.
        shape_arithmetic: tensors of the file that hold shapes.
        op: the operator at hand.
    """

    def __init__(self, file: ModelFile, name: str, profile: Profile) -> None:
        self.file = file
        self.name = name
        self.profile = profile
        self.tensors: dict[str, TensorType] = {}
        self.constants: dict[str, Int8Array] = {}
        self.nodes: list[Node] = []
        self.names: set[str] = set()
        self.ports: dict[FileTensor, Port] = {}
        self.aliases: dict[FileTensor, str] = {}
        self.real: dict[FileTensor, str] = {}
        self.shape_arithmetic: set[FileTensor] = set()
        self.op: FileOperator

    def build(self, rules: Mapping[str, "Rule"]) -> Graph:
        """Lower the operators in their order, each by the rule for its kind."""
        for tensor in self.file.inputs:
            self._input(tensor)
        for op in self.file.operators:
            if not op.outputs:
                raise ModelError(f"operator {op.kind} writes nothing")
            with located(f"{op.kind} {op.outputs[0].name!r}"):
                self._lower(op, rules)
        inputs = [self.ports.get(tensor) for tensor in self.file.inputs]
        if None in inputs:
            missing = self.file.inputs[inputs.index(None)]
            raise UnsupportedError(f"input {missing.name!r} is {missing.element_type}, and no QUANTIZE reads it")
        outputs = tuple(self._output(tensor) for tensor in self.file.outputs)
        ports = tuple(port for port in inputs if port)
        return Graph(self.name, ports, outputs, self.tensors, tuple(self.nodes), self.constants)

    def _input(self, tensor: FileTensor) -> None:
        with located(f"input {tensor.name!r}"):
            if tensor.data is not None:
                raise ModelError("it is a constant")
            if tensor.shape[:1] != (1,):
                raise UnsupportedError(f"its shape {tensor.shape} does not begin with a batch of 1: convert with one")
            if any(tensor.free):  # axes beyond the first, the batch
                raise UnsupportedError(f"axes {tensor.free} of its shape are dynamic: fix them before conversion")
            if tensor.element_type == "int8":
                self.ports[tensor] = Port(tensor.name, tensor.name)
                self.aliases[tensor] = tensor.name
                self.tensors[tensor.name] = tensor_type(tensor)

    def _output(self, tensor: FileTensor) -> Port:
        found = self.real.get(tensor) or self.aliases.get(tensor)
        if found is None:
            raise UnsupportedError(
                f"output {tensor.name!r} ({tensor.element_type}) is not computed by an int8 operator or a DEQUANTIZE"
            )
        return Port(found, tensor.name)

    def _lower(self, op: FileOperator, rules: Mapping[str, "Rule"]) -> None:
        self.op = op
        computed = [t for t in op.inputs if t is not None and t.data is None]
        if op.kind == "SHAPE" or (computed and self.shape_arithmetic.issuperset(computed)):
            self.shape_arithmetic.update(op.outputs)  # the file's shapes tell the result already
            return
        rule = rules.get(op.kind)
        if rule is None:
            raise UnsupportedError(f"this operator is not supported; supported are {', '.join(sorted(rules))}")
        if op.kind in self.profile.refused:
            raise UnsupportedError(f"this operator is not supported in the profile {self.profile.name!r}")
        rule(self, op)

    # inputs -------------------------------------------------------------------------------------------------------

    def given(self, position: int) -> FileTensor:
        """The operator's input of the file."""
        tensor = self.op.inputs[position] if position < len(self.op.inputs) else None
        if tensor is None:
            raise ModelError(f"its input {position} is missing")
        return tensor

    def read(self, position: int = 0) -> str:
        """The graph's tensor for the operator's input, which must be int8: an activation or a constant."""
        return self.activation(self.given(position))

    def activation(self, tensor: FileTensor) -> str:
        """The graph's tensor for a tensor of the file."""
        with located(f"tensor {tensor.name!r}"):
            kind = tensor_type(tensor)
        if tensor in self.aliases:
            return self.aliases[tensor]
        if tensor.data is None:
            raise ModelError(f"its input {tensor.name!r} is not computed before it")
        self.aliases[tensor] = tensor.name
        self.tensors[tensor.name] = kind
        self.constants[tensor.name] = np.ascontiguousarray(tensor.data, np.int8).reshape(kind.shape)
        return tensor.name

    def integers(self, position: int) -> list[int]:
        """A constant input that holds integers: axes, sizes, paddings."""
        tensor = self.given(position)
        if tensor.data is None or tensor.element_type not in ("int32", "int64"):
            raise UnsupportedError(f"its input {tensor.name!r} must be a constant of int32 or int64")
        return [int(n) for n in tensor.data.reshape(-1)]

    def axes(self, values: Sequence[int], rank: int) -> list[int]:
        """Axes of a whole shape, none negative."""
        found = [axis + rank if axis < 0 else axis for axis in values]
        if any(not 0 <= axis < rank for axis in found):
            raise ModelError(f"axes {list(values)} do not fit {rank} axes")
        return found

    def axis(self, values: Sequence[int], rank: int) -> int:
        """The one axis of a whole shape, not negative."""
        if len(values) != 1:
            raise ModelError(f"one axis is needed, found {list(values)}")
        return self.axes(values, rank)[0]

    # outputs ------------------------------------------------------------------------------------------------------

    @property
    def output(self) -> FileTensor:
        """The operator's first output."""
        return self.op.outputs[0]

    def output_type(self, position: int = 0) -> TensorType:
        """Type of an output, for one sample."""
        with located(f"tensor {self.op.outputs[position].name!r}"):
            return tensor_type(self.op.outputs[position])

    def emit(self, operator: Operator, inputs: Sequence[str], kind: TensorType, name: str) -> str:
        """Append a node; returns the tensor that it writes."""
        with located(f"tensor {name!r}"):
            shape = operator.output_shape(*(self.tensors[tensor].shape for tensor in inputs))
        if name in self.tensors:
            raise ModelError(f"tensor {name!r} is written twice")
        self.nodes.append(Node(self._node_name(name), operator, tuple(inputs), name))
        self.tensors[name] = TensorType(shape, kind.scale, kind.zero_point)
        return name

    def _node_name(self, tensor: str) -> str:
        """The tensor's name up to the first semicolon: converters join the names of all that they fused."""
        wanted = tensor.split(";", maxsplit=1)[0]
        name, count = wanted, 1
        while name in self.names:
            name, count = f"{wanted}_{count}", count + 1
        self.names.add(name)
        return name

    def write(self, operator: Operator, *inputs: str, position: int = 0) -> None:
        """Append the operator that computes an output, and a reshape where the file's shape is another."""
        tensor, kind = self.op.outputs[position], self.output_type(position)
        with located(f"tensor {tensor.name!r}"):
            shape = operator.output_shape(*(self.tensors[name].shape for name in inputs))
        direct = shape == kind.shape
        written = self.emit(operator, inputs, kind, tensor.name if direct else f"{tensor.name}/{operator.name}")
        self.aliases[tensor] = written if direct else self.emit(Reshape(kind.shape), [written], kind, tensor.name)

    def shaped(self, tensor: str, shape: Shape) -> str:
        """The tensor under another shape of the same elements."""
        kind = self.tensors[tensor]
        if kind.shape == shape:
            return tensor
        name = f"{self.output.name}/from {tensor}"
        while name in self.tensors:
            name += "'"
        return self.emit(Reshape(shape), [tensor], kind, name)

    def requantization(self, real: Any, kind: TensorType, activation: int = Activation.NONE) -> Requantization:
        """The operator's last step for a real multiplier, or one a channel."""
        return Requantization.from_real(
            real, kind.zero_point, *activation_range(activation, kind), self.profile.of(self.op.kind)
        )

    def layer(
        self, weight: Int8Array, scales: Any, y: TensorType, activation: int
    ) -> tuple[Int32Array, Requantization]:
        """Bias and requantisation of a layer whose weight has the output channels in front."""
        tensor = self.op.inputs[2] if len(self.op.inputs) > 2 else None
        bias = np.zeros(weight.shape[0], np.int32)
        if tensor is not None:
            if tensor.data is None or tensor.element_type != "int32" or tensor.data.size != bias.size:
                raise UnsupportedError(
                    f"its bias {tensor.name!r} must be a constant of {bias.size} int32, found {tensor.element_type} "
                    f"of shape {tensor.shape}"
                )
            bias = np.array(tensor.data.reshape(-1), np.int32)
        return bias, self.requantization(scales, y, activation)

    def weight(self, rank: int, axis: int) -> tuple[Int8Array, Any]:
        """The second input as weights and their scales: float64, one or one for each output channel."""
        tensor = self.given(1)
        where = f"its weight {tensor.name!r}"
        if tensor.data is None or tensor.element_type != "int8" or len(tensor.shape) != rank:
            raise UnsupportedError(
                f"{where} must be a constant of int8 with {rank} axes, found {tensor.element_type} of shape "
                f"{tensor.shape}"
            )
        if tensor.zero_point.any():
            raise UnsupportedError(f"{where} has a zero point: weights must be symmetric")
        if tensor.scale.size not in (1, tensor.shape[axis]) or (tensor.scale.size > 1 and tensor.axis != axis):
            raise UnsupportedError(
                f"{where} has {tensor.scale.size} scales along axis {tensor.axis}; one, or one for each of its "
                f"{tensor.shape[axis]} output channels along axis {axis} is supported"
            )
        if not (np.isfinite(tensor.scale) & (tensor.scale > 0)).all():
            raise QuantizationError(f"{where} has a scale that is not positive and finite")
        return np.ascontiguousarray(tensor.data, np.int8), tensor.scale.astype(np.float64)


def tensor_type(tensor: FileTensor) -> TensorType:
    """What an activation's bytes stand for, for one sample.

    Raises:
        UnsupportedError: it is not int8, or has not one scale.
        ShapeError: it has an empty axis.
        QuantizationError: scale or zero point out of range.
    """
    if tensor.element_type != "int8":
        hints = {
            "float32": "the model is in float here: convert it with full integer quantisation",
            "uint8": "quantised by an older converter: convert again to int8",
            "int16": "16-bit activations: convert with int8 ones",
        }
        hint = hints.get(tensor.element_type, "")
        raise UnsupportedError(f"activations must be int8, found {tensor.element_type}{'; ' * bool(hint)}{hint}")
    if tensor.scale.size != 1:
        raise UnsupportedError(f"an activation has one scale, found {tensor.scale.size}")
    if any(n < 1 for n in tensor.shape):
        raise ShapeError(f"every axis must be at least 1, found shape {tensor.shape}")
    return TensorType(sample_shape(tensor.shape), float(tensor.scale[0]), int(tensor.zero_point[0]))


def sample_shape(shape: Shape) -> Shape:
    """A shape of the file without a first axis of one."""
    return shape[1:] if shape[:1] == (1,) else shape


def left_out(shape: Shape) -> int:
    """How many axes `_sample` leaves out."""
    return len(shape) - len(sample_shape(shape))


def activation_range(activation: int, kind: TensorType) -> tuple[int, int]:
    """A fused activation's range, from float32 quotients as the engine computes them."""
    limits = {
        Activation.NONE: (-math.inf, math.inf),
        Activation.RELU: (0.0, math.inf),
        Activation.RELU_N1_TO_1: (-1.0, 1.0),
        Activation.RELU6: (0.0, 6.0),
    }
    if activation not in limits:
        raise UnsupportedError(f"fused activation {activation} is not supported; RELU, RELU_N1_TO_1 and RELU6 are")
    low, high = limits[Activation(activation)]
    act_min = -128 if low == -math.inf else max(-128, kind.zero_point + _steps(low, kind))
    act_max = 127 if high == math.inf else min(127, kind.zero_point + _steps(high, kind))
    return act_min, act_max


def _steps(real: float, kind: TensorType) -> int:
    return round_half_away(max(-1e6, min(1e6, float(np.float32(real) / np.float32(kind.scale)))))


def narrow(*scales: float) -> list[np.float32]:
    """Scales as the engine multiplies them, in float32."""
    return [np.float32(scale) for scale in scales]


Rule = Callable[[GraphBuilder, FileOperator], None]
"""Lowers the builder's operator at hand."""
