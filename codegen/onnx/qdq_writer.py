"""Float model and ranges of its activations -> QDQ ONNX; pairs stand between integer operators, never inside."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from codegen.onnx.constants import affine
from codegen.onnx.inherit import MOVES, SOFTMAX
from codegen.onnx.mse_range import Range
from codegen.onnx.network import Network, Op, Quantization
from codegen.onnx.reader import ModelFile
from refsim.errors import ModelError
from refsim.numerics import round_half_away_array

_SMALLEST_RANGE = 2.0**-20
"""Ranges below this part of the model's largest are widened to it: a dead tensor needs some scale."""

_LARGEST_BIAS = 2.0**28
"""Biases stay below this many steps, well within int32; a channel with smaller weights gets a larger weight scale."""

_AXIS_OPSET = 13
"""The first operator set whose DequantizeLinear knows channels; before it ONNX Runtime's own stands in."""


def write_qdq(
    file: ModelFile, network: Network, ranges: Mapping[str, Range], *, per_channel: bool = True
) -> onnx.ModelProto:
    """The float model with Q/DQ pairs; nothing is changed in place.

    Args:
        file: the float model; weights are quantised as its `values` give them.
        network: the same model, fused.
        ranges: smallest and largest number of every tensor in `activations(network)`.
        per_channel: one weight scale for each output channel, or one for each weight.

    Raises:
        ModelError: weights that are not finite.
    """
    return _Writer(file, network, ranges, per_channel).run()


class _Writer:
    def __init__(
        self,
        file: ModelFile,
        network: Network,
        ranges: Mapping[str, Range],
        per_channel: bool,
    ) -> None:
        self.file = file
        self.network = network
        self.per_channel = per_channel
        self.quantizations = _quantizations(network, ranges)
        opset = next(o.version for o in file.proto.opset_import if o.domain in ("", "ai.onnx"))
        self.domain = "" if opset >= _AXIS_OPSET else "com.microsoft"
        self.taken = {t.name for t in file.proto.graph.initializer} | {v.name for v in file.proto.graph.input}
        self.taken |= {name for node in file.proto.graph.node for name in (node.name, *node.output)}
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(file.proto)
        self.nodes = {node.name: node for node in self.proto.graph.node}
        self.weights: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self.before: list[onnx.NodeProto] = []
        self.after: dict[str, list[onnx.NodeProto]] = {}

    def run(self) -> onnx.ModelProto:
        for op in self.network.ops:
            if op.kind in ("Conv", "Linear") and self.nodes[op.name].op_type != "BatchNormalization":
                self._layer(op)
            elif op.kind in ("Add", "Sub", "Mul", "Concat", "MatMul"):
                self._constants(op)
        self._pairs()
        graph = self.proto.graph
        order = [*self.before, *self.after.get("", [])]
        for node in graph.node:
            order += [node, *self.after.get(node.name, [])]
        del graph.node[:]
        graph.node.extend(order)
        self._tidy()
        return self.proto

    # names, constants and nodes ------------------------------------------------------------------------------------

    def _unique(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.taken:
            name, count = f"{wanted}_{count}", count + 1
        self.taken.add(name)
        return name

    def _store(self, wanted: str, data: NDArray[Any]) -> str:
        name = self._unique(wanted)
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(data, order="C"), name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        name = self._unique(f"{output}_{kind}")
        return helper.make_node(kind, inputs, [output], name=name, domain=self.domain, **attributes)

    def _dequantized(
        self, name: str, integers: NDArray[Any], scale: Any, zero_point: int | None, axis: int | None
    ) -> str:
        """Store integers behind a DequantizeLinear; returns what that writes."""
        scales = np.asarray(scale, np.float32)
        zeros = np.zeros(scales.shape, integers.dtype) if zero_point is None else np.asarray(zero_point, integers.dtype)
        inputs = [
            self._store(f"{name}_quantized", integers),
            self._store(f"{name}_scale", scales),
            self._store(f"{name}_zero_point", zeros),
        ]
        output = self._unique(f"{name}_dequantized")
        attributes = {} if axis is None else {"axis": axis}
        self.before.append(self._node("DequantizeLinear", inputs, output, **attributes))
        return output

    # weights and constants ------------------------------------------------------------------------------------------

    def _layer(self, op: Op) -> None:
        node = self.nodes[op.name]
        source = self._quantization_of(op.inputs[0])
        bias_at = op.attributes["bias_at"] if len(op.inputs) > 2 else None
        weight = np.asarray(self.file.values[node.input[1]], np.float64)
        axis = 0 if op.kind == "Conv" or op.attributes["transposed"] else weight.ndim - 1
        bias = np.asarray(self.network.constants[op.inputs[2]].real, np.float64).reshape(-1) if bias_at else None
        name, scale = self._weight(node.input[1], weight, axis, source.scale, bias)
        node.input[1] = name
        if bias_at is None or bias is None:
            return
        steps = (np.float32(source.scale) * np.broadcast_to(scale, bias.shape)).astype(np.float32)
        integers = round_half_away_array(bias / steps.astype(np.float64)).astype(np.int32)
        per_tensor = scale.ndim == 0
        reader, position = bias_at
        self.nodes[reader].input[position] = self._dequantized(
            self.nodes[reader].input[position],
            integers,
            steps[0] if per_tensor else steps,
            None,
            None if per_tensor else 0,
        )

    def _quantization_of(self, tensor: str) -> Quantization:
        """Of a layer's input; behind a constant factor, of what the factor is applied to."""
        found = self.quantizations.get(tensor)
        if found is not None:
            return found
        scale = self.network.producer(tensor)
        assert scale is not None
        inner = self._quantization_of(scale.inputs[0])
        return Quantization(float(np.float32(inner.scale * scale.attributes["factor"])), inner.zero_point)

    def _weight(
        self, name: str, weight: NDArray[np.float64], axis: int, source_scale: float, bias: NDArray[np.float64] | None
    ) -> tuple[str, NDArray[np.float32]]:
        """Quantise a weight; a weight that several layers share is stored once where its scales agree."""
        if not (np.isfinite(weight).all() and (bias is None or np.isfinite(bias).all())):
            raise ModelError(f"the weight {name!r} or the bias behind it holds values that are not finite")
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        largest = np.abs(rows).max(axis=1)
        whole = float(largest.max()) or 1.0
        largest = np.where(largest > 0, largest, whole) if self.per_channel else np.full(largest.shape, whole)
        scales = largest / 127
        if bias is not None:
            needed = np.abs(bias) / (source_scale * _LARGEST_BIAS)
            scales = np.maximum(scales, needed if self.per_channel else needed.max())
        scale: NDArray[np.float32] = (scales if self.per_channel else scales[0]).astype(np.float32)
        shared = self.weights.get(name)
        if shared is not None and np.array_equal(shared[1], scale):
            return shared[0], scale
        spread = [1] * weight.ndim
        if self.per_channel:
            spread[axis] = -1
        steps = scale.astype(np.float64).reshape(spread)
        integers = np.clip(round_half_away_array(weight / steps), -127, 127).astype(np.int8)
        stored = self._dequantized(name, integers, scale, None, axis if self.per_channel else None)
        self.weights[name] = (stored, scale)
        return stored, scale

    def _constants(self, op: Op) -> None:
        """Constants that meet activations: int8, one scale."""
        node = self.nodes[op.name]
        for position, name in enumerate(node.input):
            if name not in self.network.constants or name not in op.inputs:
                continue
            real = np.asarray(self.network.constants[name].real, np.float64)
            if not np.isfinite(real).all():
                raise ModelError(f"node {op.name!r}: the constant {name!r} holds values that are not finite")
            if not real.size:
                raise ModelError(f"node {op.name!r}: the constant {name!r} has no elements (shape {real.shape})")
            if name not in self.weights:
                scale, zero_point = affine(float(real.min()), float(real.max()))
                integers = np.clip(round_half_away_array(real / scale) + zero_point, -128, 127).astype(np.int8)
                stored = self._dequantized(name, integers, np.float32(scale), zero_point, None)
                self.weights[name] = (stored, np.asarray(scale, np.float32))
            node.input[position] = self.weights[name][0]

    # activations ------------------------------------------------------------------------------------------------------

    def _pairs(self) -> None:
        """A QuantizeLinear and DequantizeLinear behind every activation."""
        outputs = {value.name for value in self.proto.graph.output}
        writers = {name: node for node in self.proto.graph.node for name in node.output}
        renamed: dict[str, str] = {}
        for tensor, quantization in self.quantizations.items():
            source, result = tensor, self._unique(f"{tensor}_dequantized")
            writer = writers.get(tensor)
            if tensor in outputs and writer is not None:
                source, result = self._unique(f"{tensor}_unquantized"), tensor
                writer.output[:] = [source if name == tensor else name for name in writer.output]
            else:
                renamed[tensor] = result
            parameters = [
                self._store(f"{tensor}_scale", np.asarray(quantization.scale, np.float32)),
                self._store(f"{tensor}_zero_point", np.asarray(quantization.zero_point, np.int8)),
            ]
            integers = self._unique(f"{tensor}_quantized")
            self.after.setdefault(writer.name if writer is not None else "", []).extend(
                [
                    self._node("QuantizeLinear", [source, *parameters], integers),
                    self._node("DequantizeLinear", [integers, *parameters], result),
                ]
            )
        for node in self.nodes.values():
            node.input[:] = [renamed.get(name, name) for name in node.input]

    def _tidy(self) -> None:
        """Leave out what nobody reads, and what does not belong to the model."""
        proto, graph = self.proto, self.proto.graph
        live = {value.name for value in graph.output}
        kept = []
        for node in reversed(graph.node):
            if live.intersection(node.output):
                live.update(node.input)
                kept.append(node)
        del graph.node[:]
        graph.node.extend(kept[::-1])
        constants = [tensor for tensor in graph.initializer if tensor.name in live]
        del graph.initializer[:]
        graph.initializer.extend(constants)
        del graph.value_info[:]
        for item in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
            item.doc_string = ""
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]
        domains = {node.domain for node in graph.node} | {""}
        versions = {opset.domain: opset.version for opset in proto.opset_import}
        versions.setdefault(self.domain, 1)
        del proto.opset_import[:]
        proto.opset_import.extend(helper.make_opsetid(d, versions.get(d, 1)) for d in sorted(domains))
        proto.producer_name, proto.producer_version = "tinyformer", ""


def activations(network: Network) -> list[str]:
    """The tensors between integer operators; a constant factor costs nothing and needs no quantisation of its own."""
    free = {
        op.output
        for op in network.ops
        if op.kind == "Scale" and op.attributes["factor"] > 0 and "clamp" not in op.attributes
        if not network.is_output(op.output)
    }
    tensors = [tensor for tensor, _ in network.inputs] + [op.output for op in network.ops]
    return [tensor for tensor in tensors if tensor not in free]


def groups(network: Network, tensors: Iterable[str]) -> dict[str, str]:
    """The leader of each tensor: those that data movement joins have one quantisation."""
    leader = {tensor: tensor for tensor in tensors}
    for op in network.ops:  # in execution order, so that the input's leader is final
        if op.kind in MOVES and op.kind != "Clip":
            leader[op.output] = leader.get(op.inputs[0], op.inputs[0])
    return leader


def _quantizations(network: Network, ranges: Mapping[str, Range]) -> dict[str, Quantization]:
    """One quantisation for each group."""
    leader = groups(network, ranges)
    fixed = {op.output for op in network.ops if op.kind == "Softmax"}
    widest = max(high - low for low, high in ranges.values())
    result = {}
    for tensor in ranges:
        members = [limits for other, limits in ranges.items() if leader[other] == leader[tensor]]
        low, high = min(m[0] for m in members), max(m[1] for m in members)
        scale, zero_point = affine(low, high, max(widest * _SMALLEST_RANGE / 255, 2.0**-24))
        result[tensor] = SOFTMAX if leader[tensor] in fixed else Quantization(scale, zero_point)
    return result
