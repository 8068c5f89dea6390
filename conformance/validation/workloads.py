"""What was measured, as steps: kernels of `native/` and of ckernels, the shapes they ran on, where their data lay.

Weights are random: no kernel here takes longer for one value than for another, but for divisions in LayerNorm.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ckernels

NATIVE = Path(__file__).parent / "native"
_SEED = 20180119
_TRANSFERS = (
    "tnf_apart",
    "tnf_two_loads",
    "tnf_load_store",
    "tnf_load_store_offset",
    "tnf_three_loads",
    "tnf_load_dual",
    "tnf_load_three",
    "tnf_store_eight",
)
_PAIRS = ("tnf_nothing", "tnf_add_pair", "tnf_extend_pair", "tnf_add_chain", "tnf_multiply_chain")


@dataclass(frozen=True)
class Constant:
    """Bytes in flash; their address is passed."""

    data: bytes


@dataclass(frozen=True)
class Buffer:
    """Part of the working memory; its address is passed.

    Attributes:
        offset: from the start of that memory, bytes; a multiple of 4.
        size: bytes.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class Parameters:
    """A struct of words in flash, pointers to constants among them; its address is passed."""

    words: tuple[int | Constant, ...]


Argument = int | Constant | Buffer | Parameters


@dataclass(frozen=True)
class Step:
    """One call of a kernel.

    Attributes:
        name: within its workload; layers are asked for by it.
        function: C symbol.
        arguments: in order.
    """

    name: str
    function: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Workload:
    """A sequence of kernel calls that stands for a measured program.

    Attributes:
        name: as cases refer to it.
        sources: C files.
        steps: in order.
        inputs: what is in which buffer before the first step.
        include_dirs: of the C files.
        memory_bytes: working memory that the steps use.
    """

    name: str
    sources: tuple[Path, ...]
    steps: tuple[Step, ...]
    inputs: tuple[tuple[Buffer, bytes], ...] = ()
    include_dirs: tuple[Path, ...] = ()
    memory_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        buffers = [a for step in self.steps for a in step.arguments if isinstance(a, Buffer)]
        object.__setattr__(self, "memory_bytes", max((b.offset + b.size for b in buffers), default=16))


class Scheme(Enum):
    """How values are quantised: with shifts ("q7"), or as TensorFlow Lite does, with multipliers ("int8").

    PLAIN is q7 in plain C, for cores without the DSP extension; fully connected layers only.
    """

    Q7 = "q7"
    INT8 = "int8"
    PLAIN = "plain"


def convolution(
    scheme: Scheme,
    name: str,
    x: Buffer,
    y: Buffer,
    columns: Buffer,
    shape: tuple[int, int, int],
    filters: int,
    kernel: int | tuple[int, int],
    stride: int,
    rng: np.random.Generator,
) -> Step:
    """A dense convolution with "same" padding.

    Args:
        scheme: of its values.
        name: of the step.
        x: input.
        y: output.
        columns: room for two windows of int16.
        shape: (height, width, channels) of the input.
        filters: output channels.
        kernel: its height and width, one number where they are alike.
        stride: in both directions.
        rng: of weights and biases.
    """
    sizes = _sizes(shape, filters, kernel, stride)
    kernel_h, kernel_w, channels = sizes[6], sizes[7], shape[2]
    weight = _bytes(rng, filters * kernel_h * kernel_w * channels)
    values: tuple[int | Constant, ...]
    if scheme is Scheme.Q7:
        function, values = "tnf_dense_conv", (4, 11, weight, _bytes(rng, filters))
    else:
        bias = _words(rng, filters, -(1 << 14), 1 << 14)
        multiplier, shift = _words(rng, filters, 1 << 30, (1 << 31) - 1), _words(rng, filters, -11, -7)
        function, values = "tnf_dense_int8_conv", (5, -3, -128, 120, weight, bias, multiplier, shift)
    function += "" if channels % 4 == 0 else "_any"
    return Step(name, function, (Parameters(sizes + values), x, y, columns))


def depthwise(
    name: str, x: Buffer, y: Buffer, window: Buffer, shape: tuple[int, int, int], kernel: int, rng: np.random.Generator
) -> Step:
    """A depthwise convolution in q7 with "same" padding and a stride of 1; `window` is room for one window."""
    channels = shape[2]
    values = (4, 9, _bytes(rng, kernel * kernel * channels), _bytes(rng, channels))
    words = Parameters(_sizes(shape, channels, kernel, 1) + values)
    return Step(name, "tnf_dense_depthwise", (words, x, y, window))


def linear(
    scheme: Scheme, name: str, x: Buffer, y: Buffer, wide: Buffer, inputs: int, outputs: int, rng: np.random.Generator
) -> Step:
    """A dense fully connected layer; `wide` is room for the input as int16, which q7 needs."""
    weight = _bytes(rng, inputs * outputs)
    if scheme is Scheme.INT8:
        bias = _words(rng, outputs, -(1 << 14), 1 << 14)
        words = Parameters((inputs, outputs, 5, -3, -128, 120, 1_500_000_001, -9, weight, bias))
        return Step(name, "tnf_dense_int8_linear", (words, x, y))
    words = Parameters((inputs, outputs, 4, 10, weight, _bytes(rng, outputs)))
    if scheme is Scheme.PLAIN:
        return Step(name, "tnf_plain_linear", (words, x, y))
    return Step(name, "tnf_dense_linear", (words, x, y, wide))


def pool(name: str, x: Buffer, y: Buffer, shape: tuple[int, int, int], kernel: int, stride: int) -> Step:
    """Max pooling without padding, the last window clipped; the input is overwritten."""
    height, width, channels = shape
    words = (height, width, channels, -(-height // stride), -(-width // stride), kernel, stride, 0)
    return Step(name, "tnf_dense_max_pool", (Parameters(words), x, y))


def relu(name: str, x: Buffer, size: int) -> Step:
    """ReLU in place on the first `size` bytes of `x`."""
    return Step(name, "tnf_dense_relu", (x, size))


def cifar10() -> Workload:
    """The CMSIS-NN paper's network for CIFAR-10, which is Caffe's cifar10_full without its normalisation."""
    rng = np.random.default_rng(_SEED)
    a, b, columns, image = Buffer(0, 32768), Buffer(32768, 8192), Buffer(40960, 3200), Buffer(44160, 3072)
    steps = (
        convolution(Scheme.Q7, "conv1", image, a, columns, (32, 32, 3), 32, 5, 1, rng),
        relu("relu1", a, 32 * 32 * 32),
        pool("pool1", a, b, (32, 32, 32), 3, 2),
        convolution(Scheme.Q7, "conv2", b, a, columns, (16, 16, 32), 32, 5, 1, rng),
        relu("relu2", a, 16 * 16 * 32),
        pool("pool2", a, b, (16, 16, 32), 3, 2),
        convolution(Scheme.Q7, "conv3", b, a, columns, (8, 8, 32), 64, 5, 1, rng),
        relu("relu3", a, 8 * 8 * 64),
        pool("pool3", a, b, (8, 8, 64), 3, 2),
        linear(Scheme.Q7, "linear", b, a, columns, 1024, 10, rng),
    )
    return Workload("cifar10", _DENSE, steps, ((image, _bytes(rng, 3072).data),))


def resnet8(scheme: Scheme) -> Workload:
    """ResNet-8 of MLPerf Tiny's image classification, without its softmax of ten values.

    ReLU is a step of its own in q7, and a limit of the output in int8.
    """
    rng = np.random.default_rng(_SEED)
    a, b, c = Buffer(0, 16384), Buffer(16384, 16384), Buffer(32768, 16384)
    columns, image = Buffer(49152, 2304), Buffer(51456, 3072)
    steps = [
        convolution(scheme, "conv", image, a, columns, (32, 32, 3), 16, 3, 1, rng),
        *_relu(scheme, "relu", a, 16384),
    ]
    side, channels = 32, 16
    for stage, filters in enumerate((16, 32, 64), start=1):
        stride = 1 if stage == 1 else 2
        half, shape = side // stride, (side, side, channels)
        size = half * half * filters
        steps += [
            convolution(scheme, f"conv{stage}a", a, b, columns, shape, filters, 3, stride, rng),
            *_relu(scheme, f"relu{stage}a", b, size),
            convolution(scheme, f"conv{stage}b", b, c, columns, (half, half, filters), filters, 3, 1, rng),
        ]
        shortcut = a
        if stride == 2:
            steps.append(convolution(scheme, f"shortcut{stage}", a, b, columns, shape, filters, 1, 2, rng))
            shortcut = b
        words = (size, 3, 1 << 30, -1, 5, 1 << 30, -1, -7, 1 << 30, -18, -128, 127)
        steps += [
            Step(f"add{stage}", "tnf_dense_add", (Parameters(words), shortcut, c, a)),
            *_relu(scheme, f"relu{stage}b", a, size),
        ]
        side, channels = half, filters
    steps += [
        Step("mean", "tnf_dense_mean", (a, b, 64, 64)),
        linear(scheme, "linear", b, c, columns, 64, 10, rng),
    ]
    return Workload(f"resnet8 {scheme.value}", _DENSE, tuple(steps), ((image, _bytes(rng, 3072).data),))


def ds_cnn() -> Workload:
    """DS-CNN of MLPerf Tiny's keyword spotting in q7, without its softmax of twelve values."""
    rng = np.random.default_rng(_SEED)
    a, b, columns, image = Buffer(0, 8000), Buffer(8000, 8000), Buffer(16000, 576), Buffer(16576, 492)
    shape = (25, 5, 64)
    steps = [
        convolution(Scheme.Q7, "conv", image, a, columns, (49, 10, 1), 64, (10, 4), 2, rng),
        relu("relu", a, 8000),
    ]
    for stage in range(1, 5):
        steps += [
            depthwise(f"depthwise{stage}", a, b, columns, shape, 3, rng),
            relu(f"relu{stage}a", b, 8000),
            convolution(Scheme.Q7, f"pointwise{stage}", b, a, columns, shape, 64, 1, 1, rng),
            relu(f"relu{stage}b", a, 8000),
        ]
    steps += [
        Step("mean", "tnf_dense_mean", (a, b, 125, 64)),
        linear(Scheme.Q7, "linear", b, a, columns, 64, 12, rng),
    ]
    return Workload("ds-cnn", _DENSE, tuple(steps), ((image, _bytes(rng, 490).data),))


def autoencoder(scheme: Scheme) -> Workload:
    """The autoencoder of MLPerf Tiny's anomaly detection: ten fully connected layers, each weight used once."""
    rng = np.random.default_rng(_SEED)
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    a, b, wide = Buffer(0, 640), Buffer(640, 640), Buffer(1280, 1280)
    steps = []
    for index, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        x, y = (a, b) if index % 2 else (b, a)
        steps.append(linear(scheme, f"linear{index}", x, y, wide, inputs, outputs, rng))
        steps += _relu(scheme, f"relu{index}", y, outputs) if index < len(widths) - 1 else []
    sources = (NATIVE / "plain.c",) if scheme is Scheme.PLAIN else _DENSE
    return Workload(f"autoencoder {scheme.value}", sources, tuple(steps), ((a, _bytes(rng, 640).data),))


def int8_layernorm(rows: int, n: int) -> Workload:
    """Scaled-LayerNorm of ckernels on [rows, n]."""
    rng = np.random.default_rng(_SEED)
    x, y = Buffer(0, rows * n), Buffer(rows * n, rows * n)
    gamma = Constant(rng.integers(64, 512, n, dtype=np.int16).tobytes())
    beta = Constant(rng.integers(-(1 << 14), 1 << 14, n, dtype=np.int32).tobytes())
    words = (rows, n, 7, n * n, 0, 0, 1 << 30, -10, -128, 127, 0, gamma, beta)
    step = Step("layernorm", "tnf_layernorm", (Parameters(words), x, y, 0))
    sources = (ckernels.source("layernorm"),)
    return Workload("layernorm", sources, (step,), ((x, _bytes(rng, rows * n).data),), (ckernels.include_dir(),))


def float_layernorm(rows: int, n: int, function: str) -> Workload:
    """LayerNorm in floating point on [rows, n], by `function` of native/float_layernorm.c."""
    rng = np.random.default_rng(_SEED)
    size = 4 * rows * n
    x, y = Buffer(0, size), Buffer(size, size)
    gamma, beta = (Constant(rng.normal(size=n).astype(np.float32).tobytes()) for _ in range(2))
    step = Step("layernorm", function, (x, y, gamma, beta, rows, n))
    values: NDArray[np.float32] = rng.normal(size=rows * n).astype(np.float32)
    return Workload("float layernorm", (NATIVE / "float_layernorm.c",), (step,), ((x, values.tobytes()),))


def delay_loop(count: int) -> Workload:
    """`count` rounds of a loop of SUBS, NOP, NOP, BCS."""
    step = Step("loop", "tnf_delay_loop", (count - 1,))
    return Workload("delay loop", (NATIVE / "sequences.c",), (step,))


def sequences(name: str, functions: tuple[str, ...]) -> Workload:
    """Functions of native/sequences.c, each a step of 64 rounds; the first is what to subtract from the others."""
    words = Buffer(0, 64)
    steps = tuple(Step(function, function, (words, 0)) for function in functions)
    return Workload(name, (NATIVE / "sequences.c",), steps)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "cifar10": cifar10,
    "resnet8 q7": lambda: resnet8(Scheme.Q7),
    "resnet8 int8": lambda: resnet8(Scheme.INT8),
    "ds-cnn": ds_cnn,
    "autoencoder q7": lambda: autoencoder(Scheme.Q7),
    "autoencoder int8": lambda: autoencoder(Scheme.INT8),
    "autoencoder plain": lambda: autoencoder(Scheme.PLAIN),
    "int8 layernorm 256x44": lambda: int8_layernorm(256, 44),
    "int8 layernorm 64x192": lambda: int8_layernorm(64, 192),
    "float layernorm 256x44": lambda: float_layernorm(256, 44, "tnf_float_layernorm"),
    "float layernorm 64x192": lambda: float_layernorm(64, 192, "tnf_float_layernorm"),
    "double layernorm 256x44": lambda: float_layernorm(256, 44, "tnf_double_layernorm"),
    "double layernorm 64x192": lambda: float_layernorm(64, 192, "tnf_double_layernorm"),
    "delay loop": lambda: delay_loop(1000),
    "transfers": lambda: sequences("transfers", _TRANSFERS),
    "pairs": lambda: sequences("pairs", _PAIRS),
}
"""Workloads by the names that cases use."""

_DENSE = (NATIVE / "dense.c",)


def _sizes(shape: tuple[int, int, int], filters: int, kernel: int | tuple[int, int], stride: int) -> tuple[int, ...]:
    """The fields of a convolution's parameters up to its padding."""
    height, width, channels = shape
    kernel_h, kernel_w = (kernel, kernel) if isinstance(kernel, int) else kernel
    out_h, out_w = -(-height // stride), -(-width // stride)
    pad_h = max((out_h - 1) * stride + kernel_h - height, 0) // 2
    pad_w = max((out_w - 1) * stride + kernel_w - width, 0) // 2
    return height, width, channels, out_h, out_w, filters, kernel_h, kernel_w, stride, pad_h, pad_w


def _relu(scheme: Scheme, name: str, x: Buffer, size: int) -> list[Step]:
    """What follows a layer, where the layer itself does not end with ReLU; plain C has no instruction for it."""
    return [relu(name, x, size)] if scheme is Scheme.Q7 else []


def _words(rng: np.random.Generator, size: int, low: int, high: int) -> Constant:
    return Constant(rng.integers(low, high, size, dtype=np.int32).tobytes())


def _bytes(rng: np.random.Generator, size: int) -> Constant:
    return Constant(rng.integers(-128, 128, size, dtype=np.int8).tobytes())
