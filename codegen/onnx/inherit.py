"""Quantisation of the tensors that the file leaves without, where it follows from their neighbours'."""

import numpy as np

from codegen.onnx.network import Network, Op, Quantization
from refsim.ops.softmax import OUTPUT_SCALE, OUTPUT_ZERO_POINT

MOVES = ("Reshape", "Transpose", "Slice", "Pad", "MaxPool", "AveragePool", "Repeat", "Clip")
"""Kinds that keep their input's quantisation."""

SOFTMAX = Quantization(OUTPUT_SCALE, OUTPUT_ZERO_POINT)


def inherit(network: Network) -> None:
    """Complete `network.quantizations`: data movement takes its input's or its output's, softmax has its own."""
    for op in network.ops:
        if op.kind == "Softmax" and not network.is_output(op.output):
            _replace(network, op.output, network.quantizations.get(op.output), SOFTMAX)
    while any([_forward(network, op) for op in network.ops] + [_backward(network, op) for op in network.ops[::-1]]):
        pass


def _replace(network: Network, tensor: str, old: Quantization | None, new: Quantization) -> None:
    """Quantise a tensor anew, and with it whatever only moves it and kept its old quantisation."""
    if network.is_output(tensor) and old is not None:
        return
    network.quantizations[tensor] = new
    for op in network.consumers(tensor):
        if op.kind in MOVES and network.quantizations.get(op.output) == old:
            _replace(network, op.output, old, new)


def scaled(quantization: Quantization, factor: float) -> Quantization:
    """The same integers standing for numbers `factor` times as large."""
    return Quantization(float(np.float32(quantization.scale * factor)), quantization.zero_point)


def _forward(network: Network, op: Op) -> bool:
    known = network.quantizations
    if op.output in known:
        return False
    sources = [known.get(name) for name in network.activations(op)]
    if op.kind in MOVES and sources[0] is not None:
        known[op.output] = sources[0]
    elif op.kind == "Scale" and op.attributes["factor"] > 0 and sources[0] is not None:
        known[op.output] = scaled(sources[0], op.attributes["factor"])
    elif op.kind == "Concat" and sources[0] is not None and all(source == sources[0] for source in sources):
        known[op.output] = sources[0]
    elif op.kind == "Softmax":
        known[op.output] = SOFTMAX
    return op.output in known


def _backward(network: Network, op: Op) -> bool:
    known = network.quantizations
    wanted = known.get(op.output)
    missing = [name for name in network.activations(op) if name not in known]
    if wanted is None or not missing or op.kind not in (*MOVES, "Concat", "Scale"):
        return False
    if op.kind == "Scale":
        if op.attributes["factor"] <= 0:
            return False
        wanted = scaled(wanted, 1 / op.attributes["factor"])
    for name in missing:
        known[name] = wanted
    return True
