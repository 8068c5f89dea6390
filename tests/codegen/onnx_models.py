"""Small float ONNX models, one for each pattern that the importer knows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class Net:
    """A model under construction; tensors are strings."""

    def __init__(self, *shape: int, batch: int | str = "batch", opset: int = 17, seed: int = 0) -> None:
        self.shape = shape
        self.batch = batch
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan_in = math.prod(shape[1:]) if len(shape) > 2 else shape[0]
        return self.const(self.random.standard_normal(shape) * (scale or 1 / math.sqrt(fan_in)))

    def add(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        base = f"{kind.lower()}_{len(self.nodes)}"
        names = [base] if outputs == 1 else [f"{base}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"/{base}", domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def linear(self, x: str, before: int, after: int, bias: bool = True) -> str:
        y = self.add("MatMul", x, self.weight(before, after))
        return self.add("Add", y, self.weight(after, scale=0.3)) if bias else y

    def conv(self, x: str, before: int, after: int, kernel: int, bias: bool = True, **attributes: Any) -> str:
        group = attributes.get("group", 1)
        inputs = [x, self.weight(after, before // group, kernel, kernel)] + (
            [self.weight(after, scale=0.3)] if bias else []
        )
        return self.add("Conv", *inputs, kernel_shape=[kernel, kernel], **attributes)

    def layer_norm(self, x: str, width: int) -> str:
        gamma = self.const(1 + 0.3 * self.random.standard_normal(width))
        return self.add("LayerNormalization", x, gamma, self.weight(width, scale=0.3), axis=-1, epsilon=1e-5)

    def proto(self, *outputs: str, shapes: dict[str, Any] | None = None) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, *self.shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes and shapes[name]) for name in outputs],
            self.initializers,
        )
        domains = {"", *(node.domain for node in self.nodes)}
        opsets = [helper.make_opsetid(d, self.opset if d == "" else 1) for d in sorted(domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        if shapes is None:  # ONNX Runtime infers them, for its own operators as well
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            return self.proto(*outputs, shapes={value.name: value.shape for value in session.get_outputs()})
        return model

    def samples(self, count: int) -> NDArray[np.float32]:
        return np.random.default_rng(99).standard_normal((count, *self.shape)).astype(np.float32)


@dataclass(frozen=True)
class Pattern:
    """A model, the operators that it must become, sorted by name, and the node that ONNX Runtime's quantiser skips."""

    build: Callable[[], tuple[Net, str]]
    operators: str
    left_in_float: str = ""

    def write(self, path: Path) -> Net:
        net, output = self.build()
        onnx.save(net.proto(output), path)
        return net


PATTERNS: dict[str, Pattern] = {}


def pattern(
    operators: str, left_in_float: str = ""
) -> Callable[[Callable[[], tuple[Net, str]]], Callable[[], tuple[Net, str]]]:
    def register(build: Callable[[], tuple[Net, str]]) -> Callable[[], tuple[Net, str]]:
        PATTERNS[build.__name__] = Pattern(build, operators, left_in_float)
        return build

    return register


@pattern("conv2d conv2d linear max_pool2d mean")
def convolutional() -> tuple[Net, str]:
    net = Net(3, 12, 12)
    y = net.add("Relu", net.conv("x", 3, 8, 3, pads=[1, 1, 1, 1]))
    y = net.add("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = net.add("Clip", net.conv(y, 8, 10, 3, bias=False, strides=[2, 2]), net.const(0), net.const(6))
    y = net.add("Flatten", net.add("GlobalAveragePool", y))
    return net, net.add("Gemm", y, net.weight(5, 10), net.weight(5), transB=1)


@pattern("add conv2d conv2d conv2d depthwise_conv2d linear reshape")
def inverted_residual() -> tuple[Net, str]:
    """Batch normalisations, one with negative factors, depthwise convolution with multiplier 2, flattened images."""
    net = Net(4, 8, 8)

    def norm(x: str, width: int) -> str:
        gamma = net.const(net.random.standard_normal(width))
        positive = net.const(0.5 + net.random.random(width))
        return net.add(
            "BatchNormalization", x, gamma, net.weight(width, scale=0.3), net.weight(width, scale=0.3), positive
        )

    first = net.add("Relu", norm(net.conv("x", 4, 6, 1, bias=False), 6))
    y = net.add("Relu", norm(net.conv(first, 6, 12, 3, group=6, auto_pad="SAME_UPPER"), 12))
    y = net.add("Add", first, norm(net.conv(y, 12, 6, 1), 6))
    y = net.conv(y, 6, 4, 3, group=2, dilations=[2, 2], strides=[2, 2], pads=[2, 1, 2, 1])
    shape = (8 + 4 - 5) // 2 + 1, (8 + 2 - 5) // 2 + 1
    return net, net.linear(net.add("Flatten", y), 4 * shape[0] * shape[1], 7)


@pattern("conv2d max_pool2d mean reshape reshape", "/reducemean_3")
def one_dimensional() -> tuple[Net, str]:
    net = Net(3, 20)
    y = net.add("Conv", "x", net.weight(6, 3, 5), net.weight(6), kernel_shape=[5], dilations=[2], pads=[4, 4])
    y = net.add("MaxPool", net.add("Relu", y), kernel_shape=[3], strides=[2], ceil_mode=1)
    return net, net.add("ReduceMean", y, axes=[2], keepdims=0)


@pattern("add average_pool2d conv2d pad slice")
def pooled_and_cut() -> tuple[Net, str]:
    net = Net(4, 9, 9)
    y = net.conv("x", 4, 4, 1)
    y = net.add("AveragePool", y, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0])
    y = net.add("Pad", y, net.ints(0, 0, 1, 0, 0, 0, 0, 2))
    y = net.add("Slice", y, net.ints(1, 0), net.ints(10, 9), net.ints(2, 3))
    return net, net.add("Add", y, net.const(net.random.standard_normal((4, 1, 1))))


@pattern("conv2d conv2d layernorm linear lookup reshape")
def tokens() -> tuple[Net, str]:
    """A convolutional stem whose image becomes tokens: no transpose is left."""
    net = Net(3, 8, 8)
    y = net.conv(net.add("LeakyRelu", net.conv("x", 3, 6, 3, pads=[1] * 4), alpha=0.1), 6, 8, 2, strides=[2, 2])
    y = net.add("Transpose", net.add("Reshape", y, net.ints(0, 8, 16)), perm=[0, 2, 1])
    return net, net.linear(net.layer_norm(y, 8), 8, 5)


def _attention(net: Net, q: str, k: str, v: str, heads: int, count: int, width: int) -> str:
    def split(x: str, order: list[int]) -> str:
        return net.add("Transpose", net.add("Reshape", x, net.ints(0, count, heads, width)), perm=order)

    scores = net.add("MatMul", split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1]))
    scores = net.add("Div", scores, net.const(math.sqrt(width)))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), split(v, [0, 2, 1, 3]))
    mixed = net.add("Transpose", mixed, perm=[0, 2, 1, 3])
    return str(net.add("Reshape", mixed, net.ints(0, count, heads * width)))


_HEADS = "reshape reshape reshape reshape {}softmax transpose transpose transpose transpose"
_ATTENTION = f"linear linear linear linear matmul matmul {_HEADS.format('')}"


@pattern(f"add add {_ATTENTION}")
def attention() -> tuple[Net, str]:
    """A positional embedding, three projections, two heads and the residual."""
    net = Net(6, 8)
    y = net.add("Add", "x", net.const(0.5 * net.random.standard_normal((1, 6, 8))))
    q, k, v = (net.linear(y, 8, 8) for _ in range(3))
    return net, net.add("Add", y, net.linear(_attention(net, q, k, v, 2, 6, 4), 8, 8))


@pattern(f"linear linear matmul matmul {_HEADS.format('slice slice slice ')}")
def fused_projection() -> tuple[Net, str]:
    net = Net(6, 8)
    q, k, v = net.add("Split", net.linear("x", 8, 24), net.ints(8, 8, 8), outputs=3, axis=2)
    return net, net.linear(_attention(net, q, k, v, 2, 6, 4), 8, 8)


@pattern("linear matmul matmul reshape reshape reshape reshape reshape slice slice slice softmax transpose transpose")
def timm_attention() -> tuple[Net, str]:
    """reshape(B, N, 3, H, D).permute(2, 0, 3, 1, 4), gathered; queries and keys scaled before the product."""
    net = Net(6, 8)
    y = net.add("Reshape", net.linear("x", 8, 24), net.ints(-1, 6, 3, 2, 4))
    y = net.add("Transpose", y, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.add("Gather", y, net.const(i, np.int64), axis=0) for i in range(3))
    factor = net.const(4**-0.25)
    scores = net.add(
        "MatMul", net.add("Mul", q, factor), net.add("Mul", net.add("Transpose", k, perm=[0, 1, 3, 2]), factor)
    )
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=3), v)
    return net, net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(-1, 6, 8))


@pattern(_ATTENTION)
def batch_second() -> tuple[Net, str]:
    """torch.nn.MultiheadAttention: batch and heads share an axis between."""
    net = Net(6, 8)
    y = net.add("Transpose", "x", perm=[1, 0, 2])
    parts = []
    for _ in range(3):
        part = net.add("Reshape", net.linear(y, 8, 8), net.ints(6, -1, 4))
        parts.append(net.add("Transpose", part, perm=[1, 0, 2]))
    scores = net.add("MatMul", net.add("Mul", parts[0], net.const(0.5)), net.add("Transpose", parts[1], perm=[0, 2, 1]))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), parts[2])
    mixed = net.add("Reshape", net.add("Transpose", mixed, perm=[1, 0, 2]), net.ints(-1, 8))
    mixed = net.add("Gemm", mixed, net.weight(8, 8), net.weight(8), transB=1)
    return net, net.add("Transpose", net.add("Reshape", mixed, net.ints(6, -1, 8)), perm=[1, 0, 2])


def _window_attention(window: int) -> tuple[Net, str]:
    """Attention within windows of a 4 x 4 image, which become part of the batch and then of the image again."""
    net = Net(4, 4, 8)
    count = 4 // window
    y = net.add("Reshape", "x", net.ints(-1, count, window, count, window, 8))
    y = net.add("Reshape", net.add("Transpose", y, perm=[0, 1, 3, 2, 4, 5]), net.ints(-1, window**2, 8))
    q, k, v = net.add("Split", net.linear(y, 8, 24), net.ints(8, 8, 8), outputs=3, axis=2)
    y = net.linear(_attention(net, q, k, v, 2, window**2, 4), 8, 8)
    y = net.add("Reshape", y, net.ints(-1, count, count, window, window, 8))
    y = net.add("Reshape", net.add("Transpose", y, perm=[0, 1, 3, 2, 4, 5]), net.ints(-1, 4, 4, 8))
    return net, net.add("Add", "x", y)


@pattern(f"add linear linear matmul matmul {'reshape ' * 8}slice slice slice softmax{' transpose' * 6}")
def windows() -> tuple[Net, str]:
    return _window_attention(2)


@pattern(f"add linear linear matmul matmul {'reshape ' * 6}slice slice slice softmax")
def windows_of_one() -> tuple[Net, str]:
    return _window_attention(1)


@pattern("add concat layernorm linear reshape slice")
def class_token() -> tuple[Net, str]:
    """The batch size, taken from the input's shape, expands the token; then the token is cut out."""
    net = Net(5, 8)
    batch = net.add("Gather", net.add("Shape", "x"), net.ints(0))
    token = net.add("Expand", net.weight(1, 1, 8, scale=1.0), net.add("Concat", batch, net.ints(1, 8), axis=0))
    y = net.add("Add", net.add("Concat", token, "x", axis=1), net.weight(1, 6, 8, scale=0.5))
    y = net.add("Gather", net.layer_norm(y, 8), net.const(0, np.int64), axis=1)
    return net, net.linear(y, 8, 4)


@pattern("layernorm linear linear")
def written_out_layer_norm() -> tuple[Net, str]:
    net = Net(5, 8)
    x = net.linear("x", 8, 8)
    centred = net.add("Sub", x, net.add("ReduceMean", x, axes=[-1]))
    variance = net.add("ReduceMean", net.add("Pow", centred, net.const(2)), axes=[-1])
    y = net.add("Div", centred, net.add("Sqrt", net.add("Add", variance, net.const(1e-5))))
    y = net.add("Add", net.add("Mul", y, net.const(1 + 0.2 * net.random.standard_normal(8))), net.weight(8, scale=0.3))
    return net, net.linear(y, 8, 8)


def _activation(build: Callable[[Net, str], str]) -> tuple[Net, str]:
    net = Net(5, 8)
    return net, net.linear(build(net, net.linear("x", 8, 8)), 8, 8)


@pattern("linear linear lookup")
def written_out_gelu() -> tuple[Net, str]:
    def build(net: Net, x: str) -> str:
        erf = net.add("Erf", net.add("Div", x, net.const(math.sqrt(2))))
        return str(net.add("Mul", net.add("Mul", x, net.add("Add", erf, net.const(1))), net.const(0.5)))

    return _activation(build)


@pattern("linear linear lookup")
def written_out_tanh_gelu() -> tuple[Net, str]:
    def build(net: Net, x: str) -> str:
        cube = net.add("Mul", net.add("Pow", x, net.const(3)), net.const(0.044715))
        inner = net.add("Tanh", net.add("Mul", net.add("Add", x, cube), net.const(math.sqrt(2 / math.pi))))
        return str(net.add("Mul", net.add("Mul", x, net.const(0.5)), net.add("Add", inner, net.const(1))))

    return _activation(build)


@pattern("linear linear lookup")
def written_out_silu() -> tuple[Net, str]:
    return _activation(lambda net, x: str(net.add("Mul", x, net.add("Sigmoid", x))))


@pattern("linear linear lookup")
def written_out_hard_swish() -> tuple[Net, str]:
    def build(net: Net, x: str) -> str:
        gate = net.add("Clip", net.add("Add", x, net.const(3)), net.const(0), net.const(6))
        return str(net.add("Div", net.add("Mul", x, gate), net.const(6)))

    return _activation(build)


@pattern("linear linear lookup", "/gelu_2")
def contrib_gelu() -> tuple[Net, str]:
    return _activation(lambda net, x: str(net.add("Gelu", x, domain="com.microsoft")))


@pattern("linear linear lookup")
def elu() -> tuple[Net, str]:
    return _activation(lambda net, x: str(net.add("Elu", x, alpha=0.7)))


@pattern("linear linear mul softmax transpose transpose")
def gated() -> tuple[Net, str]:
    """A softmax over another axis than the last, and a product of two activations."""
    net = Net(5, 8)
    gate = net.add("Softmax", net.linear("x", 8, 8), axis=1)
    return net, net.add("Mul", net.linear("x", 8, 8), gate)


@pattern("layernorm linear linear matmul reshape reshape softmax")
def sequence_pooling() -> tuple[Net, str]:
    net = Net(6, 8)
    y = net.layer_norm("x", 8)
    weights = net.add("Softmax", net.add("Transpose", net.linear(y, 8, 1), perm=[0, 2, 1]), axis=-1)
    return net, net.linear(net.add("Squeeze", net.add("MatMul", weights, y), net.ints(1)), 8, 4)


@pattern("depthwise_conv2d lookup", "/tanh_1")
def lone_batch_norm() -> tuple[Net, str]:
    net = Net(3, 6, 6)
    rows = [net.const(v) for v in ([0.5, -1.5, 0.0], [0.1, 0.2, 0.3], [0.3, -0.3, 0.0], [1.0, 2.0, 0.5])]
    return net, net.add("Tanh", net.add("BatchNormalization", "x", *rows))


@pattern("linear linear reshape reshape transpose")
def shape_arithmetic() -> tuple[Net, str]:
    """Shapes computed in the graph, as torch's tracing exporter leaves them."""
    net = Net(6, 8)
    y = net.linear("x", 8, 8)
    sizes = net.add("Shape", y)
    batch, count = (net.add("Gather", sizes, net.const(i, np.int64)) for i in (0, 1))
    target = net.add("Concat", *(net.add("Unsqueeze", n, net.ints(0)) for n in (batch, count)), net.ints(2, 4), axis=0)
    y = net.add("Transpose", net.add("Reshape", net.add("Identity", y), target), perm=[0, 2, 1, 3])
    y = net.add("Reshape", y, net.add("Concat", net.add("Unsqueeze", batch, net.ints(0)), net.ints(12, 4), axis=0))
    return net, net.linear(y, 4, 3, bias=False)


@pattern("conv2d conv2d depthwise_conv2d mean reshape reshape reshape reshape transpose")
def channel_shuffle() -> tuple[Net, str]:
    """Channels of two groups interleaved: one transpose. Then a batch normalisation of rows."""
    net = Net(3, 6, 6)
    y = net.add("Reshape", net.conv("x", 3, 8, 1), net.ints(-1, 2, 4, 6, 6))
    y = net.add("Reshape", net.add("Transpose", y, perm=[0, 2, 1, 3, 4]), net.ints(-1, 8, 6, 6))
    y = net.add("ReduceMean", net.conv(y, 8, 4, 3, group=2), axes=[2, 3], keepdims=0)
    rows = [net.const(v) for v in ([0.5, -1.5, 0.3, 2.0], [0.1] * 4, [0.3, -0.3, 0.0, 0.1], [1.0, 2.0, 0.5, 0.1])]
    return net, net.add("BatchNormalization", y, *rows)


@pattern("add conv2d depthwise_conv2d linear max_pool2d reshape")
def offsets_behind_relu() -> tuple[Net, str]:
    """Offsets that must not enter the layer before: quantisers leave the ReLU between to the pair's lower limit."""
    net = Net(3, 8, 8)
    y = net.add("Relu", net.conv("x", 3, 6, 3))
    parameters = net.weight(6), net.weight(6), net.weight(6), net.const(0.5 + net.random.random(6))
    y = net.add("MaxPool", net.add("BatchNormalization", y, *parameters), kernel_shape=[3, 3], strides=[3, 3])
    y = net.add("Relu", net.linear(net.add("Flatten", y), 24, 16))
    return net, net.add("Add", y, net.weight(16))


@pattern("add lookup")
def function_behind_relu() -> tuple[Net, str]:
    """A function of a function, the ReLU between which quantisers leave to the pair's lower limit."""
    net = Net(6, 10)
    y = net.add("Sigmoid", net.add("Relu", net.add("LeakyRelu", "x", alpha=0.5)))
    return net, net.add("Add", y, net.weight(6, 10))


@pattern("conv2d conv2d conv2d linear max_pool2d reshape reshape reshape transpose")
def blocks_of_pixels() -> tuple[Net, str]:
    """Channels to pixels in both orders and back, then the largest of each channel."""
    net = Net(3, 4, 6)
    y = net.add("DepthToSpace", net.conv("x", 3, 12, 1), blocksize=2, mode="CRD")
    y = net.add("DepthToSpace", net.conv(y, 3, 8, 1), blocksize=2)
    y = net.conv(net.add("SpaceToDepth", y, blocksize=2), 8, 6, 1)
    return net, net.linear(net.add("ReduceMax", y, axes=[2, 3], keepdims=0), 6, 3)


@pattern("add add add conv2d mean mean reshape transpose transpose", "/reducemean_2_1")
def sums_and_differences() -> tuple[Net, str]:
    """Sub and Sum of activations; a mean over axes that are no neighbours, and a sum over others."""
    net = Net(4, 6, 5)
    y = net.add("Sub", "x", net.conv("x", 4, 4, 1))
    y = net.add("Sum", y, "x", net.add("ReduceMean", "x", axes=[1, 3], keepdims=1))
    return net, net.add("ReduceSum", y, net.ints(2, 3), keepdims=0)


@pattern("concat concat concat conv2d conv2d max_pool2d max_pool2d" + 5 * " reshape" + 2 * " transpose")
def upsampled() -> tuple[Net, str]:
    """A small U-Net: pooled, repeated, joined; the largest over some axes at its end."""
    net = Net(3, 6, 8)
    first = net.add("Relu", net.conv("x", 3, 4, 3, pads=[1, 1, 1, 1]))
    y = net.add("MaxPool", first, kernel_shape=[3, 2], strides=[3, 2])
    y = net.add("Resize", y, "", net.const([1, 1, 3, 2]), mode="nearest", coordinate_transformation_mode="half_pixel")
    y = net.conv(net.add("Concat", y, first, axis=1), 8, 5, 1)
    return net, net.add("ReduceMax", y, axes=[1, 3], keepdims=0)
