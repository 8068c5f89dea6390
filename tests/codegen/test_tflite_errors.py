"""What is refused of TensorFlow Lite files: one error each, with where, what was found and what is supported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.tflite import load
from refsim.errors import ModelError, QuantizationError, ShapeError, UnsupportedError
from tests.codegen.tflite_cases import build
from tests.codegen.tflite_models import TFLiteNet


def one(kind: str, *inputs: int, net: TFLiteNet, shape: list[int], options: Any = None) -> TFLiteNet:
    y = net.tensor(shape, 0.5)
    net.add(kind, inputs, y, options)
    net.outputs = [y]
    return net


def image(**more: Any) -> TFLiteNet:
    net = TFLiteNet()
    net.input([1, 4, 4, 2], 0.5, **more)
    return net


def layer(
    *, weight: Any = None, scale: Any = 0.1, zero: int = 0, axis: int = 0, act: int = 0, bias: Any = None
) -> TFLiteNet:
    net = TFLiteNet()
    x = net.input([1, 6], 0.5)
    w = net.constant(np.ones((3, 6), np.int8) if weight is None else weight, scale, zero, axis)
    b = net.constant(np.zeros(3, np.int32) if bias is None else bias, 0.05)
    return one("FULLY_CONNECTED", x, w, b, net=net, shape=[1, 3], options={0: ("b", act)})


def changed(kind: str, change: Callable[[TFLiteNet], object]) -> TFLiteNet:
    net = build(kind, 2)
    change(net)
    return net


def dynamic() -> TFLiteNet:
    return one("RELU", 0, net=image(signature=[-1, -1, 4, 2]), shape=[1, 4, 4, 2])


def batch_of_two() -> TFLiteNet:
    net = TFLiteNet()
    return one("RELU", net.input([2, 4], 0.5), net=net, shape=[2, 4])


def float_island() -> TFLiteNet:
    net = image()
    real, y = (net.tensor([1, 4, 4, 2], dtype="float32") for _ in range(2))
    net.add("DEQUANTIZE", [0], real)
    net.add("RELU", [real], y)
    net.outputs = [y]
    return net


def hybrid() -> TFLiteNet:
    net = layer()
    net.tensors[0].update(type=0, scale=np.empty(0, np.float32), zero_point=np.empty(0, np.int64))
    return net


def two_graphs() -> TFLiteNet:
    net = image()
    net.subgraphs = 2
    return one("RELU", 0, net=net, shape=[1, 4, 4, 2])


def other_version() -> TFLiteNet:
    net = layer()
    net.version = 2
    return net


def concatenation() -> TFLiteNet:
    net = image()
    other = net.input([1, 4, 4, 2], 0.25)
    return one("CONCATENATION", 0, other, net=net, shape=[1, 4, 4, 4], options={0: ("i", 3)})


def strided(field: int, value: int) -> TFLiteNet:
    net = TFLiteNet()
    x = net.input([1, 4], 0.5)
    ends = [net.integers(*values) for values in ((0, 0), (1, 4), (1, 2))]
    return one("STRIDED_SLICE", x, *ends, net=net, shape=[1, 2], options={field: ("i", value)})


def not_constant_axes() -> TFLiteNet:
    net = image()
    axes = net.input([1], None, dtype="int32")
    return one("MEAN", 0, axes, net=net, shape=[1, 2])


def two_axes() -> TFLiteNet:
    net = image()
    return one("SPLIT", net.integers(1, 2), 0, net=net, shape=[1, 4, 4, 2])


def sliced_shape() -> TFLiteNet:
    net = image()
    y = net.tensor([2], 0.5)
    net.add("SLICE", [net.integers(1, 2, 3), net.integers(0), net.integers(2)], y)
    net.outputs = [y]
    return net


CASES: dict[str, tuple[Callable[[], TFLiteNet], type[ModelError], str]] = {
    "custom operator": (
        lambda: one("CUSTOM", 0, net=image(), shape=[1, 4, 4, 2]),
        UnsupportedError,
        "CUSTOM 'MyOperator' 't1': this operator is not supported; supported are ADD, ",
    ),
    "control flow": (lambda: one("WHILE", 0, net=image(), shape=[1, 4, 4, 2]), UnsupportedError, "WHILE 't1': this op"),
    "operator": (lambda: one("GATHER", 0, net=image(), shape=[1, 4, 4, 2]), UnsupportedError, "GATHER 't1': this op"),
    "operator of tomorrow": (
        lambda: one("9999", 0, net=image(), shape=[1, 4, 4, 2]),
        UnsupportedError,
        "number 9999 't1': this operator is not supported",
    ),
    "subgraphs": (two_graphs, UnsupportedError, "2 subgraphs; one is supported"),
    "schema version": (other_version, UnsupportedError, "schema version 2 is not supported; 3 is"),
    "dynamic shape": (dynamic, UnsupportedError, r"input 't0': axes \(0, 1\) of its shape are dynamic"),
    "batch": (batch_of_two, UnsupportedError, r"input 't0': its shape \(2, 4\) does not begin with a batch of 1"),
    "float island": (float_island, UnsupportedError, "what reads 't1' would have to run in float"),
    "hybrid": (hybrid, UnsupportedError, "tensor 't0': activations must be int8, found float32; the model is in float"),
    "uint8": (
        lambda: one("RELU", 0, net=image(dtype="uint8"), shape=[1, 4, 4, 2]),
        UnsupportedError,
        "found uint8; quantised by an older converter",
    ),
    "int16": (
        lambda: one("RELU", 0, net=image(dtype="int16"), shape=[1, 4, 4, 2]),
        UnsupportedError,
        "found int16; 16-bit activations",
    ),
    "scales of an activation": (
        lambda: changed(
            "RELU", lambda net: net.tensors[0].update(scale=np.ones(2, "f4"), zero_point=np.zeros(2, "i8"))
        ),
        UnsupportedError,
        "input 't0': an activation has one scale, found 2",
    ),
    "weight's zero point": (lambda: layer(zero=3), UnsupportedError, "weight 't1' has a zero point: .* symmetric"),
    "weight's scales": (
        lambda: layer(scale=[0.1, 0.1]),
        UnsupportedError,
        "'t1' has 2 scales along axis 0; one, or one",
    ),
    "weight's axis": (
        lambda: layer(scale=[0.1] * 6, axis=1),
        UnsupportedError,
        "'t1' has 6 scales along axis 1; one, or one for each of its 3 output channels along axis 0",
    ),
    "weight's scale": (lambda: layer(scale=np.inf), QuantizationError, "'t1' has a scale that is not positive"),
    "weight in float": (
        lambda: layer(weight=np.ones((3, 6), np.float32)),
        UnsupportedError,
        r"weight 't1' must be a constant of int8 with 2 axes, found float32 of shape \(3, 6\)",
    ),
    "bias": (lambda: layer(bias=np.zeros(3, np.int64)), UnsupportedError, "bias 't2' must be a constant of 3 int32"),
    "accumulator": (
        lambda: layer(bias=np.full(3, 2**31 - 1, np.int32)),
        QuantizationError,
        "FULLY_CONNECTED 't3': output channel 0: the accumulator may reach",
    ),
    "fused activation": (lambda: layer(act=4), UnsupportedError, "fused activation 4 is not supported; RELU, "),
    "shuffled weights": (
        lambda: changed("FULLY_CONNECTED", lambda net: net.operators[0][3].update({1: ("b", 1)})),
        UnsupportedError,
        "shuffled weights are not supported",
    ),
    "options": (
        lambda: changed("ADD", lambda net: net.operators.__setitem__(0, (*net.operators[0][:4], 21))),
        ModelError,
        "operator ADD of 't2' has another operator's options",
    ),
    "concatenation": (
        concatenation,
        QuantizationError,
        "keeps its input's quantisation .scale 0.25, zero point 0., but its output has scale 0.5",
    ),
    "softmax": (
        lambda: changed("SOFTMAX", lambda net: net.tensors[1].update(scale=np.float32([0.1]))),
        QuantizationError,
        "softmax writes scale 1/256",
    ),
    "ellipsis": (lambda: strided(2, 1), UnsupportedError, "an ellipsis, a new axis or ends relative"),
    "output's shape": (
        lambda: changed("RELU", lambda net: net.tensors[1].update(shape=[1, 255])),
        ShapeError,
        "reshape cannot turn",
    ),
    "axes": (not_constant_axes, UnsupportedError, "'t1' must be a constant of int32 or int64"),
    "tensor number": (
        lambda: changed("RELU", lambda net: net.operators[0][1].append(77)),
        ModelError,
        "RELU names tensor 77, but there are 2",
    ),
    "no output": (lambda: changed("RELU", lambda net: net.outputs.clear()), ModelError, "no output"),
    "unread input": (
        lambda: changed("RELU", lambda net: net.input([1, 3], None, dtype="float32")),
        UnsupportedError,
        "input 't2' is float32, and no QUANTIZE reads it",
    ),
    "size": (
        lambda: changed("RELU", lambda net: net.tensors[0].update(shape=[1, 2**20, 2**20])),
        ModelError,
        "tensor 't0': shape .* over 16777216 elements",
    ),
    "beta": (
        lambda: changed("SOFTMAX", lambda net: net.operators[0][3].update({0: ("f", np.nan)})),
        QuantizationError,
        "beta must be positive and finite, found nan",
    ),
    "axis": (two_axes, ModelError, r"one axis is needed, found \[1, 2\]"),
    "slice of a shape": (
        sliced_shape,
        UnsupportedError,
        "SLICE 't1': tensor 't2': activations must be int8, found int32",
    ),
    "negative slope": (
        lambda: changed("LEAKY_RELU", lambda net: net.operators[0][3].update({0: ("f", -0.5)})),
        UnsupportedError,
        "negative slope -0.5",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, tmp_path: Path) -> None:
    make, kind, message = CASES[case]
    path = make().write(tmp_path / "m.tflite")
    with pytest.raises(ModelError, match=message) as caught:
        load(path)
    assert type(caught.value) is kind and str(caught.value).startswith(str(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    with pytest.raises(ModelError, match="cannot read the model: No such file"):
        load(path)
    for data in (b"", b"PK\3\4" * 100):
        path.write_bytes(data)
        with pytest.raises(ModelError, match="no identifier 'TFL3'"):
            load(path)
    path.write_bytes(b"\xff\xff\xff\x7fTFL3")
    with pytest.raises(ModelError, match=r"points to byte \d+ of 8"):
        load(path)


@pytest.mark.parametrize(("size", "aligned"), [((7, 6), 0), ((8, 12), 1), ((4 * 33, 6), 0), ((0, 6), 0)])
def test_resize_that_is_no_repetition(size: tuple[int, int], aligned: int, tmp_path: Path) -> None:
    net = TFLiteNet()
    x = net.input([1, 4, 6, 2], 0.1)
    y = net.tensor([1, *size, 2], 0.1)
    net.add("RESIZE_NEAREST_NEIGHBOR", [x, net.integers(*size)], y, {0: ("B", aligned)})
    net.outputs = [y]
    with pytest.raises(UnsupportedError, match=r"RESIZE_NEAREST_NEIGHBOR 't\d': .* are supported"):
        load(net.write(tmp_path / "m.tflite"))
