"""A model file -> `Network`: constants folded, QuantizeLinear and DequantizeLinear turned into notes on tensors."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from codegen.onnx.context import Context
from codegen.onnx.network import Constant, Network, Op, Quantization
from codegen.onnx.normalize import NORMALIZERS
from codegen.onnx.reader import ModelFile
from refsim.errors import ModelError, UnsupportedError

_SHAPE_OPERATORS = ("Shape", "Size")
_NO_OPERATION = ("Identity", "Dropout", "Cast")
OTHER_QUANTIZED = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize", "QGemm", "QAttention")
"""How operators of other forms of quantised model begin, of which those in `codegen.onnx.rewrite` are gone already."""
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_ADVICE = {
    "ArgMax": "leave it out on export and take the largest of the scores",
    "LogSoftmax": "leave it out on export, or export Softmax: the largest score stays the largest",
    "TopK": "leave it out on export and take the largest of the scores",
}
"""What to do about operators that often end a model."""
_ON_INTEGERS = {
    "Clip",
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "MaxPool",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Upsample",
}
"""Operators that may stand between QuantizeLinear and DequantizeLinear, on the integers themselves."""


def build_network(file: ModelFile, name: str) -> Network:
    """Turn a checked model into the importer's form.

    Raises:
        UnsupportedError: naming the node, an operator or a form of it that is not supported.
    """
    return _Builder(file, name).build()


def _plain(value: NDArray[Any]) -> Constant:
    return Constant(value.astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value)


class _Builder:
    def __init__(self, file: ModelFile, name: str) -> None:
        graph = file.proto.graph
        self.file = file
        self.opset = next(o.version for o in file.proto.opset_import if o.domain in ("", "ai.onnx"))
        self.alias: dict[str, str] = {}
        constants = {tensor.name: _plain(file.values[tensor.name]) for tensor in graph.initializer}
        shapes = {tensor: file.shape(tensor) for tensor in file.values}
        self.network = Network(name, [(v.name, v.name) for v in graph.input], [], [], constants, shapes, {})
        self.used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}

    def build(self) -> Network:
        for node in self.file.proto.graph.node:
            self._add(node)
        for value in self.file.proto.graph.output:
            tensor = self.alias.get(value.name, value.name)
            if tensor in self.network.constants:
                raise UnsupportedError(f"output {value.name!r} is a constant")
            self.network.outputs.append((tensor, value.name))
        self._name_outputs()
        return self.network

    def _name_outputs(self) -> None:
        """Give output tensors the file's names for them, which quantisers move behind the last DequantizeLinear."""
        network = self.network
        inputs = {tensor for tensor, _ in network.inputs}
        for index, (tensor, name) in enumerate(network.outputs):
            if tensor == name or tensor in inputs or sum(tensor == other for other, _ in network.outputs) > 1:
                continue
            for op in network.ops:
                op.inputs = [name if t == tensor else t for t in op.inputs]
                op.output = name if op.output == tensor else op.output
            network.shapes[name] = network.shapes[tensor]
            if tensor in network.quantizations:
                network.quantizations[name] = network.quantizations.pop(tensor)
            network.outputs[index] = (name, name)

    def _add(self, node: onnx.NodeProto) -> None:
        inputs = [self.alias.get(name, name) for name in node.input]
        present = [name for name in inputs if name]
        constant = bool(present) and all(name in self.network.constants for name in present)
        further = [name for name in node.output[1:] if name in self.used]
        if further and node.op_type in {*NORMALIZERS, *_NO_OPERATION} - {"Split"} and not constant:
            raise UnsupportedError(
                f"node {node.name!r}: of {node.op_type} the first output alone is supported, but {further[0]!r} is used"
            )
        if node.op_type == "Constant" or node.op_type in _SHAPE_OPERATORS or constant:
            for output in node.output:
                if output in self.file.values:
                    self.network.constants[output] = self._fold(node, inputs, output)
        elif node.op_type == "QuantizeLinear":
            self._quantize(node, inputs)
        elif node.op_type == "DequantizeLinear":
            self._dequantize(node, inputs)
        elif node.op_type in _NO_OPERATION:
            self._check_passing(node, inputs)
            self.alias[node.output[0]] = inputs[0]
        elif node.op_type in NORMALIZERS:
            dtype = self.file.values[node.input[0]].dtype
            if dtype in (np.int8, np.uint8) and node.op_type not in _ON_INTEGERS:
                raise UnsupportedError(
                    f"node {node.name!r}: {node.op_type} works on the {dtype} integers of {node.input[0]!r}, not on "
                    "what they stand for: put DequantizeLinear before it"
                )
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            NORMALIZERS[node.op_type](Context(self.network, node, inputs, attributes, self.opset, dtype))
        elif node.op_type.startswith(OTHER_QUANTIZED):
            raise UnsupportedError(
                f"node {node.name!r}: {node.op_type} belongs to another form of quantised model: "
                "quantise the float model statically, by `tinyformer quantize` or to the QDQ format"
            )
        else:
            supported = sorted({*NORMALIZERS, *_NO_OPERATION, *_SHAPE_OPERATORS})
            advice = _ADVICE.get(node.op_type, f"supported are {', '.join(supported)}")
            raise UnsupportedError(f"node {node.name!r}: operator {node.op_type} is not supported; {advice}")

    def _check_passing(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        """Refuse what is no mere passing on of its input."""
        training = self.network.constants.get(inputs[2]) if node.op_type == "Dropout" and len(inputs) > 2 else None
        if training is not None and training.real.any():
            raise UnsupportedError(f"node {node.name!r}: Dropout is in training mode: export for inference")
        before, after = self.file.values[node.input[0]].dtype, self.file.values[node.output[0]].dtype
        if before != after:
            raise UnsupportedError(
                f"node {node.name!r}: a Cast of an activation from {before} to {after} is not supported"
            )

    def _fold(self, node: onnx.NodeProto, inputs: list[str], output: str) -> Constant:
        """The value of a node all of whose inputs are constants; moves of quantised data keep the integers."""
        value = self.file.values[output]
        if node.op_type == "DequantizeLinear":
            return self._dequantized_constant(node, inputs)
        source = self.network.constants.get(inputs[0]) if inputs else None
        if source is not None and source.stored is not None and node.op_type in _MOVES:
            if node.op_type == "Transpose":
                default = list(range(source.real.ndim))[::-1]
                axes = next((list(a.ints) for a in node.attribute if a.name == "perm"), default)
                return source.map(lambda t: t.transpose(axes))
            return source.map(lambda t: t.reshape(value.shape))
        return _plain(value)

    def _dequantized_constant(self, node: onnx.NodeProto, inputs: list[str]) -> Constant:
        stored = np.asarray(self.network.constants[inputs[0]].real)
        scale = np.asarray(self.network.constants[inputs[1]].real, np.float64)
        zero = self.network.constants[inputs[2]].real if len(inputs) > 2 and inputs[2] else np.zeros((), stored.dtype)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if stored.dtype not in (np.int8, np.uint8, np.int32) or attributes.get("block_size", 0):
            raise UnsupportedError(
                f"node {node.name!r}: tensor {node.input[0]!r} is quantised as {stored.dtype}"
                f"{' in blocks' if attributes.get('block_size', 0) else ''}; int8, uint8 and int32 (biases), "
                "per tensor or per channel, are supported"
            )
        if (scale <= 0).any() or not np.isfinite(scale).all():
            raise ModelError(f"node {node.name!r}: scale {node.input[1]!r} must be positive and finite")
        spread = [1] * stored.ndim
        if scale.size > 1:
            spread[attributes.get("axis", 1)] = scale.size
        full_scale = np.broadcast_to(scale.reshape(spread), stored.shape)
        full_zero = np.broadcast_to(
            np.asarray(zero, np.int64).reshape(spread if zero.size > 1 else [1] * stored.ndim), stored.shape
        )
        offset = 128 if stored.dtype == np.uint8 else 0
        integers = stored.astype(np.int64)
        return Constant((integers - full_zero) * full_scale, integers - offset, full_scale, full_zero - offset)

    def _parameters(self, node: onnx.NodeProto, inputs: list[str]) -> Quantization:
        where = f"node {node.name!r} ({node.op_type})"
        scale = self.network.constants.get(inputs[1])
        zero = self.network.constants.get(inputs[2]) if len(inputs) > 2 and inputs[2] else None
        if scale is None or (len(inputs) > 2 and inputs[2] and zero is None):
            raise UnsupportedError(f"{where}: scale and zero point must be constants (static quantisation)")
        if scale.real.size != 1 or (zero is not None and zero.real.size != 1):
            raise UnsupportedError(f"{where}: activations are quantised per tensor, found {scale.real.size} scales")
        dtype = np.dtype(np.uint8) if zero is None else zero.real.dtype
        declared = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
        if node.op_type == "QuantizeLinear" and zero is None and declared:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(declared)
        elif node.op_type == "DequantizeLinear" and zero is None:
            dtype = self.file.values[node.input[0]].dtype
        if dtype not in (np.int8, np.uint8):
            raise UnsupportedError(f"{where}: activations must be int8 or uint8, found {dtype}")
        real = float(np.float32(scale.real.reshape(())))
        if not (np.isfinite(real) and real > 0):
            raise ModelError(f"{where}: scale {node.input[1]!r} must be positive and finite, found {real}")
        offset = 128 if dtype == np.uint8 else 0
        return Quantization(real, (0 if zero is None else int(zero.real.reshape(()))) - offset)

    def _quantize(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        quantization = self._parameters(node, inputs)
        source, output = inputs[0], node.output[0]
        known = self.network.quantizations.setdefault(source, quantization)
        if known == quantization:
            self.alias[output] = source
            return
        self.network.ops.append(Op(node.name, "Requantize", [source], output))
        self.network.quantizations[output] = quantization

    def _dequantize(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        quantization = self._parameters(node, inputs)
        known = self.network.quantizations.setdefault(inputs[0], quantization)
        if known != quantization:
            raise UnsupportedError(
                f"node {node.name!r}: dequantises {node.input[0]!r} with another scale or zero point "
                "than it was quantised with"
            )
        self.alias[node.output[0]] = inputs[0]
