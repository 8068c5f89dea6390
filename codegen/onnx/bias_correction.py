"""Bias correction: the mean error that quantisation leaves in each channel of a layer goes into its bias.

Rounded weights and clipped activations do not only add noise, they move the mean of what a layer computes, and later
layers cannot tell that from signal. The mean over calibration samples of every layer's sums, before the activation, is
compared between the float and the quantised model, layer after layer: each is measured behind the corrections of those
before it (Nagel, van Baalen, Blankevoort and Welling, "Data-free quantization through weight equalization and bias
correction", 2019, section 4.2; the empirical form of its appendix D). Weights stay as they are.
"""

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from codegen.onnx.layers import Layer, Place, float_layers, fused, with_constants
from codegen.onnx.reader import ModelFile
from codegen.onnx.runner import Runner, Samples

_CORRECTION = "correction"
_UNCORRECTED = "uncorrected"


def correct_biases(
    file: ModelFile,
    quantized: onnx.ModelProto,
    samples: Samples,
    *,
    count: Callable[[int], None] = lambda layers: None,
) -> onnx.ModelProto:
    """The float model with other biases, for the same quantisation.

    Args:
        file: the float model.
        quantized: made of it, with the ranges and weights that it will have.
        samples: calibration samples.
        count: called with the layers done since the last call.

    Returns:
        A copy of the float model; a layer without bias gets one.
    """
    layers = float_layers(file, fused(file))
    corrections = _corrections(file, layers, quantized, samples, count)
    constants: dict[Place, NDArray[np.float64]] = {}
    added: dict[str, NDArray[np.float64]] = {}
    nodes = {node.name: node for node in file.proto.graph.node}
    for layer, correction in zip(layers, corrections, strict=True):
        if layer.bias_at is not None:
            reader, position = layer.bias_at
            constants[layer.bias_at] = np.asarray(file.values[nodes[reader].input[position]], np.float64) + correction
        elif not layer.has_bias and layer.node.op_type in ("Conv", "Gemm"):
            constants[(layer.node.name, 2)] = correction
        else:
            added[layer.node.name] = _shaped(layer, correction)
    corrected = with_constants(file.proto, constants, "corrected")
    _add_behind(corrected, added)
    return corrected


def _corrections(
    file: ModelFile,
    layers: list[Layer],
    quantized: onnx.ModelProto,
    samples: Samples,
    count: Callable[[int], None],
) -> list[NDArray[np.float64]]:
    """What to add to each layer's bias, in execution order."""
    sums = [layer.node.output[0] for layer in layers]
    wanted = _means(Runner(file.proto, sums, file.batch), layers, sums, samples)
    open_model, measured, parameters = _opened(quantized, layers)
    runner = Runner(open_model, measured, file.batch)
    found = []
    for index, layer in enumerate(layers):
        (mean,) = _means(runner, [layer], [measured[index]], samples, parameters)
        correction = wanted[index] - mean
        parameters[f"{layer.node.name}/{_CORRECTION}"] = _shaped(layer, correction).astype(np.float32)
        found.append(correction)
        count(1)
    return found


def _opened(
    quantized: onnx.ModelProto, layers: list[Layer]
) -> tuple[onnx.ModelProto, list[str], dict[str, NDArray[np.float32]]]:
    """The quantised model with a correction of every layer as an input, the layers' sums, and corrections of zero."""
    proto = onnx.ModelProto()
    proto.CopyFrom(quantized)
    nodes = {node.name: node for node in proto.graph.node}
    parameters, sums = {}, []
    for layer in layers:
        node = nodes[layer.node.name]
        result, correction = node.output[0], f"{layer.node.name}/{_CORRECTION}"
        zero = _shaped(layer, np.zeros(layer.channels)).astype(np.float32)
        proto.graph.input.append(helper.make_tensor_value_info(correction, TensorProto.FLOAT, zero.shape))
        _insert_add(proto, node, correction)
        parameters[correction] = zero
        sums.append(result)
    return proto, sums, parameters


def _add_behind(proto: onnx.ModelProto, rows: dict[str, NDArray[np.float64]]) -> None:
    """Let nodes add constants to what they write."""
    nodes = {node.name: node for node in proto.graph.node}
    for name, row in rows.items():
        constant = f"{name}/{_CORRECTION}"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(row.astype(np.float32), constant))
        _insert_add(proto, nodes[name], constant)


def _insert_add(proto: onnx.ModelProto, node: onnx.NodeProto, operand: str) -> None:
    result = node.output[0]
    node.output[0] = f"{result}/{_UNCORRECTED}"
    add = helper.make_node("Add", [node.output[0], operand], [result], name=f"{node.name}/{_CORRECTION}")
    proto.graph.node.insert(list(proto.graph.node).index(node) + 1, add)


def _shaped(layer: Layer, row: NDArray[np.float64]) -> NDArray[np.float64]:
    """One value an output channel, shaped to meet what the layer writes."""
    return row.reshape(-1, *[1] * (layer.weight.ndim - 2)) if layer.op.kind == "Conv" else row


def _means(
    runner: Runner,
    layers: list[Layer],
    tensors: list[str],
    samples: Samples,
    parameters: dict[str, NDArray[np.float32]] | None = None,
) -> list[NDArray[np.float64]]:
    """Mean of every output channel over samples and positions."""
    sums = [np.zeros(layer.channels) for layer in layers]
    elements = [0] * len(layers)
    for values in runner.run(samples, parameters):
        for index, (layer, tensor) in enumerate(zip(layers, tensors, strict=True)):
            rows = np.moveaxis(values[tensor], 1 if layer.op.kind == "Conv" else -1, -1).reshape(-1, layer.channels)
            sums[index] += rows.sum(axis=0, dtype=np.float64)
            elements[index] += len(rows)
    return [total / n for total, n in zip(sums, elements, strict=True)]
