"""A graph under construction from a fused network: what the rules for its operators have in common.

The batch axis is dropped: shapes in the graph are of one sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.constants import bias_steps, quantize_constant
from codegen.onnx.network import Network, Op, Quantization
from refsim import Graph, Node, Port, TensorType
from refsim.errors import QuantizationError, UnsupportedError, located
from refsim.numerics import INT32_MAX, Int8Array, Int32Array, round_half_away
from refsim.ops import Operator, Requantization
from refsim.ops.base import Pooling
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape


@dataclass(frozen=True)
class Value:
    """Where a tensor of the network lives in the graph.

    Attributes:
        tensor: the graph's tensor.
        type: what its bytes stand for; after a constant factor that costs nothing, the scale is not the graph tensor's.
        batch: the batch axis in the network's shape, which the graph's shape lacks; None where no axis of one is it.
    """

    tensor: str
    type: TensorType
    batch: int | None


class GraphBuilder:
    """What the rules for operators share: the network, the graph so far, and the operator at hand (`op`)."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.tensors: dict[str, TensorType] = {}
        self.constants: dict[str, Int8Array] = {}
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.names: set[str] = set()
        self.op: Op

    def build(self, rules: Mapping[str, "Rule"]) -> Graph:
        """Lower the operators in their order, each by the rule for its kind."""
        inputs = []
        for tensor, name in self.network.inputs:
            quantization = self.network.quantizations.get(tensor)
            if quantization is None:
                raise UnsupportedError(f"input {name!r} has no QuantizeLinear: re-quantise with `tinyformer quantize`")
            kind = tensor_type(self.network.shapes[tensor][1:], quantization)
            self.tensors[tensor] = kind
            self.values[tensor] = Value(tensor, kind, 0)
            inputs.append(Port(tensor, name))
        for op in self.network.ops:
            self.op = op
            with located(f"node {op.name!r}"):
                rule = rules.get(op.kind)
                if rule is None:
                    raise UnsupportedError(f"{op.kind} of two activations is not supported; Add, Sub and Mul are")
                rule(self, op)
        outputs = [self._output(tensor, name) for tensor, name in self.network.outputs]
        return Graph(self.network.name, tuple(inputs), tuple(outputs), self.tensors, tuple(self.nodes), self.constants)

    # tensors and nodes --------------------------------------------------------------------------------------------

    def _output(self, tensor: str, name: str) -> Port:
        value = self.values[tensor]
        shape = self.network.shapes[tensor]
        if value.batch not in (0, None) or shape[0] != 1:
            raise UnsupportedError(
                f"output {name!r}: its first axis must be the batch, found shape {shape} for one sample"
            )
        found = self.shaped(value, shape[1:])
        if not self.tensors[found].same_quantization(value.type):
            kind = replace(value.type, shape=shape[1:])
            found = self.emit(
                "requantize", Requantize(kind.zero_point, requantization(1.0, kind)), [found], kind, f"{name}/scaled"
            )
        return Port(found, name)

    def emit(self, suffix: str, operator: Operator, inputs: Sequence[str], kind: TensorType, tensor: str) -> str:
        """Append a node, named after the model's node and the suffix; returns the tensor it writes."""
        self.nodes.append(Node(self._unique(self._name(suffix), self.names), operator, tuple(inputs), tensor))
        self.tensors[tensor] = kind
        return tensor

    def _name(self, suffix: str) -> str:
        return f"{self.op.name}/{suffix}" if suffix else self.op.name

    @staticmethod
    def _unique(wanted: str, taken: set[str]) -> str:
        name, count = wanted, 1
        while name in taken:
            name, count = f"{wanted}_{count}", count + 1
        taken.add(name)
        return name

    def tensor_name(self, wanted: str) -> str:
        """A free tensor name like the wanted one."""
        name, count = wanted, 1
        while name in self.tensors or (name in self.network.shapes and name != self.op.output):
            name, count = f"{wanted}_{count}", count + 1
        return name

    def quantization(self) -> Quantization:
        """Of the current operator's output."""
        found = self.network.quantizations.get(self.op.output)
        if found is None:
            raise UnsupportedError(
                f"operator {self.op.name!r} would have to run in float: its output {self.op.output!r} has no "
                "QuantizeLinear; re-quantise with `tinyformer quantize`"
            )
        return found

    def output_type(self, shape: Shape) -> TensorType:
        """Type of the current operator's output for a sample shape."""
        return tensor_type(shape, self.quantization())

    def unscaled(self, kind: TensorType) -> TensorType:
        """The type that the operator's own result has before its fused constant factor; for multipliers only."""
        factor = self.op.attributes.get("factor", 1.0)
        return kind if factor == 1.0 else replace(kind, scale=float(np.float32(kind.scale / factor)))

    def shape(self, position: int = 0) -> Shape:
        """Whole shape of the current operator's input."""
        return self.network.shapes[self.op.inputs[position]]

    @property
    def output_shape(self) -> Shape:
        """Whole shape of the current operator's output."""
        return self.network.shapes[self.op.output]

    def value(self, position: int = 0) -> Value:
        """The current operator's input, which must be an activation."""
        name = self.op.inputs[position]
        if name in self.network.constants:
            raise UnsupportedError(f"{self.op.kind} of the constant {name!r} is not supported")
        return self.values[name]

    def shaped(self, value: Value, shape: Shape) -> str:
        """The value's tensor under another shape of the same elements."""
        kind = self.tensors[value.tensor]
        if kind.shape == shape:
            return value.tensor
        return self.emit(
            "reshape",
            Reshape(shape),
            [value.tensor],
            replace(kind, shape=shape),
            self.tensor_name(f"{value.tensor}/reshaped"),
        )

    def moved(self, suffix: str, operator: Operator, tensor: str, shape: Shape, name: str) -> str:
        """Append an operator that keeps the quantisation."""
        return self.emit(suffix, operator, [tensor], replace(self.tensors[tensor], shape=shape), self.tensor_name(name))

    def transposed(self, suffix: str, tensor: str, permutation: Sequence[int], name: str) -> str:
        """Append a transpose."""
        shape = tuple(self.tensors[tensor].shape[axis] for axis in permutation)
        return self.moved(suffix, Transpose(tuple(permutation)), tensor, shape, name)

    def clamped(self, operator: Any, kind: TensorType) -> Any:
        """The operator with the fused activation's range."""
        low, high = self.op.attributes.get("clamp", (-math.inf, math.inf))
        if (low, high) == (-math.inf, math.inf):
            return operator
        bounds: dict[str, Any] = {
            "act_min": -128 if low == -math.inf else min(127, max(-128, kind.zero_point + steps_of(low, kind))),
            "act_max": 127 if high == math.inf else max(-128, min(127, kind.zero_point + steps_of(high, kind))),
        }
        if isinstance(operator, Pooling):
            return replace(operator, **bounds)
        return replace(operator, output=replace(operator.output, **bounds))

    def compute(self, operator: Any, inputs: Sequence[str], kind: TensorType, batch: int | None) -> str:
        """Append the current operator itself and note its value."""
        tensor = self.emit("", self.clamped(operator, kind), inputs, kind, self.op.output)
        self.values[self.op.output] = Value(tensor, kind, batch)
        return tensor

    def settle(self, tensor: str, kind: TensorType, batch: int | None) -> None:
        """Note a value that was moved from elsewhere, requantised if the file says so."""
        wanted = self.quantization()
        if (kind.scale, kind.zero_point) != (wanted.scale, wanted.zero_point):
            target = tensor_type(kind.shape, wanted)
            operator = Requantize(kind.zero_point, requantization(kind.scale / target.scale, target))
            tensor = self.emit(
                "requantize", operator, [tensor], target, self.tensor_name(f"{self.op.output}/requantized")
            )
            kind = target
        self.values[self.op.output] = Value(tensor, kind, batch)

    # constants ------------------------------------------------------------------------------------------------------

    def constant(self, name: str, shape: Shape) -> tuple[str, TensorType]:
        """A constant as an activation of the given sample shape, quantised if the file leaves it in float."""
        constant = self.network.constants[name]
        stored, kind = quantize_constant(constant)
        tensor, count = name, 1
        while tensor in self.tensors and self.tensors[tensor].shape != shape:
            tensor, count = f"{name}_{count}", count + 1
        self.tensors[tensor] = replace(kind, shape=shape)
        self.constants[tensor] = np.ascontiguousarray(stored).reshape(shape)
        return tensor, self.tensors[tensor]

    def weights(self, name: str, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """A layer's integer weights, output channels moved to the front, and their scales by channel."""
        constant = self.network.constants[name]
        if constant.stored is None:
            raise UnsupportedError(
                f"the weight {name!r} is in float: weights must stand behind a DequantizeLinear; "
                "re-quantise with `tinyformer quantize`"
            )
        moved = constant.map(lambda t: np.moveaxis(t, axis, 0))
        assert moved.stored is not None
        scales = moved.scale.reshape(moved.scale.shape[0], -1)
        if not (scales == scales[:, :1]).all():
            raise UnsupportedError(f"the weight {name!r} is quantised along another axis than its output channels")
        integers = moved.stored - moved.zero_point  # exact where the difference is a byte itself
        low, high = int(integers.min()), int(integers.max())
        if low < -128 or high > 127:
            if not moved.zero_point.any():
                raise QuantizationError(
                    f"the weight {name!r} holds -128 where a negative factor folds in: quantise to [-127, 127]"
                )
            zero_point = int(moved.zero_point.reshape(-1)[np.flatnonzero(moved.zero_point)[0]])
            raise UnsupportedError(
                f"the weight {name!r} has zero point {zero_point} (as int8) and holds {low} to {high} steps from it, "
                "beyond int8: quantise weights symmetrically, int8 with zero point 0 or uint8 with 128"
            )
        return integers.astype(np.int8), scales[:, 0].copy()

    def layer(self, x: TensorType, y: TensorType, axis: int) -> tuple[Int8Array, Int32Array, Requantization]:
        """Weight (output channels first), bias and requantisation of a convolution or linear layer."""
        weight, scales = self.weights(self.op.inputs[1], axis)
        channels = weight.shape[0]
        bias = self.network.constants[self.op.inputs[2]] if len(self.op.inputs) > 2 and self.op.inputs[2] else None
        if len(self.op.inputs) > 2 and self.op.inputs[2] and bias is None:
            raise UnsupportedError(f"the bias {self.op.inputs[2]!r} must be a constant")
        target = self.unscaled(y)
        # A channel without weights takes any weight scale: one that lets its bias fit.
        dead = ~weight.reshape(channels, -1).any(axis=1)
        scales[dead] = target.scale / (x.scale * 2**16)
        steps = x.scale * scales
        integers = np.zeros(channels, np.int64) if bias is None else bias_steps(bias, steps)
        if (np.abs(integers) > INT32_MAX).any():
            channel = int(np.abs(integers).argmax())
            raise QuantizationError(
                f"the bias {self.op.inputs[2]!r} leaves int32 in channel {channel} "
                f"({integers[channel]} steps of {steps[channel]:g}): its weights' scale is too small"
            )
        return weight, integers.astype(np.int32), requantization(steps / target.scale, y)


def tensor_type(shape: Shape, quantization: Quantization) -> TensorType:
    """The graph's type for a sample shape and the file's quantisation."""
    return TensorType(shape, quantization.scale, quantization.zero_point)


def requantization(real: float | NDArray[np.float64], y: TensorType) -> Requantization:
    """The last step for a real multiplier, or one a channel."""
    return Requantization.from_real(real, y.zero_point)


def steps_of(real: float, kind: TensorType) -> int:
    """A real number in steps of a tensor's scale, rounded."""
    return round_half_away(max(min(real / kind.scale, 1e6), -1e6))


def drop_axis(shape: Sequence[int], axis: int | None) -> tuple[int, ...]:
    """A shape, or one number an axis, without the given axis."""
    return tuple(shape) if axis is None else (*shape[:axis], *shape[axis + 1 :])


def sample_axis(axis: int, batch: int | None, what: str) -> int:
    """An axis of the network's shape as one of the graph's, which lacks the batch.

    Raises:
        UnsupportedError: it is the batch.
    """
    if axis == batch:
        raise UnsupportedError(f"{what} along the batch axis is not supported: it would mix samples")
    return axis - 1 if batch is not None and axis > batch else axis


def aligned(low: GraphBuilder, op: Op) -> tuple[list[str], list[TensorType], int | None]:
    """The inputs of an operator that broadcasts, all of the output's rank, and the output's batch axis."""
    rank = len(low.output_shape)
    axes = set()
    for name in low.network.activations(op):
        batch = low.values[name].batch
        if batch is not None:
            axes.add(batch + rank - len(low.network.shapes[name]))
    batch = axes.pop() if len(axes) == 1 else None  # where several axes of one could be it, all are kept
    tensors, kinds = [], []
    for name in op.inputs:
        shape = low.network.shapes[name]
        whole = (*[1] * (rank - len(shape)), *shape)
        if batch is not None and whole[batch] != 1:
            raise UnsupportedError(f"its input {name!r} of shape {shape} differs along the batch axis")
        target = drop_axis(whole, batch)
        if name in low.network.constants:
            tensor, kind = low.constant(name, target)
        else:
            value = low.values[name]
            tensor, kind = low.shaped(value, target), replace(value.type, shape=target)
        tensors.append(tensor)
        kinds.append(kind)
    return tensors, kinds, batch


def image(low: GraphBuilder) -> tuple[str, int]:
    """The input as (H, W, C), and the number of its spatial axes in the file."""
    value, shape = low.value(), low.shape()
    if shape[0] != 1 or value.batch not in (0, None):
        raise UnsupportedError(
            f"an image's first axis must be the batch and nothing else, found shape {shape} for one sample"
        )
    rank = len(shape) - 2
    tensor = low.shaped(value, shape[1:])
    last = low.transposed("channels_last", tensor, (*range(1, rank + 1), 0), f"{tensor}/channels_last")
    if rank == 1:
        length, channels = low.tensors[last].shape
        last = low.moved("image", Reshape((1, length, channels)), last, (1, length, channels), f"{last}/image")
    return last, rank


def channels_first(low: GraphBuilder, tensor: str, rank: int) -> str:
    """The way back from `image`."""
    if rank == 1:
        shape = low.tensors[tensor].shape[1:]
        tensor = low.moved("sequence", Reshape(shape), tensor, shape, f"{tensor}/sequence")
    return low.transposed("channels_first", tensor, (rank, *range(rank)), f"{tensor}/channels_first")


Rule = Callable[[GraphBuilder, Op], None]
"""Lowers the builder's operator at hand."""
