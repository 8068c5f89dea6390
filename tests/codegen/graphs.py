"""Integer graphs for tests: a builder, a small hybrid network with every kind of sharing, and random ones."""

import math

import numpy as np
from hypothesis import strategies as st

from refsim import Graph, Node, Port, TensorType
from refsim.numerics import Int8Array
from refsim.ops import Operator, Requantization
from refsim.ops.add import Add
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.softmax import Softmax
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape


class Builder:
    """Adds one node at a time; a tensor's name is that of the node that writes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, TensorType] = {}
        self.nodes: list[Node] = []
        self.constants: dict[str, Int8Array] = {}
        self.inputs: list[Port] = []

    def input(self, name: str, shape: Shape, scale: float = 1 / 64, zero_point: int = -3) -> str:
        self.tensors[name] = TensorType(shape, scale, zero_point)
        self.inputs.append(Port(name, name))
        return name

    def constant(self, name: str, data: Int8Array, scale: float = 1 / 128, zero_point: int = 0) -> str:
        self.tensors[name] = TensorType(data.shape, scale, zero_point)
        self.constants[name] = data
        return name

    def add(self, name: str, op: Operator, *inputs: str, like: TensorType | None = None) -> str:
        """Append a node; its output has the quantisation of `like`, else of the first input."""
        source = like or self.tensors[inputs[0]]
        shape = op.output_shape(*(self.tensors[t].shape for t in inputs))
        self.tensors[name] = TensorType(shape, source.scale, source.zero_point)
        self.nodes.append(Node(name, op, inputs, name))
        return name

    def graph(self, *outputs: str) -> Graph:
        ports = tuple(Port(t, f"{t}_out") for t in outputs)
        return Graph(self.name, tuple(self.inputs), ports, self.tensors, tuple(self.nodes), self.constants)


def hybrid_graph() -> Graph:
    """Every operator of the contract: convolutional stem, inverted residual, one encoder, a head; two outputs."""
    rng = np.random.default_rng(2)
    b = Builder("hybrid")
    relu = {"act_min": -8}

    def weight(*shape: int) -> Int8Array:
        return rng.integers(-127, 128, shape).astype(np.int8)

    def bias(channels: int) -> np.ndarray:
        return rng.integers(-2000, 2000, channels).astype(np.int32)

    def stage(channels: int, depth: int, zero_point: int, **activation: int) -> Requantization:
        return Requantization.from_real(
            rng.uniform(0.5, 1.5, channels) / (75 * math.sqrt(depth)), zero_point, **activation
        )

    def linear(name: str, source: str, width: int) -> str:
        depth, zero_point = b.tensors[source].shape[-1], b.tensors[source].zero_point
        op = Linear(weight(width, depth), bias(width), zero_point, stage(width, depth, 5))
        return b.add(name, op, source, like=TensorType((), 1 / 32, 5))

    def residual(name: str, a: str, c: str) -> str:
        y = TensorType((), 1 / 16, 1)
        return b.add(name, Add.from_types(b.tensors[a], b.tensors[c], y), a, c, like=y)

    image = b.input("image", (9, 8, 3))
    y = TensorType((), 1 / 32, -8)
    stem = b.add(
        "stem/Conv",
        Conv2D(weight(6, 3, 3, 3), bias(6), -3, stage(6, 27, -8, **relu), (1, 1), (1, 1, 1, 1)),
        image,
        like=y,
    )
    pooled = b.add("stem/MaxPool", MaxPool2D((3, 2), (2, 2), (1, 0, 1, 0)), stem)
    wide = b.add("block/expand", Conv2D(weight(12, 1, 1, 6), bias(12), -8, stage(12, 6, -8, **relu)), pooled, like=y)
    deep = b.add(
        "block/depthwise",
        DepthwiseConv2D(weight(3, 3, 12), bias(12), -8, stage(12, 9, -8, **relu), (1, 1), (1, 1, 1, 1)),
        wide,
        like=y,
    )
    narrow = TensorType((), 1 / 16, 4)
    grouped = b.add(
        "block/project", Conv2D(weight(6, 1, 1, 6), bias(6), -8, stage(6, 6, 4), groups=2), deep, like=narrow
    )
    block = residual("block/Add", pooled, grouped)
    padded = b.add("pad", Pad((0, 1, 0), (1, 1, 0), 1), block)
    averaged = b.add("AveragePool", AveragePool2D((2, 2), (1, 1)), padded)
    tokens = b.add("tokens", Reshape((math.prod(b.tensors[averaged].shape[:2]), 6)), averaged)
    count = b.tensors[tokens].shape[0]
    x = residual("position", tokens, b.constant("embedding", weight(count, 6)))
    normal = b.add(
        "encoder/LayerNorm",
        LayerNorm.from_real(
            rng.normal(1, 0.2, 6), rng.normal(0, 0.2, 6), 1e-5, b.tensors[x], TensorType((), 1 / 32, 2)
        ),
        x,
        like=TensorType((), 1 / 32, 2),
    )
    heads = []
    for name in ("query", "key", "value"):
        projected = linear(f"encoder/{name}", normal, 6)
        split = b.add(f"encoder/{name}/split", Reshape((count, 2, 3)), projected)
        heads.append(b.add(f"encoder/{name}/heads", Transpose((1, 0, 2)), split))
    query, key, value = heads
    scores = b.add(
        "encoder/scores",
        MatMul(5, 5, Requantization.from_real(0.02, 3), transpose_b=True),
        query,
        key,
        like=TensorType((), 1 / 16, 3),
    )
    attention = b.add(
        "encoder/Softmax", Softmax.from_scale(b.tensors[scores].scale), scores, like=TensorType((), 1 / 256, -128)
    )
    mixed = b.add(
        "encoder/mix",
        MatMul(-128, 5, Requantization.from_real(1 / 256, 5)),
        attention,
        value,
        like=TensorType((), 1 / 32, 5),
    )
    merged = b.add("encoder/merge/Transpose", Transpose((1, 0, 2)), mixed)
    flat = b.add("encoder/merge", Reshape((count, 6)), merged)
    x = residual("encoder/Add", x, linear("encoder/out", flat, 6))
    hidden = linear("encoder/fc1", x, 10)
    gelu = b.add(
        "encoder/gelu",
        Lookup.from_function(np.tanh, b.tensors[hidden], TensorType((), 1 / 64, -1)),
        hidden,
        like=TensorType((), 1 / 64, -1),
    )
    x = residual("encoder/Add2", x, linear("encoder/fc2", gelu, 6))
    gate = b.add(
        "gate",
        Mul(1, 5, Requantization.from_real(1 / 32, -7)),
        x,
        linear("gate/fc", x, 1),
        like=TensorType((), 1 / 16, -7),
    )
    rescaled = b.add("rescale", Requantize(-7, Requantization.from_real(0.9, 1)), gate, like=b.tensors[x])
    types = [b.tensors[t] for t in (x, rescaled, gate)]
    joined = b.add("join", Concat.from_types(1, types, types[0]), x, rescaled, gate)
    every = b.add("every", Slice((1, 2), (count // 2, 8), (2, 2)), joined)
    mean = b.add(
        "mean", Mean(0, 0, 1, Requantization.from_real(1.7 / (count // 2), -2)), every, like=TensorType((), 1 / 32, -2)
    )
    logits = linear("logits", mean, 10)
    return b.graph(logits, every)


def two_branches() -> Graph:
    """Two branches that are wide and then narrow; given with both wide parts first."""
    b = Builder("branches")
    x = b.input("x", (64,), 1 / 64, 0)
    wide = [b.add(f"wide{i}", Pad((i,), (960 - i,), 0), x) for i in range(2)]
    narrow = [b.add(f"narrow{i}", Slice((0,), (64,), (1,)), w) for i, w in enumerate(wide)]
    y = b.tensors[x]
    return b.graph(b.add("sum", Add.from_types(y, y, y), *narrow))


@st.composite
def random_graphs(draw: st.DrawFn) -> Graph:
    """A DAG of operators that work in place, share bytes, need scratch, or do none of it, with any pattern of reuse."""
    y = TensorType((), 1 / 256, -128)
    b = Builder("random")
    tensors = [
        b.input(f"input{i}", (draw(st.integers(1, 40)),), y.scale, y.zero_point) for i in range(draw(st.integers(1, 3)))
    ]
    if draw(st.booleans()):
        tensors.append(b.constant("constant", np.arange(12, dtype=np.int8), y.scale, y.zero_point))
    for i in range(draw(st.integers(1, 12))):
        source = draw(st.sampled_from(tensors))
        size = b.tensors[source].size
        mates = [t for t in tensors if b.tensors[t].size == size]
        kind = draw(st.sampled_from(["lookup", "reshape", "slice", "pad", "softmax", "add", "outer", "concat"]))
        inputs: tuple[str, ...] = (source,)
        op: Operator
        if kind == "lookup":
            op = Lookup(np.arange(-128, 128).astype(np.int8)[::-1].copy())
        elif kind == "reshape":
            op = Reshape((size,))
        elif kind == "slice":
            op = Slice((0,), (draw(st.integers(1, size)),), (1,))
        elif kind == "pad":
            op = Pad((draw(st.integers(0, 9)),), (0,), 0)
        elif kind == "softmax":
            op = Softmax.from_scale(y.scale)
        elif kind == "concat":
            inputs = (source, draw(st.sampled_from(tensors)))
            op = Concat(0, (None, None))
        else:
            ones = [t for t in tensors if b.tensors[t].size == 1] if kind == "outer" else []
            inputs = (source, draw(st.sampled_from(ones or mates)))
            inputs = inputs[::-1] if draw(st.booleans()) else inputs
            op = Add.from_types(y, y, y)
        tensors.append(b.add(f"node{i}", op, *inputs, like=y))
    computed = [t for t in tensors if t not in b.constants]
    outputs = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=3, unique=True))
    return b.graph(*outputs)
