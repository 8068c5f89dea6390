"""Random integer graphs of every operator, for relations between graphs and for whole models that nobody designed.

Small tensors of a few quantisations, so that operators find mates and passes find work: transposes and reshapes are
frequent, so are tensors that are read twice, constants, and attention whose parts have other readers.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.strategies.base import activation_ranges, block_masks, zero_points
from refsim import Graph, Node, Port, TensorType
from refsim.errors import QuantizationError
from refsim.numerics import Int8Array, Rounding
from refsim.ops import Operator, Requantization
from refsim.ops.add import Add
from refsim.ops.attention import Attention
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import Pooling
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

MOST_ELEMENTS = 1500
"""Of one tensor."""

_LONGEST_ROW = 300
"""Elements of a tensor that becomes the row of a layer."""

PROBABILITIES = TensorType((), 1 / 256, -128)
"""The quantisation that softmax writes."""


@st.composite
def graphs(draw: st.DrawFn, most_nodes: int = 14, permuted_ports: bool = True) -> Graph:
    """A graph of one or two inputs and one to three outputs, each of which hangs on an input.

    Args:
        draw: Hypothesis's.
        most_nodes: how many steps are drawn; a step may add none, or as many as three nodes.
        permuted_ports: inputs and outputs may have another layout than the model file's.
    """
    drawing = _Drawing(draw)
    for _ in range(draw(st.integers(1, most_nodes))):
        drawing.step()
    graph = drawing.graph()
    if not permuted_ports:
        return graph

    def permuted(port: Port) -> Port:
        axes = range(len(graph.tensors[port.tensor].shape))
        order = tuple(draw(st.permutations(axes))) if draw(st.booleans()) else ()
        return replace(port, permutation=order)

    return replace(graph, inputs=tuple(map(permuted, graph.inputs)), outputs=tuple(map(permuted, graph.outputs)))


def described(graph: Graph) -> str:
    """A graph's inputs, and its nodes with their shapes, in one line."""
    inputs = (f"{port.tensor} {graph.tensors[port.tensor].shape}" for port in graph.inputs)
    nodes = (f"{n.output} {graph.tensors[n.output].shape} of {' and '.join(n.inputs)}" for n in graph.nodes)
    return f"the graph of {', '.join((*inputs, *nodes))}"


_IMAGES = st.tuples(st.integers(3, 8), st.integers(3, 8), st.sampled_from((1, 3, 4, 8)))
_SHAPES = st.one_of(
    st.lists(st.sampled_from((1, 2, 3, 4)), min_size=1, max_size=4),
    *(_IMAGES, _IMAGES),
    st.tuples(st.integers(2, 12), st.sampled_from((4, 6, 8, 16))),
)
_PAIRS = st.sampled_from((1, 1, 2, 3))
_ONE_OR_TWO = st.sampled_from((1, 1, 2))


class _Drawing:
    """A graph that grows."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.tensors: dict[str, TensorType] = {}
        self.nodes: list[Node] = []
        self.constants: dict[str, Int8Array] = {}
        self.kinds = [TensorType((), 1 / 64, -3)]  # the first of the graph's quantisations is the most frequent
        for scale in draw(st.lists(st.sampled_from((1 / 32, 1 / 100, 1 / 256)), max_size=2)):
            self.kinds.append(TensorType((), float(np.float32(scale)), draw(zero_points())))
        names = [f"input{index}" for index in range(draw(st.sampled_from((1, 1, 2))))]
        self.inputs = tuple(
            self._tensor(name, tuple(draw(_SHAPES)), draw(st.sampled_from(self.kinds))) for name in names
        )
        self.pool = [self.transpose(name) if draw(st.booleans()) else name for name in self.inputs]

    def step(self) -> None:
        """Add one of the kinds of nodes below to what is there, where it fits."""
        kind = self.draw(st.sampled_from(_KINDS))
        made = kind(self, self.draw(st.sampled_from(self.pool)))
        if made is not None and self.tensors[made].size <= MOST_ELEMENTS:
            self.pool.append(made)

    def graph(self) -> Graph:
        read = {name for node in self.nodes for name in node.inputs}
        from_input = set(self.inputs)
        for node in self.nodes:
            if from_input & set(node.inputs):
                from_input.add(node.output)
        results = [name for name in self.pool if name in from_input and name not in self.inputs]
        if not results:
            table = Lookup(self.random.integers(-128, 128, 256).astype(np.int8))
            results = [self._add(table, self.inputs[0])]
        outputs = self.draw(st.lists(st.sampled_from(results), min_size=1, max_size=2, unique=True))
        outputs += [name for name in results[-1:] if name not in outputs]  # what was made last is seldom for nothing
        constants = {name: data for name, data in self.constants.items() if name in read}
        known = {*self.inputs, *constants, *(node.output for node in self.nodes)}
        return Graph(
            "random",
            tuple(Port(name, name) for name in self.inputs),
            tuple(Port(name, f"{name}_out") for name in outputs),
            {name: kind for name, kind in self.tensors.items() if name in known},
            tuple(self.nodes),
            constants,
        )

    # ---- what nodes are made of ----

    def _tensor(self, name: str, shape: Shape, kind: TensorType) -> str:
        self.tensors[name] = TensorType(shape, kind.scale, kind.zero_point)
        return name

    def _add(self, op: Operator, *inputs: str, like: TensorType | None = None) -> str:
        """Append a node; its output has the quantisation of `like`, else of the first input."""
        name = f"{op.name}{len(self.nodes)}"
        shape = op.output_shape(*(self.tensors[tensor].shape for tensor in inputs))
        self._tensor(name, shape, like or self.tensors[inputs[0]])
        self.nodes.append(Node(name, op, inputs, name))
        return name

    def _constant(self, shape: Shape, kind: TensorType) -> str:
        name = self._tensor(f"constant{len(self.constants)}", shape, kind)
        self.constants[name] = self.random.integers(-128, 128, shape).astype(np.int8)
        return name

    def _kind(self) -> TensorType:
        return self.draw(st.sampled_from((*self.kinds[:1] * 3, *self.kinds)))

    def _shape(self, tensor: str) -> Shape:
        return self.tensors[tensor].shape

    def _mates(self, fits: Callable[[Shape], bool]) -> list[str]:
        return [name for name in self.pool if fits(self._shape(name))]

    def _weight(self, *shape: int) -> Int8Array:
        weight = self.random.integers(-127, 128, shape).astype(np.int8)
        return weight * self.draw(block_masks(shape)) if self.draw(st.booleans()) else weight

    def _bias(self, channels: int) -> NDArray[np.int32]:
        return self.random.integers(-2000, 2000, channels).astype(np.int32)

    def _output(self, y: TensorType, real: float, channels: int = 1) -> Requantization:
        """A last step by about `real`, each channel's its own."""
        rounding = self.draw(st.sampled_from(Rounding))
        bounds = self.draw(activation_ranges(y.zero_point))
        return Requantization.from_real(self.random.uniform(0.5, 1.5, channels) * real, y.zero_point, *bounds, rounding)

    def _layer(self, y: TensorType, taps: int, channels: int) -> Requantization:
        return self._output(y, 1 / (75 * math.sqrt(taps)), channels)

    # ---- one or a few nodes each; None where nothing fits ----

    def transpose(self, x: str) -> str:
        return self._add(Transpose(tuple(self.draw(st.permutations(range(len(self._shape(x))))))), x)

    def reshape(self, x: str) -> str:
        shape = list(self._shape(x))
        if len(shape) > 1 and self.draw(st.booleans()):
            axis = self.draw(st.integers(0, len(shape) - 2))
            shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
        elif 0 < len(shape) < 5:
            axis = self.draw(st.integers(0, len(shape) - 1))
            factor = self.draw(st.sampled_from([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]))
            shape[axis : axis + 1] = [factor, shape[axis] // factor]
        return self._add(Reshape(tuple(shape)), x)

    def lookup(self, x: str) -> str:
        return self._add(Lookup(self.random.integers(-128, 128, 256).astype(np.int8)), x, like=self._kind())

    def requantize(self, x: str) -> str:
        source, y = self.tensors[x], self._kind()
        return self._add(Requantize(source.zero_point, self._output(y, source.scale / y.scale)), x, like=y)

    def add(self, x: str) -> str | None:
        a, other, y = self.tensors[x], self._operand(x), self._kind()
        rounding, subtract = self.draw(st.sampled_from(Rounding)), self.draw(st.booleans())
        bounds = self.draw(activation_ranges(y.zero_point))
        try:
            op = Add.from_types(a, self.tensors[other], y, *bounds, rounding, subtract)
        except QuantizationError:  # the scales are too far apart
            return None
        return self._add(op, x, other, like=y)

    def mul(self, x: str) -> str:
        other, y = self._operand(x), self._kind()
        a, b = self.tensors[x], self.tensors[other]
        op = Mul(a.zero_point, b.zero_point, self._output(y, a.scale * b.scale / y.scale))
        return self._add(op, x, other, like=y)

    def _operand(self, x: str) -> str:
        """What a tensor can be added to: one of the same shape, or a constant that repeats along some axes."""
        shape = self._shape(x)
        if self.draw(st.booleans()):
            return self.draw(st.sampled_from(self._mates(lambda other: other == shape)))
        thin = tuple(n if self.draw(st.booleans()) else 1 for n in shape)
        other = self._constant(thin, self._kind())
        return self.lookup(other) if self.draw(st.booleans()) else other

    def concat(self, x: str) -> str | None:
        shape = self._shape(x)
        if not shape:
            return None
        axis = self.draw(st.integers(0, len(shape) - 1))

        def fits(other: Shape) -> bool:
            return len(other) == len(shape) and all(
                a == b or i == axis for i, (a, b) in enumerate(zip(other, shape, strict=True))
            )

        other = self.draw(st.sampled_from([*self._mates(fits), self._constant(shape, self.tensors[x])]))
        y = self.draw(st.sampled_from((self.tensors[x], self._kind())))
        types, rounding = [self.tensors[x], self.tensors[other]], self.draw(st.sampled_from(Rounding))
        return self._add(Concat.from_types(axis, types, y, rounding), x, other, like=y)

    def pad(self, x: str) -> str:
        before, after = (tuple(self.draw(st.integers(0, 1)) for _ in self._shape(x)) for _ in range(2))
        return self._add(Pad(before, after, self.draw(zero_points())), x)

    def slice(self, x: str) -> str:
        shape = self._shape(x)
        starts = tuple(self.draw(st.integers(0, n - 1)) for n in shape)
        steps = tuple(self.draw(_ONE_OR_TWO) for _ in shape)
        sizes = tuple(-(-(n - start) // step) for n, start, step in zip(shape, starts, steps, strict=True))
        return self._add(Slice(starts, sizes, steps), x)

    def mean(self, x: str) -> str | None:
        shape = self._shape(x)
        if len(shape) < 2:
            return None
        first = self.draw(st.integers(0, len(shape) - 1))
        last = self.draw(st.integers(first, min(first + len(shape) - 2, len(shape) - 1)))
        y, source = self._kind(), self.tensors[x]
        real = source.scale / (math.prod(shape[first : last + 1]) * y.scale)
        return self._add(Mean(first, last, source.zero_point, self._output(y, real)), x, like=y)

    def linear(self, x: str) -> str | None:
        if not self._shape(x):
            return None
        depth, width, y = self._shape(x)[-1], self.draw(st.integers(1, 12)), self._kind()
        op = Linear(
            self._weight(width, depth),
            self._bias(width),
            self.tensors[x].zero_point,
            self._layer(y, depth, width),
        )
        return self._add(op, x, like=y)

    def softmax(self, x: str) -> str | None:
        if not self._shape(x):
            return None
        y = self._add(Softmax.from_scale(self.tensors[x].scale), x, like=PROBABILITIES)
        return self._rescaled(y) if self.draw(st.booleans()) else y

    def _rescaled(self, probabilities: str) -> str:
        y = self.kinds[0]
        return self._add(Requantize(-128, Requantization.from_real(0.25, y.zero_point)), probabilities, like=y)

    def layernorm(self, x: str) -> str | None:
        if not self._shape(x):
            return None
        width, y = self._shape(x)[-1], self._kind()
        gamma, beta = self.random.normal(1, 0.3, width), self.random.normal(0, 0.3, width)
        return self._add(LayerNorm.from_real(gamma, beta, 1e-5, self.tensors[x], y), x, like=y)

    def matmul(self, x: str) -> str | None:
        shape = self._shape(x)
        if len(shape) < 2:
            return None
        transposed = self.draw(st.booleans())

        def fits(other: Shape) -> bool:
            return (
                len(other) == len(shape) and other[:-2] == shape[:-2] and other[-1 if transposed else -2] == (shape[-1])
            )

        mates, y = self._mates(fits), self._kind()
        width = self.draw(st.integers(1, 6))
        new = (*shape[:-2], width, shape[-1]) if transposed else (*shape[:-2], shape[-1], width)
        other = self.draw(st.sampled_from(mates)) if mates else self._constant(new, self.kinds[0])
        zero_points = self.tensors[x].zero_point, self.tensors[other].zero_point
        return self._add(MatMul(*zero_points, self._layer(y, shape[-1], 1), transposed), x, other, like=y)

    def attention(self, x: str) -> str | None:
        """Fused or three operators, with another reader of the scores or the probabilities now and then."""
        shape = self._shape(x)
        keys = self._mates(lambda other: len(other) == len(shape) > 1 and other[:-2] == shape[:-2])
        keys = [k for k in keys if self._shape(k)[-1] == shape[-1]]
        if not keys:
            return None
        k = self.draw(st.sampled_from(keys))
        v = self.draw(st.sampled_from(self._mates(lambda other: other[:-1] == self._shape(k)[:-1])))
        between, y = self.kinds[0], self._kind()
        zero_points = [self.tensors[tensor].zero_point for tensor in (x, k, v)]
        score = MatMul(zero_points[0], zero_points[1], self._layer(between, shape[-1], 1), transpose_b=True)
        softmax = Softmax.from_scale(between.scale)
        context = MatMul(-128, zero_points[2], self._output(y, 1 / 256))
        kind = self.draw(st.sampled_from(("fused", "fused", "plain", "plain", "scores read", "probabilities read")))
        if kind == "fused":
            return self._add(Attention(score, softmax, context), x, k, v, like=y)
        scores = self._add(score, x, k, like=between)
        shares = self._add(softmax, scores, like=PROBABILITIES)
        if kind == "scores read":
            self.pool.append(scores)
        elif kind == "probabilities read":
            self.pool.append(self._rescaled(shares))
        return self._add(context, shares, v, like=y)

    def conv2d(self, x: str) -> str | None:
        if len(self._shape(x)) != 3:
            return None
        height, width, inputs = self._shape(x)
        kernel = min(self.draw(_PAIRS), height), min(self.draw(_PAIRS), width)
        groups = self.draw(st.sampled_from([n for n in (1, 1, 2) if inputs % n == 0]))
        outputs, y = groups * self.draw(st.integers(1, 6)), self._kind()
        op = Conv2D(
            self._weight(outputs, *kernel, inputs // groups),
            self._bias(outputs),
            self.tensors[x].zero_point,
            self._layer(y, math.prod(kernel) * inputs // groups, outputs),
            (self.draw(_ONE_OR_TWO), self.draw(_ONE_OR_TWO)),
            self._padding(),
            groups=groups,
        )
        return self._add(op, x, like=y)

    def depthwise_conv2d(self, x: str) -> str | None:
        if len(self._shape(x)) != 3:
            return None
        height, width, channels = self._shape(x)
        kernel, stride = (min(3, height), min(3, width)), self.draw(_ONE_OR_TWO)
        y, outputs = self._kind(), channels * self.draw(_ONE_OR_TWO)
        op = DepthwiseConv2D(
            self._weight(*kernel, outputs),
            self._bias(outputs),
            self.tensors[x].zero_point,
            self._layer(y, math.prod(kernel), outputs),
            (stride, stride),
            self._padding(),
        )
        return self._add(op, x, like=y)

    def _padding(self) -> tuple[int, int, int, int]:
        same = self.draw(st.sampled_from((0, 1)))
        return (same, same, same, same) if self.draw(st.booleans()) else (same, 0, 1, 0)

    def max_pool2d(self, x: str) -> str | None:
        return self._pooled(MaxPool2D, x)

    def average_pool2d(self, x: str) -> str | None:
        return self._pooled(AveragePool2D, x)

    def _pooled(self, operator: type[Pooling], x: str) -> str | None:
        if len(self._shape(x)) != 3:
            return None
        kernel = tuple(min(self.draw(_PAIRS), n) for n in self._shape(x)[:2])
        stride = (self.draw(_ONE_OR_TWO), self.draw(_ONE_OR_TWO))
        bounds = self.draw(activation_ranges(self.tensors[x].zero_point))
        return self._add(operator((kernel[0], kernel[1]), stride, (0, 0, 0, 0), *bounds), x)

    def known(self, x: str) -> str:
        """Something that hangs on constants alone."""
        return self.transpose(self._constant(self._shape(x), self.tensors[x]))

    def tables(self, x: str) -> str:
        """Maps of bytes, one after the other."""
        return self.lookup(self.requantize(x) if self.draw(st.booleans()) else self.lookup(x))

    def flattened(self, x: str) -> str | None:
        """A transposed tensor as the row of a layer."""
        size = self.tensors[x].size
        return self.linear(self._add(Reshape((size,)), self.transpose(x))) if size <= _LONGEST_ROW else None


_KINDS = (
    *(_Drawing.transpose, _Drawing.reshape) * 3,
    *(_Drawing.conv2d, _Drawing.linear, _Drawing.attention, _Drawing.add, _Drawing.concat) * 2,
    *(_Drawing.depthwise_conv2d, _Drawing.max_pool2d, _Drawing.average_pool2d) * 2,
    *(_Drawing.mean, _Drawing.matmul, _Drawing.mul),
    *(_Drawing.lookup, _Drawing.requantize, _Drawing.softmax, _Drawing.layernorm, _Drawing.pad, _Drawing.slice),
    *(_Drawing.known, _Drawing.tables, _Drawing.flattened),
)
