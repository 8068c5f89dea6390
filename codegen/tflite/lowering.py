"""A .tflite file's operators -> refsim.Graph, one integer operator for each where that is possible.

The file's shapes have a batch axis of one in front, which samples lack. Some operators lose it (a fully connected layer
over tokens, say), so the rule is about shapes alone: a first axis of one is left out, whatever it stands for.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from codegen.tflite import tables
from codegen.tflite.profiles import Profile
from codegen.tflite.reader import FileOperator, FileTensor, ModelFile
from codegen.tflite.schema import SAME, VALID, Activation
from refsim import Graph, Node, Port, TensorType
from refsim.errors import ModelError, QuantizationError, ShapeError, UnsupportedError, located
from refsim.numerics import Int8Array, Int32Array, quantize_multiplier, round_half_away
from refsim.ops import Operator, Requantization
from refsim.ops.add import Add
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
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


def lower(file: ModelFile, name: str, profile: Profile) -> Graph:
    """Turn a file into integer operators.

    Raises:
        UnsupportedError, ModelError: naming the operator and its output, what is not supported or inconsistent.
        QuantizationError, ShapeError: naming the operator's output, parameters that the operator refuses.
    """
    return _Lowering(file, name, profile).run()


class _Lowering:
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

    def run(self) -> Graph:
        for tensor in self.file.inputs:
            self._input(tensor)
        for op in self.file.operators:
            if not op.outputs:
                raise ModelError(f"operator {op.kind} writes nothing")
            with located(f"{op.kind} {op.outputs[0].name!r}"):
                self._lower(op)
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
                self.tensors[tensor.name] = _type(tensor)

    def _output(self, tensor: FileTensor) -> Port:
        found = self.real.get(tensor) or self.aliases.get(tensor)
        if found is None:
            raise UnsupportedError(
                f"output {tensor.name!r} ({tensor.element_type}) is not computed by an int8 operator or a DEQUANTIZE"
            )
        return Port(found, tensor.name)

    def _lower(self, op: FileOperator) -> None:
        self.op = op
        computed = [t for t in op.inputs if t is not None and t.data is None]
        if op.kind == "SHAPE" or (computed and self.shape_arithmetic.issuperset(computed)):
            self.shape_arithmetic.update(op.outputs)  # the file's shapes tell the result already
            return
        rule = _RULES.get(op.kind)
        if rule is None:
            raise UnsupportedError(f"this operator is not supported; supported are {', '.join(sorted(_RULES))}")
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
            kind = _type(tensor)
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

    # outputs ------------------------------------------------------------------------------------------------------

    @property
    def output(self) -> FileTensor:
        """The operator's first output."""
        return self.op.outputs[0]

    def output_type(self, position: int = 0) -> TensorType:
        """Type of an output, for one sample."""
        with located(f"tensor {self.op.outputs[position].name!r}"):
            return _type(self.op.outputs[position])

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
        return Requantization.from_real(real, kind.zero_point, *_range(activation, kind), self.profile.of(self.op.kind))

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


def _type(tensor: FileTensor) -> TensorType:
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
    return TensorType(_sample(tensor.shape), float(tensor.scale[0]), int(tensor.zero_point[0]))


def _sample(shape: Shape) -> Shape:
    return shape[1:] if shape[:1] == (1,) else shape


def _left_out(shape: Shape) -> int:
    """How many axes `_sample` leaves out."""
    return len(shape) - len(_sample(shape))


def _range(activation: int, kind: TensorType) -> tuple[int, int]:
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


def _narrow(*scales: float) -> list[np.float32]:
    return [np.float32(scale) for scale in scales]


# rules ------------------------------------------------------------------------------------------------------------


def _padding(code: int, image: Shape, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """(top, left, bottom, right) of SAME or VALID padding."""
    if code == VALID:
        return 0, 0, 0, 0
    if code != SAME:
        raise UnsupportedError(f"padding {code} is not supported; SAME and VALID are")
    if min(*stride, *dilation) < 1:
        raise ShapeError(f"strides {tuple(stride)} and dilations {tuple(dilation)} must be at least 1")
    totals = [
        max((-(-size // step) - 1) * step + (taps - 1) * spread + 1 - size, 0)
        for size, taps, step, spread in zip(image, kernel, stride, dilation, strict=False)
    ]
    top, left = (total // 2 for total in totals)
    return top, left, totals[0] - top, totals[1] - left


def _image(low: _Lowering) -> tuple[str, TensorType]:
    tensor = low.read()
    kind = low.tensors[tensor]
    if len(low.given(0).shape) != 4 or len(kind.shape) != 3:
        raise UnsupportedError(f"an image of shape (1, H, W, C) is needed, found {low.given(0).shape}")
    return tensor, kind


def _conv(low: _Lowering, op: FileOperator) -> None:
    tensor, x = _image(low)
    y = low.output_type()
    weight, scales = low.weight(4, 0)
    stride, dilation = (op.option(2, "i"), op.option(1, "i")), (op.option(5, "i", 1), op.option(4, "i", 1))
    bias, output = low.layer(weight, x.scale * scales / y.scale, y, op.option(3, "b"))
    if not weight.size or x.shape[2] % weight.shape[3]:
        raise ShapeError(f"a weight of shape {weight.shape} does not fit {x.shape[2]} input channels")
    padding = _padding(op.option(0, "b"), x.shape, weight.shape[1:3], stride, dilation)
    groups = x.shape[2] // weight.shape[3]
    low.write(Conv2D(weight, bias, x.zero_point, output, stride, padding, dilation, groups), tensor)


def _depthwise(low: _Lowering, op: FileOperator) -> None:
    tensor, x = _image(low)
    y = low.output_type()
    weight, scales = low.weight(4, 3)
    if weight.shape[0] != 1:
        raise ShapeError(f"a weight of shape (1, KH, KW, C) is needed, found {weight.shape}")
    stride, dilation = (op.option(2, "i"), op.option(1, "i")), (op.option(6, "i", 1), op.option(5, "i", 1))
    bias, output = low.layer(weight[0].transpose(2, 0, 1), x.scale * scales / y.scale, y, op.option(4, "b"))
    padding = _padding(op.option(0, "b"), x.shape, weight.shape[1:3], stride, dilation)
    low.write(DepthwiseConv2D(weight[0], bias, x.zero_point, output, stride, padding, dilation), tensor)


def _fully_connected(low: _Lowering, op: FileOperator) -> None:
    tensor = low.read()
    x, y = low.tensors[tensor], low.output_type()
    if op.option(1, "b"):
        raise UnsupportedError("shuffled weights are not supported: convert without a delegate's layout")
    weight, scales = low.weight(2, 0)
    if scales.size == 1:  # a single scale is multiplied in float32
        sx, sw = _narrow(x.scale, float(scales[0]))
        real = np.float64(sx * sw) / y.scale
    else:
        real = x.scale * scales / y.scale
    bias, output = low.layer(weight, real, y, op.option(0, "b"))
    depth = weight.shape[1]
    if x.shape[-1:] != (depth,):
        if not depth or x.size % depth:
            raise ShapeError(f"a weight of shape {weight.shape} does not fit an input of {x.shape}")
        tensor = low.shaped(tensor, (depth,) if x.size == depth else (x.size // depth, depth))
    low.write(Linear(weight, bias, x.zero_point, output), tensor)


def _batch_matmul(low: _Lowering, op: FileOperator) -> None:
    whole = [low.given(position).shape for position in (0, 1)]
    if min(map(len, whole)) < 2:
        raise UnsupportedError(f"matrices are needed, found shapes {whole[0]} and {whole[1]}")
    batches = [tuple(n for n in shape[:-2] if n != 1) for shape in whole]
    names = [low.read(0), low.read(1)]
    a, b = (low.tensors[name] for name in names)
    rows = batches[0]
    if batches[1] == () and rows and not op.option(0, "B"):
        a_shape: Shape = (math.prod(rows) * whole[0][-2], whole[0][-1])  # one matrix for all: all rows together
        rows = ()
    elif batches[0] == batches[1]:
        a_shape = (*rows, *whole[0][-2:])
    else:
        raise UnsupportedError(f"a matrix product that repeats one input, {whole[0]} by {whole[1]}, is not supported")
    left, right = low.shaped(names[0], a_shape), low.shaped(names[1], (*rows, *whole[1][-2:]))
    if op.option(0, "B"):
        order = (*range(len(rows)), len(rows) + 1, len(rows))
        left = low.emit(Transpose(order), [left], a, f"{low.output.name}/transposed")
    y = low.output_type()
    sa, sb = _narrow(a.scale, b.scale)
    output = low.requantization(np.float64(sa * sb) / y.scale, y)
    low.write(MatMul(a.zero_point, b.zero_point, output, bool(op.option(1, "B"))), left, right)


def _add(low: _Lowering, op: FileOperator) -> None:
    left, right = low.read(0), low.read(1)
    a, b, y = low.tensors[left], low.tensors[right], low.output_type()
    operator = Add.from_types(
        a,
        b,
        y,
        *_range(op.option(0, "b"), y),
        low.profile.of(op.kind),
        subtract=op.kind == "SUB",
    )
    low.write(operator, left, right)


def _mul(low: _Lowering, op: FileOperator) -> None:
    left, right = low.read(0), low.read(1)
    a, b, y = low.tensors[left], low.tensors[right], low.output_type()
    sa, sb, sy = _narrow(a.scale, b.scale, y.scale)
    output = low.requantization(float(sa * sb / sy), y, op.option(0, "b"))
    low.write(Mul(a.zero_point, b.zero_point, output), left, right)


def _pool(low: _Lowering, op: FileOperator) -> None:
    tensor, x = _image(low)
    stride, kernel = (op.option(2, "i"), op.option(1, "i")), (op.option(4, "i"), op.option(3, "i"))
    padding = _padding(op.option(0, "b"), x.shape, kernel, stride, (1, 1))
    kind = MaxPool2D if op.kind == "MAX_POOL_2D" else AveragePool2D
    low.write(kind(kernel, stride, padding, *_range(op.option(5, "b"), low.output_type())), tensor)


def _mean(low: _Lowering, op: FileOperator) -> None:
    tensor = low.read()
    x, y, whole = low.tensors[tensor], low.output_type(), low.given(0).shape
    left_out = _left_out(whole)
    axes = sorted({axis - left_out for axis in low.axes(low.integers(1), len(whole)) if axis >= left_out})
    if axes and axes != list(range(axes[0], axes[-1] + 1)):  # brought together behind all others
        kept = [axis for axis in range(len(x.shape)) if axis not in axes]
        tensor = low.emit(Transpose((*kept, *axes)), [tensor], x, f"{low.output.name}/transposed")
        axes = list(range(len(kept), len(x.shape)))
    if not axes:
        tensor, axes = low.shaped(tensor, (1, *x.shape)), [0]
    shape = low.tensors[tensor].shape
    count = math.prod(shape[axes[0] : axes[-1] + 1])
    multiplier, shift = quantize_multiplier(x.scale / y.scale)
    # The engine divides the integer multiplier by the count, truncating, instead of the real one.
    room = min(count.bit_length() - 1, 31 + shift)
    multiplier, shift = (multiplier << room) // count, shift - room
    output = Requantization(
        np.array([multiplier], np.int32),
        np.array([shift], np.int32),
        y.zero_point,
        rounding=low.profile.of(op.kind),
    )
    low.write(Mean(axes[0], axes[-1], x.zero_point, output), tensor)


def _softmax(low: _Lowering, op: FileOperator) -> None:
    tensor = low.read()
    low.write(Softmax.from_scale(op.option(0, "f") * low.tensors[tensor].scale), tensor)


def _relu(low: _Lowering, op: FileOperator) -> None:
    tensor = low.read()
    x, y = low.tensors[tensor], low.output_type()
    activation = {"RELU": Activation.RELU, "RELU6": Activation.RELU6}.get(op.kind, Activation.RELU_N1_TO_1)
    sx, sy = _narrow(x.scale, y.scale)
    low.write(Requantize(x.zero_point, low.requantization(float(sx / sy), y, activation)), tensor)


def _table(low: _Lowering, op: FileOperator) -> None:
    tensor = low.read()
    x, y = low.tensors[tensor], low.output_type()
    if op.kind == "HARD_SWISH":
        table = tables.hard_swish_table(x, y)
    elif op.kind == "LEAKY_RELU":
        table = tables.leaky_relu_table(op.option(0, "f"), x, y, low.profile.of(op.kind))
    else:
        gelu = tables.gelu_tanh if op.option(0, "B") else tables.gelu
        function = {"LOGISTIC": tables.logistic, "TANH": math.tanh}.get(op.kind, gelu)
        table = tables.float_table(function, x, y)
    low.write(Lookup(table), tensor)


def _reshape(low: _Lowering, op: FileOperator) -> None:
    low.write(Reshape(low.output_type().shape), low.read())


def _transpose(low: _Lowering, op: FileOperator) -> None:
    whole = low.given(0).shape
    order = low.axes(low.integers(1), len(whole))
    if sorted(order) != list(range(len(whole))):
        raise ModelError(f"{order} is no permutation of {len(whole)} axes")
    left_out = _left_out(whole)
    low.write(Transpose(tuple(axis - left_out for axis in order if axis >= left_out)), low.read())


def _whole(low: _Lowering, tensor: str, shape: Shape, touched: bool) -> tuple[str, int]:
    """The tensor for work along its axes, and how many of them are left out: none where the first one is touched."""
    return (low.shaped(tensor, shape), 0) if touched else (tensor, _left_out(shape))


def _pad(low: _Lowering, op: FileOperator) -> None:
    whole = low.given(0).shape
    widths = low.integers(1)
    if len(widths) != 2 * len(whole):
        raise ModelError(f"{len(widths)} widths do not fit {len(whole)} axes")
    tensor, skip = _whole(low, low.read(), whole, any(widths[:2]))
    value = low.tensors[tensor].zero_point
    if op.kind == "PADV2":
        filler = low.given(2)
        if filler.data is None or filler.data.size != 1 or filler.element_type != "int8":
            raise UnsupportedError(f"its filler {filler.name!r} must be a constant of one int8")
        value = int(filler.data.reshape(-1)[0])
    low.write(Pad(tuple(widths[2 * skip :: 2]), tuple(widths[2 * skip + 1 :: 2]), value), tensor)


def _join(low: _Lowering, tensors: Sequence[FileTensor], shapes: Sequence[Shape], axis: int) -> None:
    """Concatenate tensors under the given whole shapes."""
    names = [low.activation(tensor) for tensor in tensors]
    skip = 0 if axis == 0 else min(map(_left_out, shapes))
    names = [low.shaped(name, shape[skip:]) for name, shape in zip(names, shapes, strict=True)]
    # Both engines copy bytes and refuse inputs of another quantisation than the output's.
    low.write(Concat(axis - skip, (None,) * len(names)), *names)


def _concat(low: _Lowering, op: FileOperator) -> None:
    if op.option(1, "b"):
        raise UnsupportedError("a fused activation on a CONCATENATION is not supported")
    inputs = [low.given(position) for position in range(len(op.inputs))]
    if not inputs:
        raise ModelError("it has no input")
    (axis,) = low.axes([op.option(0, "i")], len(inputs[0].shape))
    _join(low, inputs, [tensor.shape for tensor in inputs], axis)


def _pack(low: _Lowering, op: FileOperator) -> None:
    inputs = [low.given(position) for position in range(len(op.inputs))]
    if not inputs:
        raise ModelError("it has no input")
    (axis,) = low.axes([op.option(1, "i")], len(inputs[0].shape) + 1)
    _join(low, inputs, [(*t.shape[:axis], 1, *t.shape[axis:]) for t in inputs], axis)


def _cut(low: _Lowering, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int], position: int = 0) -> None:
    """Write an output as a part of the input that stands first among the activations."""
    source = next(t for t in low.op.inputs if t is not None and t.element_type not in ("int32", "int64"))
    tensor, skip = _whole(low, low.activation(source), source.shape, touched=False)
    low.write(Slice(tuple(starts[skip:]), tuple(sizes[skip:]), tuple(steps[skip:])), tensor, position=position)


def _slice(low: _Lowering, op: FileOperator) -> None:
    shape = low.given(0).shape
    starts, sizes = low.integers(1), low.integers(2)
    if not len(starts) == len(sizes) == len(shape):
        raise ModelError(f"{len(starts)} starts and {len(sizes)} sizes do not fit {len(shape)} axes")
    sizes = [n - start if size == -1 else size for start, size, n in zip(starts, sizes, shape, strict=True)]
    _cut(low, starts, sizes, [1] * len(shape))


def _strided_slice(low: _Lowering, op: FileOperator) -> None:
    shape = low.given(0).shape
    begins, ends, steps = (low.integers(position) for position in (1, 2, 3))
    begin_mask, end_mask, ellipsis, new_axis, shrink = (op.option(number, "i") for number in range(5))
    if ellipsis or new_axis or op.option(5, "B"):
        raise UnsupportedError("an ellipsis, a new axis or ends relative to the begins are not supported")
    if not len(begins) == len(ends) == len(steps) <= len(shape) or any(step < 1 for step in steps):
        raise UnsupportedError(f"begins {begins}, ends {ends}, steps {steps} are not supported for shape {shape}")
    starts, sizes = [0] * len(shape), list(shape)
    for axis, (begin, end, step, n) in enumerate(zip(begins, ends, steps, shape, strict=False)):
        start, stop, _ = slice(begin, end, step).indices(n)
        if shrink >> axis & 1:
            start = begin + n if begin < 0 else begin
            stop = start + 1
        else:
            start = 0 if begin_mask >> axis & 1 else start
            stop = n if end_mask >> axis & 1 else stop
        starts[axis], sizes[axis] = start, -(-(stop - start) // step)
    _cut(low, starts, sizes, [*steps, *[1] * (len(shape) - len(steps))])


def _parts(low: _Lowering, shape: Shape, axis: int, sizes: Sequence[int]) -> None:
    """Write every output as a part of the input along an axis."""
    if len(sizes) != len(low.op.outputs):
        raise ModelError(f"{len(sizes)} parts do not fit {len(low.op.outputs)} outputs")
    start = 0
    for position, size in enumerate(sizes):
        starts, whole = [0] * len(shape), list(shape)
        starts[axis], whole[axis] = start, size
        _cut(low, starts, whole, [1] * len(shape), position)
        start += size


def _split(low: _Lowering, op: FileOperator) -> None:
    shape = low.given(1).shape
    (axis,) = low.axes(low.integers(0)[:1], len(shape))
    count = len(op.outputs)
    if shape[axis] % count:
        raise ModelError(f"{shape[axis]} elements do not split into {count} equal parts")
    _parts(low, shape, axis, [shape[axis] // count] * count)


def _split_v(low: _Lowering, op: FileOperator) -> None:
    shape = low.given(0).shape
    (axis,) = low.axes(low.integers(2)[:1], len(shape))
    sizes = low.integers(1)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
    _parts(low, shape, axis, sizes)


def _unpack(low: _Lowering, op: FileOperator) -> None:
    shape = low.given(0).shape
    (axis,) = low.axes([op.option(1, "i")], len(shape))
    _parts(low, shape, axis, [1] * shape[axis])


def _quantize(low: _Lowering, op: FileOperator) -> None:
    source, target = low.given(0), low.output
    if source.element_type == "int8" and target.element_type == "uint8":
        low.real[target] = _shifted(low, low.read(), source, target)
    elif source in low.file.inputs and source.element_type in ("float32", "uint8"):
        if source in low.ports:
            raise UnsupportedError(f"input {source.name!r} is quantised twice")
        kind = low.output_type()
        low.tensors[target.name] = kind
        low.ports[source] = Port(target.name, source.name)
        low.aliases[target] = target.name
        if source.element_type == "uint8":
            _shifted(low, target.name, target, source)
    else:
        tensor = low.read()
        x, y = low.tensors[tensor], low.output_type()
        low.write(Requantize(x.zero_point, low.requantization(x.scale / y.scale, y)), tensor)


def _shifted(low: _Lowering, tensor: str, signed: FileTensor, unsigned: FileTensor) -> str:
    """An int8 tensor for the uint8 one at the edge, which must be the same but for the offset of 128."""
    same = signed.scale.size == unsigned.scale.size == 1 and signed.scale[0] == unsigned.scale[0]
    if not same or signed.zero_point[0] + 128 != unsigned.zero_point[0]:
        raise UnsupportedError(f"the uint8 tensor {unsigned.name!r} is quantised otherwise than the int8 one beside it")
    return tensor


def _dequantize(low: _Lowering, op: FileOperator) -> None:
    if low.output not in low.file.outputs:
        raise UnsupportedError(
            f"what reads {low.output.name!r} would have to run in float: convert with full integer quantisation"
        )
    low.real[low.output] = low.read()


_RULES: dict[str, Callable[[_Lowering, FileOperator], None]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool,
    "BATCH_MATMUL": _batch_matmul,
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _dequantize,
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _fully_connected,
    "GELU": _table,
    "HARD_SWISH": _table,
    "LEAKY_RELU": _table,
    "LOGISTIC": _table,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "MUL": _mul,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _quantize,
    "RELU": _relu,
    "RELU6": _relu,
    "RELU_N1_TO_1": _relu,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _add,
    "TANH": _table,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
