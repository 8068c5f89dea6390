"""Nodes that stand for several others, written out before anything else reads the model.

- Operators of the QOperator format (QLinearConv, QLinearMatMul, QLinearAdd, ...) compute on integers and carry scales
  and zero points as inputs: DequantizeLinear, the operator itself and QuantizeLinear say the same in the QDQ format.
- Sum of several tensors: one Add after the other.
- PRelu with a slope a channel, in a float model: max(x, 0) - slope * max(-x, 0).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from refsim.errors import ModelError, UnsupportedError

_AXIS_OPSET = 13
"""The first operator set whose DequantizeLinear knows channels; before it ONNX Runtime's own stands in."""
_QUANTIZING = ("QuantizeLinear", "QLinear", "QGemm")


def write_out(proto: onnx.ModelProto) -> None:
    """Replace the nodes in place; the node that does the work keeps the name.

    Raises:
        ModelError, UnsupportedError: naming the node, inputs that are missing or a form that is not supported.
    """
    writer = _Writer(proto)
    for node in proto.graph.node:
        rule = _RULES.get(node.op_type)
        if rule is None:
            writer.nodes.append(node)
        elif not node.input or not node.output[0]:
            raise ModelError(f"node {node.name!r}: {node.op_type} needs an input and an output")
        else:
            rule(writer, node)
    del proto.graph.node[:]
    proto.graph.node.extend(writer.nodes)
    if any(node.domain == "com.microsoft" for node in writer.nodes) and not any(
        opset.domain == "com.microsoft" for opset in proto.opset_import
    ):
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))


@dataclass(frozen=True)
class _Quantized:
    """Where a tensor's integers, scale and zero point stand among a node's inputs; `axis` where it has channels."""

    position: int
    axis: int | None = None


class _Writer:
    def __init__(self, proto: onnx.ModelProto) -> None:
        opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.domain = "" if opset >= _AXIS_OPSET else "com.microsoft"
        self.in_float = not any(node.op_type.startswith(_QUANTIZING) for node in proto.graph.node)
        self.nodes: list[onnx.NodeProto] = []
        self.sizes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
        for node in proto.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.sizes[node.output[0]] = tuple(node.attribute[0].t.dims)
        self.taken = {name for node in proto.graph.node for name in (*node.input, *node.output, node.name)}
        self.taken |= set(self.sizes) | {value.name for value in proto.graph.input}

    def name(self, wanted: str) -> str:
        """A name that nothing has yet."""
        name, count = wanted, 1
        while name in self.taken:
            name, count = f"{wanted}_{count}", count + 1
        self.taken.add(name)
        return name

    def node(self, kind: str, inputs: Sequence[str], wanted: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; returns its output."""
        output = self.name(wanted)
        name = self.name(f"{wanted}/{kind}")
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, domain=domain, **attributes))
        return output

    def dequantized(self, node: onnx.NodeProto, where: _Quantized) -> str:
        """An input in float; channels only where the scale has several elements."""
        tensor, scale, zero_point = node.input[where.position : where.position + 3]
        shape = self.sizes.get(scale, ())
        axis = {} if where.axis is None or shape in ((), (1,)) else {"axis": where.axis}
        inputs = [tensor, scale, zero_point] if zero_point else [tensor, scale]
        return self.node("DequantizeLinear", inputs, f"{tensor}/dequantized", self.domain, **axis)

    def bias(self, node: onnx.NodeProto, position: int, *factors: int) -> list[str]:
        """An int32 bias in float, in steps of the product of two scales; nothing where it is absent."""
        if len(node.input) <= position or not node.input[position]:
            return []
        tensor = node.input[position]
        scales = [node.input[factor] for factor in factors]
        shape = next((self.sizes[scale] for scale in scales if self.sizes.get(scale, ()) not in ((), (1,))), ())
        product = self.node("Mul", scales, f"{tensor}/scale")
        axis = {"axis": 0} if shape else {}
        return [self.node("DequantizeLinear", [tensor, product], f"{tensor}/dequantized", self.domain, **axis)]

    def compute(
        self, node: onnx.NodeProto, kind: str, inputs: Sequence[str], output: Sequence[str], **attributes: Any
    ) -> None:
        """Append the operator itself, and QuantizeLinear where the output has a scale and zero point."""
        kept = {a.name: helper.get_attribute_value(a) for a in node.attribute} | attributes
        quantized = bool(output and output[0])
        result = self.name(f"{node.output[0]}/real") if quantized else node.output[0]
        self.nodes.append(helper.make_node(kind, inputs, [result], name=node.name, **kept))
        if quantized:
            self.nodes.append(
                helper.make_node(
                    "QuantizeLinear",
                    [result, *(name for name in output if name)],
                    [node.output[0]],
                    name=self.name(f"{node.output[0]}/QuantizeLinear"),
                    domain=self.domain,
                )
            )


_Rule = Callable[[_Writer, onnx.NodeProto], None]


def _checked(count: int, rule: _Rule) -> _Rule:
    """The rule for nodes with so many inputs at least."""

    def check(writer: _Writer, node: onnx.NodeProto) -> None:
        if len(node.input) < count or not all(node.input[position] for position in (0, 1)):
            raise ModelError(f"node {node.name!r}: {node.op_type} needs {count} inputs, found {len(node.input)}")
        if _attribute(node, "channels_last", 0):
            raise UnsupportedError(f"node {node.name!r}: {node.op_type} with channels last is not supported")
        rule(writer, node)

    return check


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _conv(writer: _Writer, node: onnx.NodeProto) -> None:
    x, weight = writer.dequantized(node, _Quantized(0)), writer.dequantized(node, _Quantized(3, axis=0))
    writer.compute(node, "Conv", [x, weight, *writer.bias(node, 8, 1, 4)], node.input[6:8])


def _matmul(writer: _Writer, node: onnx.NodeProto) -> None:
    last = len(writer.sizes.get(node.input[3], (0, 0))) - 1
    a, b = writer.dequantized(node, _Quantized(0)), writer.dequantized(node, _Quantized(3, axis=last))
    writer.compute(node, "MatMul", [a, b], node.input[6:8])


def _gemm(writer: _Writer, node: onnx.NodeProto) -> None:
    if _attribute(node, "alpha", 1.0) != 1.0:
        raise UnsupportedError(
            f"node {node.name!r}: {node.op_type} with alpha is not supported: fold it into the scale"
        )
    axis = 0 if _attribute(node, "transB", 0) else 1
    a, b = writer.dequantized(node, _Quantized(0)), writer.dequantized(node, _Quantized(3, axis=axis))
    writer.compute(node, "Gemm", [a, b, *writer.bias(node, 6, 1, 4)], node.input[7:9])


def _binary(kind: str) -> _Rule:
    def rule(writer: _Writer, node: onnx.NodeProto) -> None:
        inputs = [writer.dequantized(node, _Quantized(position)) for position in (0, 3)]
        writer.compute(node, kind, inputs, node.input[6:8])

    return _checked(7, rule)


def _unary(kind: str, dropped: Sequence[str] = ()) -> _Rule:
    def rule(writer: _Writer, node: onnx.NodeProto) -> None:
        kept = [attribute for attribute in node.attribute if attribute.name not in (*dropped, "channels_last")]
        del node.attribute[:]
        node.attribute.extend(kept)
        writer.compute(node, kind, [writer.dequantized(node, _Quantized(0))], node.input[3:5])

    return _checked(4, rule)


def _concat(writer: _Writer, node: onnx.NodeProto) -> None:
    inputs = [writer.dequantized(node, _Quantized(position)) for position in range(2, len(node.input) - 2, 3)]
    writer.compute(node, "Concat", inputs, node.input[0:2])


def _sum(writer: _Writer, node: onnx.NodeProto) -> None:
    total, *rest = node.input
    for count, name in enumerate(rest[:-1]):
        total = writer.node("Add", [total, name], f"{node.output[0]}/sum_{count + 2}")
    kind, inputs = ("Add", [total, rest[-1]]) if rest else ("Identity", [total])
    writer.compute(node, kind, inputs, ())


def _prelu(writer: _Writer, node: onnx.NodeProto) -> None:
    if not writer.in_float or len(node.input) < 2 or math.prod(writer.sizes.get(node.input[1], ())) == 1:
        writer.nodes.append(node)
        return
    (x, slope), base = node.input[:2], node.output[0]
    negative = writer.node("Relu", [writer.node("Neg", [x], f"{base}/negated")], f"{base}/below")
    scaled = writer.node("Mul", [negative, slope], f"{base}/scaled")
    writer.compute(node, "Sub", [writer.node("Relu", [x], f"{base}/above"), scaled], ())


_RULES: dict[str, _Rule] = {
    "PRelu": _prelu,
    "QGemm": _checked(6, _gemm),
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearConcat": _checked(5, _concat),
    "QLinearConv": _checked(8, _conv),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearMatMul": _checked(8, _matmul),
    "QLinearMul": _binary("Mul"),
    "QLinearReduceMean": _unary("ReduceMean"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _unary("Softmax", ("opset",)),
    "Sum": _sum,
}
