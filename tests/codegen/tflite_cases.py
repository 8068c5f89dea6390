"""Networks of one TensorFlow Lite operator with random shapes, weights and quantisation, one function for each kind."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.codegen.tflite_models import TFLiteNet

Random = np.random.Generator
RELUS = (0, 1, 2, 3)


def scale(rng: Random, low: float = -7, high: float = -1) -> float:
    """A scale; every third is a power of two, where results lie on ties."""
    exponent = rng.uniform(low, high)
    return float(np.float32(2.0 ** (round(exponent) if rng.integers(3) == 0 else exponent)))


def factor(rng: Random, low: float, high: float) -> float:
    """What an output's scale is larger by; every third time a power of two."""
    exponent = rng.uniform(low, high)
    return float(2.0 ** (round(exponent) if rng.integers(3) == 0 else exponent))


def zero_point(rng: Random) -> int:
    return int(rng.choice([-128, 127, 0, rng.integers(-128, 128)]))


def weights(rng: Random, *shape: int) -> NDArray[np.int8]:
    return rng.integers(-127, 128, shape).astype(np.int8)


def pick(rng: Random, *values: int) -> int:
    return int(rng.choice(values))


def image(rng: Random, net: TFLiteNet, channels: int = 0) -> tuple[int, list[int], float]:
    shape = [1, *(int(n) for n in rng.integers(3, 9, 2)), channels or int(rng.integers(1, 6))]
    s = scale(rng)
    return net.input(shape, s, zero_point(rng)), shape, s


def window(rng: Random, shape: list[int], size: tuple[int, int], dilated: bool) -> tuple[list[int], ...]:
    stride = [pick(rng, 1, 2, 3), pick(rng, 1, 2)]
    dilation = [pick(rng, 1, 2), pick(rng, 1, 2)] if dilated and stride == [1, 1] else [1, 1]
    fits = all((k - 1) * d + 1 <= n for k, d, n in zip(size, dilation, shape[1:3], strict=True))
    valid = fits and rng.integers(2)
    if valid:
        out = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(shape[1:3], size, dilation, stride, strict=True)]
    else:
        out = [-(-n // s) for n, s in zip(shape[1:3], stride, strict=True)]
    return stride, dilation, [int(bool(valid))], out


def convolution(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    groups = pick(rng, 1, 1, 2)
    x, shape, s = image(rng, net, groups * pick(rng, 1, 2, 3))
    size, channels = (pick(rng, 1, 2, 3), pick(rng, 1, 3)), groups * pick(rng, 1, 2, 3)
    stride, dilation, (padding,), out = window(rng, shape, size, groups == 1)
    w = weights(rng, channels, *size, shape[3] // groups)
    scales = [scale(rng) for _ in range(channels)] if rng.integers(2) else scale(rng)
    y_scale = s * float(np.max(scales)) * math.sqrt(w[0].size) * factor(rng, 4, 7)
    y = net.tensor([1, *out, channels], y_scale, zero_point(rng))
    inputs = [x, net.constant(w, scales)]
    inputs.append(net.constant(rng.integers(-3000, 3000, channels).astype(np.int32), s))
    fields = {0: padding, 1: stride[1], 2: stride[0], 3: pick(rng, *RELUS), 4: dilation[1], 5: dilation[0]}
    net.add("CONV_2D", inputs, y, {k: ("b" if k in (0, 3) else "i", v) for k, v in fields.items()})
    net.outputs = [y]
    return net


def depthwise(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    x, shape, s = image(rng, net)
    multiplier = pick(rng, 1, 1, 2)
    size, channels = (pick(rng, 1, 2, 3), pick(rng, 1, 3)), shape[3] * multiplier
    stride, dilation, (padding,), out = window(rng, shape, size, True)
    w = weights(rng, 1, *size, channels)
    scales = [scale(rng) for _ in range(channels)] if rng.integers(2) else scale(rng)
    y_scale = s * float(np.max(scales)) * math.sqrt(size[0] * size[1]) * factor(rng, 4, 7)
    y = net.tensor([1, *out, channels], y_scale, zero_point(rng))
    bias = net.constant(rng.integers(-3000, 3000, channels).astype(np.int32), s)
    fields = {0: padding, 1: stride[1], 2: stride[0], 3: multiplier, 4: pick(rng, *RELUS), 5: dilation[1]}
    fields[6] = dilation[0]
    net.add(
        "DEPTHWISE_CONV_2D",
        [x, net.constant(w, scales, axis=3), bias],
        y,
        {k: ("b" if k in (0, 4) else "i", v) for k, v in fields.items()},
    )
    net.outputs = [y]
    return net


def fully_connected(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    depth, channels, rows = pick(rng, 1, 5, 16), pick(rng, 1, 4, 9), pick(rng, 1, 3)
    s = scale(rng)
    form = pick(rng, 0, 1, 2)
    shape = ([1, depth], [1, rows, depth], [1, rows, 1, depth])[form]
    keep = form > 0 and bool(rng.integers(2))
    x = net.input(shape, s, zero_point(rng))
    w = weights(rng, channels, depth)
    scales = [scale(rng) for _ in range(channels)] if rng.integers(2) else scale(rng)
    y_scale = s * float(np.max(scales)) * math.sqrt(depth) * factor(rng, 4, 7)
    out = [*shape[:-1], channels] if keep else [math.prod(shape) // depth, channels]
    y = net.tensor(out, y_scale, zero_point(rng))
    # The engine compares the bias's scale with the product of the others where there is one for all channels.
    bias_scale = s * float(np.min(scales))
    bias = net.constant(rng.integers(-3000, 3000, channels).astype(np.int32), bias_scale)
    if form == 0 and rng.integers(3) == 0:
        bias = -1
    net.add(
        "FULLY_CONNECTED", [x, net.constant(w, scales), bias], y, {0: ("b", pick(rng, *RELUS)), 2: ("B", int(keep))}
    )
    net.outputs = [y]
    return net


def elementwise(kind: str) -> Callable[[Random], TFLiteNet]:
    def build(rng: Random) -> TFLiteNet:
        net = TFLiteNet()
        shape = [1, *(int(n) for n in rng.integers(1, 5, 3))]
        other = [pick(rng, 1, n) for n in shape] if rng.integers(2) else shape
        s, t = scale(rng), scale(rng)
        x = net.input(shape, s, zero_point(rng))
        if rng.integers(2):
            b = net.constant(weights(rng, *other), t, zero_point(rng))
        else:
            b = net.input(other, t, zero_point(rng))
        largest = 127 * s * t if kind == "MUL" else max(s, t)
        y = net.tensor(shape, largest * factor(rng, -2, 2), zero_point(rng))
        net.add(kind, [x, b] if rng.integers(3) else [b, x], y, {0: ("b", pick(rng, *RELUS))})
        net.outputs = [y]
        return net

    return build


def pooling(kind: str) -> Callable[[Random], TFLiteNet]:
    def build(rng: Random) -> TFLiteNet:
        net = TFLiteNet()
        x, shape, s = image(rng, net)
        size = (pick(rng, 1, 2, 3), pick(rng, 1, 2, 3))
        stride, _, (padding,), out = window(rng, shape, size, False)
        y = net.tensor([1, *out, shape[3]], s, int(net.tensors[x]["zero_point"][0]))
        fields = {0: padding, 1: stride[1], 2: stride[0], 3: size[1], 4: size[0], 5: pick(rng, *RELUS)}
        net.add(kind, [x], y, {k: ("b" if k in (0, 5) else "i", v) for k, v in fields.items()})
        net.outputs = [y]
        return net

    return build


def mean(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    x, shape, s = image(rng, net)
    axes = [[1, 2], [2, 1], [1], [2], [3], [-1], [1, 2, 3], [1, 3], [2, 3]][pick(rng, *range(9))]
    keep = bool(rng.integers(2))
    reduced = {axis % 4 for axis in axes}
    out = [1 if a in reduced else n for a, n in enumerate(shape) if keep or a not in reduced]
    same = rng.integers(3) == 0
    y = net.tensor(out, s if same else s * factor(rng, -2, 1), zero_point(rng))
    net.add("MEAN", [x, net.integers(*axes)], y, {0: ("B", int(keep))})
    net.outputs = [y]
    return net


def softmax(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    x = net.input([1, pick(rng, 1, 3), pick(rng, 1, 2, 10)], scale(rng), zero_point(rng))
    y = net.tensor(net.tensors[x]["shape"], 1 / 256, -128)
    net.add("SOFTMAX", [x], y, {0: ("f", float(rng.choice([1.0, 1.0, 0.5, 2.0])))})
    net.outputs = [y]
    return net


def unary(kind: str) -> Callable[[Random], TFLiteNet]:
    def build(rng: Random) -> TFLiteNet:
        net = TFLiteNet()
        s, z = scale(rng, -8, -2), zero_point(rng)
        x = net.input([1, 256], s, z)
        other = (s, z) if rng.integers(3) == 0 else (s * factor(rng, -1, 2), zero_point(rng))
        out = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}.get(kind, other)
        y = net.tensor([1, 256], *out)
        options = {"GELU": {0: ("B", pick(rng, 0, 1))}, "LEAKY_RELU": {0: ("f", float(rng.uniform(0.01, 0.9)))}}
        net.add(kind, [x], y, options.get(kind))
        net.outputs = [y]
        return net

    return build


def batch_matmul(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    rows, depth, columns = (int(n) for n in rng.integers(1, 7, 3))
    batch = [[1], [1, 3], [1, 1, 2]][pick(rng, 0, 1, 2)]
    adj_x, adj_y = pick(rng, 0, 1), pick(rng, 0, 1)
    s, t = scale(rng), scale(rng)
    a = net.input([*batch, *((depth, rows) if adj_x else (rows, depth))], s, zero_point(rng))
    b = net.input([*batch, *((columns, depth) if adj_y else (depth, columns))], t, zero_point(rng))
    y = net.tensor([*batch, rows, columns], s * t * math.sqrt(depth) * factor(rng, 4, 7), zero_point(rng))
    net.add("BATCH_MATMUL", [a, b], y, {0: ("B", adj_x), 1: ("B", adj_y)})
    net.outputs = [y]
    return net


def quantize(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    s = scale(rng)
    x = net.input([1, 256], s, zero_point(rng))
    y = net.tensor([1, 256], s * factor(rng, -2, 2), zero_point(rng))
    net.add("QUANTIZE", [x], y)
    net.outputs = [y]
    return net


def movement(rng: Random) -> TFLiteNet:
    """A chain of operators that only move bytes."""
    net = TFLiteNet()
    s, z = scale(rng), zero_point(rng)
    shape = [1, 4, 6, 3]
    x = net.input(shape, s, z)

    def tensor(*dims: int) -> int:
        return net.tensor(dims, s, z)

    padded = tensor(1, 6, 6, 3)
    if rng.integers(2):
        net.add("PAD", [x, net.constant(np.array([[0, 0], [1, 1], [0, 0], [0, 0]], np.int32))], padded)
    else:
        value = net.constant(np.array([5], np.int8), s, z)
        net.add("PADV2", [x, net.constant(np.array([[0, 0], [2, 0], [0, 0], [0, 0]], np.int32)), value], padded)
    turned = tensor(1, 3, 6, 6)
    net.add("TRANSPOSE", [padded, net.integers(0, 3, 1, 2)], turned)
    moved = tensor(3, 6, 1, 6)
    net.add("TRANSPOSE", [turned, net.integers(1, 2, 0, 3)], moved)
    squeezed = tensor(3, 6, 6)
    net.add("SQUEEZE", [moved], squeezed)
    expanded = tensor(1, 3, 6, 6)
    net.add("EXPAND_DIMS", [squeezed, net.integers(0)], expanded)
    halves = [tensor(1, 3, 3, 6), tensor(1, 3, 3, 6)]
    if rng.integers(2):
        net.add("SPLIT", [net.integers(2), expanded], halves, {0: ("i", 2)})
    else:
        net.add("SPLIT_V", [expanded, net.integers(3, -1), net.integers(-2)], halves, {0: ("i", 2)})
    joined = tensor(1, 3, 3, 12)
    net.add("CONCATENATION", [halves[1], halves[0]], joined, {0: ("i", -1)})
    stacked = tensor(2, 3, 3, 12)
    net.add("CONCATENATION", [joined, joined], stacked, {0: ("i", 0)})
    cut = tensor(1, 3, 2, 5)
    net.add("SLICE", [stacked, net.integers(1, 0, 1, 2), net.integers(1, -1, 2, 5)], cut)
    strided = tensor(3, 2, 2)
    net.add(
        "STRIDED_SLICE",
        [cut, net.integers(0, 0, 0, 1), net.integers(1, 3, 2, -1), net.integers(1, 1, 1, 2)],
        strided,
        {4: ("i", 1)},
    )
    parts = [tensor(3, 2), tensor(3, 2)]
    net.add("UNPACK", [strided], parts, {0: ("i", 2), 1: ("i", 2)})
    packed = tensor(2, 3, 2)
    net.add("PACK", parts[::-1], packed, {0: ("i", 2), 1: ("i", 0)})
    y = tensor(1, 12)
    net.add("RESHAPE", [packed, net.integers(1, 12)], y)
    net.outputs = [y]
    return net


def largest(rng: Random) -> TFLiteNet:
    net = TFLiteNet()
    x, shape, s = image(rng, net)
    axes = [[1, 2], [2], [1], [3], [-1], [1, 2, 3], [1, 3]][pick(rng, *range(7))]
    keep = bool(rng.integers(2))
    reduced = {axis % 4 for axis in axes}
    out = [1 if a in reduced else n for a, n in enumerate(shape) if keep or a not in reduced]
    y = net.tensor(out, s, int(net.tensors[x]["zero_point"][0]))
    net.add("REDUCE_MAX", [x, net.integers(*axes)], y, {0: ("B", int(keep))})
    net.outputs = [y]
    return net


def blocks(rng: Random) -> TFLiteNet:
    """Pixels into channels, each pixel several times, and back."""
    net = TFLiteNet()
    s, z = scale(rng), zero_point(rng)
    size, up = pick(rng, 2, 3), (pick(rng, 1, 2, 3, 5), pick(rng, 1, 2, 4, 7))
    height, width, channels = (pick(rng, 1, 2, 3) for _ in range(3))
    x = net.input([1, height * size, width * size, channels], s, z)
    deep = net.tensor([1, height, width, channels * size**2], s, z)
    net.add("SPACE_TO_DEPTH", [x], deep, {0: ("i", size)})
    height, width = height * up[0], width * up[1]
    larger = net.tensor([1, height, width, channels * size**2], s, z)
    net.add("RESIZE_NEAREST_NEIGHBOR", [deep, net.integers(height, width)], larger, {1: ("B", pick(rng, 0, 1))})
    y = net.tensor([1, height * size, width * size, channels], s, z)
    net.add("DEPTH_TO_SPACE", [larger], y, {0: ("i", size)})
    net.outputs = [y]
    return net


CASES: dict[str, Callable[[Random], TFLiteNet]] = {
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": fully_connected,
    "ADD": elementwise("ADD"),
    "SUB": elementwise("SUB"),
    "MUL": elementwise("MUL"),
    "AVERAGE_POOL_2D": pooling("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pooling("MAX_POOL_2D"),
    "MEAN": mean,
    "SOFTMAX": softmax,
    "BATCH_MATMUL": batch_matmul,
    "QUANTIZE": quantize,
    "movement": movement,
    "blocks": blocks,
    "REDUCE_MAX": largest,
    **{
        kind: unary(kind)
        for kind in (
            "LOGISTIC",
            "TANH",
            "GELU",
            "HARD_SWISH",
            "LEAKY_RELU",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
        )
    },
}


def build(kind: str, seed: int) -> TFLiteNet:
    """The network of a kind that belongs to a seed."""
    return CASES[kind](np.random.default_rng([seed, *kind.encode()]))


def samples(net: TFLiteNet, rng: Random, count: int) -> dict[str, NDArray[np.int8]]:
    """Random bytes for every input by name, int8 (count, *shape without the batch axis); rows of 256 hold each byte."""
    found = {}
    for index in net.inputs:
        shape = net.tensors[index]["shape"][1:]
        if shape == [256]:
            x = np.stack([rng.permutation(np.arange(-128, 128)) for _ in range(count)])
        else:
            x = rng.integers(-128, 128, (count, *shape))
        found[f"t{index}"] = x.astype(np.int8)
    return found
