"""Batch normalisation folded into the float convolution before it: weights are quantised as they will be used."""

import numpy as np
import onnx
from onnx import numpy_helper


def fold_batch_norms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model in which every BatchNormalization behind a Conv with constant weights is part of it.

    Others stay: they become an operator of their own on import.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(proto)
    graph = folded.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = next((node for node in graph.node if norm.input[0] in node.output), None)
        readers = sum(norm.input[0] in node.input for node in graph.node)
        if conv is None or conv.op_type != "Conv" or readers != 1 or norm.input[0] in outputs:
            continue
        if any(name not in constants for name in (*conv.input[1:], *norm.input[1:])):
            continue
        gamma, beta, mean, variance = (_array(constants[name]) for name in norm.input[1:5])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        if not (variance + epsilon > 0).all():
            continue
        factor = gamma / np.sqrt(variance + epsilon)
        weight = _array(constants[conv.input[1]])
        bias = _array(constants[conv.input[2]]) if len(conv.input) > 2 else np.zeros(factor.shape)
        _give(graph, conv, 1, weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), f"{conv.name}/folded_weight")
        _give(graph, conv, 2, (bias - mean) * factor + beta, f"{conv.name}/folded_bias")
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
    return folded


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor).astype(np.float64)


def _give(graph: onnx.GraphProto, node: onnx.NodeProto, position: int, data: np.ndarray, name: str) -> None:
    graph.initializer.append(numpy_helper.from_array(data.astype(np.float32), name))
    inputs = [*node.input, ""][: max(len(node.input), position + 1)]
    inputs[position] = name
    del node.input[:]
    node.input.extend(inputs)
