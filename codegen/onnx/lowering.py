"""`Network` -> refsim.Graph: one integer operator for each, channels last for images, the batch axis dropped."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.inherit import SOFTMAX, inherit
from codegen.onnx.network import Constant, Network, Op, Quantization
from refsim import Graph, Node, Port, TensorType
from refsim.errors import QuantizationError, UnsupportedError, located
from refsim.numerics import INT32_MAX, Int8Array, Int32Array, round_half_away, round_half_away_array
from refsim.ops import Operator, Requantization
from refsim.ops.add import Add
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import Pooling
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.softmax import Softmax
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


def lower(network: Network) -> Graph:
    """Turn a fused network into integer operators.

    Raises:
        UnsupportedError: naming node and tensor, for what would have to run in float or mixes the samples of a batch.
        QuantizationError, ShapeError: naming the node, for parameters that the operator refuses.
    """
    inherit(network)
    return _Lowering(network).run()


class _Lowering:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.tensors: dict[str, TensorType] = {}
        self.constants: dict[str, Int8Array] = {}
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.names: set[str] = set()
        self.op: Op

    def run(self) -> Graph:
        inputs = []
        for tensor, name in self.network.inputs:
            quantization = self.network.quantizations.get(tensor)
            if quantization is None:
                raise UnsupportedError(f"input {name!r} has no QuantizeLinear: re-quantise with `tinyformer quantize`")
            kind = _type(self.network.shapes[tensor][1:], quantization)
            self.tensors[tensor] = kind
            self.values[tensor] = Value(tensor, kind, 0)
            inputs.append(Port(tensor, name))
        for op in self.network.ops:
            self.op = op
            with located(f"node {op.name!r}"):
                rule = _RULES.get(op.kind)
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
                "requantize", Requantize(kind.zero_point, _requantization(1.0, kind)), [found], kind, f"{name}/scaled"
            )
        return Port(found, name)

    def emit(self, suffix: str, operator: Operator, inputs: Sequence[str], kind: TensorType, tensor: str) -> str:
        """Append a node, named after the model's node and the suffix; returns the tensor it writes."""
        self.nodes.append(Node(self.unique(self.name(suffix), self.names), operator, tuple(inputs), tensor))
        self.tensors[tensor] = kind
        return tensor

    def name(self, suffix: str) -> str:
        return f"{self.op.name}/{suffix}" if suffix else self.op.name

    @staticmethod
    def unique(wanted: str, taken: set[str]) -> str:
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
        return _type(shape, self.quantization())

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
            "act_min": -128 if low == -math.inf else min(127, max(-128, kind.zero_point + _steps(low, kind))),
            "act_max": 127 if high == math.inf else max(-128, min(127, kind.zero_point + _steps(high, kind))),
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
            target = _type(kind.shape, wanted)
            operator = Requantize(kind.zero_point, _requantization(kind.scale / target.scale, target))
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
        integers = np.zeros(channels, np.int64) if bias is None else _bias_steps(bias, steps)
        if (np.abs(integers) > INT32_MAX).any():
            channel = int(np.abs(integers).argmax())
            raise QuantizationError(
                f"the bias {self.op.inputs[2]!r} leaves int32 in channel {channel} "
                f"({integers[channel]} steps of {steps[channel]:g}): its weights' scale is too small"
            )
        return weight, integers.astype(np.int32), _requantization(steps / target.scale, y)


def _type(shape: Shape, quantization: Quantization) -> TensorType:
    return TensorType(shape, quantization.scale, quantization.zero_point)


def _requantization(real: float | NDArray[np.float64], y: TensorType) -> Requantization:
    return Requantization.from_real(real, y.zero_point)


def _steps(real: float, kind: TensorType) -> int:
    return round_half_away(max(min(real / kind.scale, 1e6), -1e6))


def _bias_steps(bias: Constant, steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """A bias in the accumulator's steps: its own integers where it has them at this scale."""
    real = bias.real.reshape(-1).astype(np.float64)
    if not np.isfinite(real).all():
        raise QuantizationError("the bias holds values that are not finite")
    if real.size != steps.size:
        real = np.broadcast_to(real, steps.shape)
    integers = round_half_away_array(np.clip(real / steps, -(2.0**40), 2.0**40))
    if bias.stored is not None and bias.stored.size == steps.size:
        same = np.abs(bias.scale.reshape(-1) - steps) <= 2.0**-20 * steps
        integers = np.where(same, bias.stored.reshape(-1) - bias.zero_point.reshape(-1), integers)
    return integers


def quantize_constant(constant: Constant) -> tuple[Int8Array, TensorType]:
    """A constant as int8 with one scale: its own integers if it has them, else its range quantised."""
    stored = constant.stored
    if stored is not None and stored.min() >= -128 and stored.max() <= 127:
        scales, zeros = np.unique(constant.scale), np.unique(constant.zero_point)
        if scales.size == 1 and zeros.size == 1:
            kind = TensorType(stored.shape, float(np.float32(scales[0])), int(zeros[0]))
            return stored.astype(np.int8), kind
    real = constant.real.astype(np.float64)
    if not np.isfinite(real).all():
        raise QuantizationError("a constant holds values that are not finite")
    scale, zero_point = affine(float(real.min()), float(real.max()))
    kind = TensorType(tuple(real.shape), scale, zero_point)
    return kind.quantize(real), kind


def affine(low: float, high: float, floor: float = 2.0**-24) -> tuple[float, int]:
    """Scale (float32) and zero point of the int8 quantisation of a range, widened so that zero is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, floor)))
    return scale, min(127, max(-128, round_half_away(-128 - low / scale)))


def _drop(shape: Sequence[int], axis: int | None) -> tuple[int, ...]:
    return tuple(shape) if axis is None else (*shape[:axis], *shape[axis + 1 :])


def _sample_axis(axis: int, batch: int | None, what: str) -> int:
    if axis == batch:
        raise UnsupportedError(f"{what} along the batch axis is not supported: it would mix samples")
    return axis - 1 if batch is not None and axis > batch else axis


# rules ------------------------------------------------------------------------------------------------------------


def _image(low: _Lowering) -> tuple[str, int]:
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


def _channels_first(low: _Lowering, tensor: str, rank: int) -> str:
    """The way back from `_image`."""
    if rank == 1:
        shape = low.tensors[tensor].shape[1:]
        tensor = low.moved("sequence", Reshape(shape), tensor, shape, f"{tensor}/sequence")
    return low.transposed("channels_first", tensor, (rank, *range(rank)), f"{tensor}/channels_first")


def _image_shape(low: _Lowering) -> Shape:
    channels, *size = low.output_shape[1:]
    return (*([1] * (2 - len(size))), *size, channels)


def _plane(values: Sequence[int], filler: int) -> tuple[int, int]:
    return (values[0], values[1]) if len(values) == 2 else (filler, values[0])


def _padding(pads: Sequence[int]) -> tuple[int, int, int, int]:
    return (pads[0], pads[1], pads[2], pads[3]) if len(pads) == 4 else (0, pads[0], 0, pads[1])


def _conv(low: _Lowering, op: Op) -> None:
    tensor, rank = _image(low)
    x = replace(low.value().type, shape=low.tensors[tensor].shape)
    y = low.output_type(_image_shape(low))
    weight, bias, output = low.layer(x, y, 0)
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    geometry: dict[str, Any] = {
        "stride": _plane(op.attributes["strides"], 1),
        "padding": _padding(op.attributes["pads"]),
        "dilation": _plane(op.attributes["dilations"], 1),
    }
    groups, channels = op.attributes["group"], x.shape[2]
    operator: Operator
    if groups == channels > 1 and weight.shape[1] == 1:
        operator = DepthwiseConv2D(
            np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0)), bias, x.zero_point, output, **geometry
        )
    else:
        operator = Conv2D(
            np.ascontiguousarray(weight.transpose(0, 2, 3, 1)), bias, x.zero_point, output, **geometry, groups=groups
        )
    written = low.compute(operator, [tensor], y, 0)
    first = _channels_first(low, written, rank)
    low.values[op.output] = Value(first, replace(y, shape=low.tensors[first].shape), 0)


def _pool(low: _Lowering, op: Op) -> None:
    tensor, rank = _image(low)
    kind = MaxPool2D if op.kind == "MaxPool" else AveragePool2D
    operator = kind(
        _plane(op.attributes["kernel"], 1), _plane(op.attributes["strides"], 1), _padding(op.attributes["pads"])
    )
    source = low.value().type
    pooled = low.emit(
        "", low.clamped(operator, source), [tensor], replace(low.tensors[tensor], shape=_image_shape(low)), op.output
    )
    first = _channels_first(low, pooled, rank)
    low.settle(first, replace(source, shape=low.tensors[first].shape), 0)


def _linear(low: _Lowering, op: Op) -> None:
    value = low.value()
    _sample_axis(len(low.shape()) - 1, value.batch, "a linear layer")
    y = low.output_type(_drop(low.output_shape, value.batch))
    weight, bias, output = low.layer(value.type, y, 0 if op.attributes["transposed"] else 1)
    low.compute(
        Linear(np.ascontiguousarray(weight), bias, value.type.zero_point, output), [value.tensor], y, value.batch
    )


def _aligned(low: _Lowering, op: Op) -> tuple[list[str], list[TensorType], int | None]:
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
        target = _drop(whole, batch)
        if name in low.network.constants:
            tensor, kind = low.constant(name, target)
        else:
            value = low.values[name]
            tensor, kind = low.shaped(value, target), replace(value.type, shape=target)
        tensors.append(tensor)
        kinds.append(kind)
    return tensors, kinds, batch


def _add(low: _Lowering, op: Op) -> None:
    tensors, (a, b), batch = _aligned(low, op)
    y = low.output_type(_drop(low.output_shape, batch))
    low.compute(Add.from_types(a, b, low.unscaled(y), subtract=op.kind == "Sub"), tensors, y, batch)


def _mul(low: _Lowering, op: Op) -> None:
    tensors, (a, b), batch = _aligned(low, op)
    y = low.output_type(_drop(low.output_shape, batch))
    output = _requantization((a.scale * b.scale) / low.unscaled(y).scale, y)
    low.compute(Mul(a.zero_point, b.zero_point, output), tensors, y, batch)


def _matmul(low: _Lowering, op: Op) -> None:
    rank = len(low.output_shape)
    if min(len(low.shape(0)), len(low.shape(1))) < 2:
        raise UnsupportedError("MatMul with a vector is not supported: reshape it to a matrix")
    tensors, (a, b), batch = _aligned(low, op)
    if batch is not None:
        _sample_axis(batch, batch if batch >= rank - 2 else None, "a matrix product")
    leading = _drop(low.output_shape, batch)[:-2]
    for position, kind in enumerate((a, b)):
        if kind.shape[:-2] != leading:
            tensors[position] = _repeat(low, op.inputs[position], tensors[position], (*leading, *kind.shape[-2:]))
    y = low.output_type(_drop(low.output_shape, batch))
    output = _requantization((a.scale * b.scale) / low.unscaled(y).scale, y)
    low.compute(MatMul(a.zero_point, b.zero_point, output), tensors, y, batch)


def _repeat(low: _Lowering, name: str, tensor: str, shape: Shape) -> str:
    """A constant operand of a matrix product, repeated over the leading axes."""
    if name not in low.network.constants:
        raise UnsupportedError(
            f"a matrix product that repeats {name!r} {low.tensors[tensor].shape} over leading axes {shape[:-2]} "
            "is not supported"
        )
    repeated = low.tensor_name(f"{tensor}/repeated")
    low.tensors[repeated] = replace(low.tensors[tensor], shape=shape)
    low.constants[repeated] = np.ascontiguousarray(np.broadcast_to(low.constants[tensor], shape))
    return repeated


def _softmax(low: _Lowering, op: Op) -> None:
    value = low.value()
    axis = _sample_axis(op.attributes["axis"], value.batch, "Softmax")
    rank = len(value.type.shape)
    order = [*(a for a in range(rank) if a != axis), axis]
    tensor = value.tensor
    if axis != rank - 1:
        tensor = low.transposed("rows", tensor, order, f"{tensor}/rows")
    kind = _type(low.tensors[tensor].shape, SOFTMAX)
    direct = low.quantization() == SOFTMAX
    written = low.emit(
        "",
        Softmax.from_scale(value.type.scale),
        [tensor],
        kind,
        op.output if direct else low.tensor_name(f"{op.output}/softmax"),
    )
    if axis != rank - 1:
        written = low.transposed("rows_back", written, [order.index(a) for a in range(rank)], f"{op.output}/columns")
    low.settle(written, replace(kind, shape=value.type.shape), value.batch)


def _layer_norm(low: _Lowering, op: Op) -> None:
    value = low.value()
    _sample_axis(len(low.shape()) - 1, value.batch, "LayerNormalization")
    width = value.type.shape[-1]
    given = [name for name in op.inputs[1:] if name]
    gamma = low.network.constants[given[0]].real.reshape(-1) if given else np.ones(width)
    beta = low.network.constants[given[1]].real.reshape(-1) if len(given) > 1 else np.zeros(width)
    y = low.output_type(value.type.shape)
    if not 0 <= op.attributes["epsilon"] * (width / value.type.scale) ** 2 < 2.0**62:
        raise QuantizationError(
            f"epsilon {op.attributes['epsilon']:g} does not fit the input's scale {value.type.scale:g}"
        )
    operator = LayerNorm.from_real(gamma, beta, op.attributes["epsilon"], value.type, low.unscaled(y))
    low.compute(operator, [value.tensor], y, value.batch)


def _unary(low: _Lowering, op: Op) -> None:
    value = low.value()
    y = low.output_type(value.type.shape)
    function = op.attributes["function"]

    def quiet(x: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(all="ignore"):  # values outside the function's domain are reported by the operator
            return np.asarray(function(x), np.float64)

    tensor = low.emit("", Lookup.from_function(quiet, value.type, y), [value.tensor], y, op.output)
    low.values[op.output] = Value(tensor, y, value.batch)


def _clip(low: _Lowering, op: Op) -> None:
    bounds = (op.attributes["low"], op.attributes["high"])
    op.attributes = {"function": lambda x: np.clip(x, *bounds)}
    _unary(low, op)


def _scale(low: _Lowering, op: Op) -> None:
    """A constant factor: a new meaning of the same bytes where the quantisations allow, else requantised."""
    value, factor = low.value(), op.attributes["factor"]
    if factor <= 0:
        op.attributes = {"function": lambda x: x * factor}
        return _unary(low, op)
    y = low.output_type(value.type.shape)
    scaled = replace(value.type, scale=float(np.float32(value.type.scale * factor)))
    if scaled.same_quantization(y) and "clamp" not in op.attributes:
        low.values[op.output] = Value(value.tensor, y, value.batch)
        return None
    output = _requantization((value.type.scale * factor) / y.scale, y)
    low.compute(Requantize(value.type.zero_point, output), [value.tensor], y, value.batch)
    return None


def _requantize(low: _Lowering, op: Op) -> None:
    value = low.value()
    y = low.output_type(value.type.shape)
    output = _requantization(value.type.scale / y.scale, y)
    low.compute(Requantize(value.type.zero_point, output), [value.tensor], y, value.batch)


def _mean(low: _Lowering, op: Op) -> None:
    value = low.value()
    axes = [_sample_axis(axis, value.batch, "a mean") for axis in op.attributes["axes"]]
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise UnsupportedError(f"a mean over axes {op.attributes['axes']}, which are not neighbours, is not supported")
    kept = len(low.output_shape) == len(low.shape())
    batch = value.batch
    if batch is not None and not kept:
        batch -= sum(axis < batch for axis in op.attributes["axes"])
    count = math.prod(value.type.shape[axis] for axis in axes)
    shape = tuple(n for axis, n in enumerate(value.type.shape) if axis not in axes)
    y = low.output_type(shape)
    output = _requantization(value.type.scale / (count * low.unscaled(y).scale), y)
    low.compute(Mean(axes[0], axes[-1], value.type.zero_point, output), [value.tensor], y, batch)
    target = _drop(low.output_shape, batch)
    low.values[op.output] = Value(low.shaped(low.values[op.output], target), replace(y, shape=target), batch)


def _reshape(low: _Lowering, op: Op) -> None:
    value = low.value()
    batch = _batch_after_reshape(low.shape(), value.batch, low.output_shape)
    target = _drop(low.output_shape, batch)
    tensor = value.tensor
    if low.tensors[tensor].shape != target:
        tensor = low.moved("", Reshape(target), tensor, target, op.output)
    low.settle(tensor, replace(value.type, shape=target), batch)


def _batch_after_reshape(before: Shape, batch: int | None, after: Shape) -> int | None:
    """Where the batch's axis of one goes: to an axis of one with as many elements before it, if there is one.

    Where it was lost, when windows of an image became a batch, say, a first axis of one is it again.
    """
    if batch is None:
        return 0 if after[:1] == (1,) else None
    ones = [axis for axis, n in enumerate(after) if n == 1 and math.prod(after[:axis]) == math.prod(before[:batch])]
    return min(ones, key=lambda axis: abs(axis - batch), default=None)


def _transpose(low: _Lowering, op: Op) -> None:
    value = low.value()
    permutation = op.attributes["permutation"]
    batch = None if value.batch is None else permutation.index(value.batch)
    order = [_sample_axis(axis, value.batch, "") for axis in permutation if axis != value.batch]
    tensor = low.transposed("", value.tensor, order, op.output) if order != sorted(order) else value.tensor
    low.settle(tensor, replace(value.type, shape=low.tensors[tensor].shape), batch)


def _slice(low: _Lowering, op: Op) -> None:
    value = low.value()
    starts, sizes, steps = (_drop(op.attributes[key], value.batch) for key in ("starts", "sizes", "steps"))
    tensor = low.moved("", Slice(starts, sizes, steps), value.tensor, sizes, op.output)
    low.settle(tensor, replace(value.type, shape=sizes), value.batch)


def _concat(low: _Lowering, op: Op) -> None:
    tensors, kinds, batch = _aligned(low, op)
    axis = _sample_axis(op.attributes["axis"], batch, "Concat")
    y = low.output_type(_drop(low.output_shape, batch))
    tensor = low.emit("", Concat.from_types(axis, kinds, y), tensors, y, op.output)
    low.values[op.output] = Value(tensor, y, batch)


def _pad(low: _Lowering, op: Op) -> None:
    value = low.value()
    before, after = (op.attributes[key] for key in ("before", "after"))
    if value.batch is not None and (before[value.batch] or after[value.batch]):
        raise UnsupportedError("padding the batch axis is not supported")
    before, after = _drop(before, value.batch), _drop(after, value.batch)
    kind = value.type
    byte = op.attributes.get("byte")
    if byte is None:
        byte = min(127, max(-128, kind.zero_point + _steps(op.attributes["value"], kind)))
    shape = tuple(b + n + a for b, n, a in zip(before, kind.shape, after, strict=True))
    tensor = low.moved("", Pad(before, after, byte), value.tensor, shape, op.output)
    low.settle(tensor, replace(kind, shape=shape), value.batch)


_RULES: dict[str, Callable[[_Lowering, Op], None]] = {
    "Add": _add,
    "AveragePool": _pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "LayerNorm": _layer_norm,
    "Linear": _linear,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mean": _mean,
    "Mul": _mul,
    "Pad": _pad,
    "Requantize": _requantize,
    "Reshape": _reshape,
    "Scale": _scale,
    "Slice": _slice,
    "Softmax": _softmax,
    "Sub": _add,
    "Transpose": _transpose,
    "Unary": _unary,
}
