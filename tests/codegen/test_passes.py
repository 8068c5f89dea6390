"""Every pass keeps every output byte, on random graphs full of transposes and reshapes; and removes what it should."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import refsim
from codegen.passes import (
    absorb_input_transposes,
    drop_identities,
    drop_unused,
    fold_constants,
    fuse_attention,
    merge_tables,
    optimize,
    permute_flattened_weights,
    sink_transposes,
)
from refsim import Graph, Port, TensorType
from refsim.numerics import Int8Array
from refsim.ops import Requantization
from refsim.ops.add import Add
from refsim.ops.concat import Concat
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
from tests.codegen.graphs import Builder, hybrid_graph

PASSES: dict[str, Callable[[Graph], Graph]] = {
    "absorb_input_transposes": absorb_input_transposes,
    "drop_identities": drop_identities,
    "drop_unused": drop_unused,
    "fold_constants": fold_constants,
    "fuse_attention": fuse_attention,
    "merge_tables": merge_tables,
    "optimize": optimize,
    "permute_flattened_weights": permute_flattened_weights,
    "sink, merging only": lambda graph: sink_transposes(graph, through=False),
    "sink": sink_transposes,
    "sink both ways": lambda graph: sink_transposes(graph, both_ways=True),
}


def run(graph: Graph, seed: int) -> dict[str, Int8Array]:
    """The output bytes in the file's layout, for input bytes that hang on the seed and the file's layout alone."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for port in graph.inputs:
        shape = port.file_shape(graph.tensors[port.tensor].shape)
        q = rng.integers(-128, 128, (2, *shape)).astype(np.int8)
        order = port.permutation or range(len(shape))
        inputs[port.tensor] = np.ascontiguousarray(q.transpose(0, *(axis + 1 for axis in order)))
    found = refsim.run(graph, inputs)
    outputs = {}
    for port in graph.outputs:
        order = port.permutation or tuple(range(found[port.tensor].ndim - 1))
        outputs[port.name] = found[port.tensor].transpose(0, *(order.index(axis) + 1 for axis in range(len(order))))
    return outputs


def assert_same(before: Graph, after: Graph) -> None:
    expected, found = run(before, 5), run(after, 5)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def scaled(shape: tuple[int, ...]) -> TensorType:
    return TensorType(shape, 1 / 64, -3)


class Drawing:
    """Adds random operators to a graph whose tensors all share one quantisation."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.b = Builder("random")
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.pool = [self.b.input("x", tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4))))]

    def pick(self) -> str:
        return self.draw(st.sampled_from(self.pool))

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.b.tensors[tensor].shape

    def constant(self, shape: tuple[int, ...]) -> str:
        name = f"c{len(self.b.constants)}"
        return self.b.constant(name, self.rng.integers(-128, 128, shape).astype(np.int8), 1 / 64, -3)

    def step(self, index: int) -> None:
        kinds = [
            "transpose",
            "transpose",
            "transpose",
            "reshape",
            "reshape",
            "unary",
            "binary",
            "concat",
            "part",
            "mean",
        ]
        kinds += ["rows", "product", "attention", "pooled", "known"]
        kind = self.draw(st.sampled_from(kinds))
        result = getattr(self, kind)(f"n{index}", self.pick())
        if result is not None:
            self.pool.append(result)

    def transpose(self, name: str, x: str) -> str:
        order = self.draw(st.permutations(range(len(self.shape(x)))))
        return self.b.add(name, Transpose(tuple(order)), x)

    def reshape(self, name: str, x: str) -> str:
        shape = list(self.shape(x))
        if len(shape) > 1 and self.draw(st.booleans()):
            axis = self.draw(st.integers(0, len(shape) - 2))
            shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
        elif len(shape) < 5:
            axis = self.draw(st.integers(0, len(shape) - 1))
            factor = self.draw(st.sampled_from([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]))
            shape[axis : axis + 1] = [factor, shape[axis] // factor]
        return self.b.add(name, Reshape(tuple(shape)), x)

    def unary(self, name: str, x: str) -> str:
        if self.draw(st.booleans()):
            return self.b.add(name, Lookup(self.rng.integers(-128, 128, 256).astype(np.int8)), x)
        real = self.draw(st.sampled_from([1.0, 0.7]))
        return self.b.add(name, Requantize(-3, Requantization.from_real(real, -3)), x)

    def binary(self, name: str, x: str) -> str:
        shape = self.shape(x)
        fitting = [other for other in self.pool if self.shape(other) == shape]
        thin = tuple(n if self.draw(st.booleans()) else 1 for n in shape)
        y = self.draw(st.sampled_from(fitting)) if self.draw(st.booleans()) else self.constant(thin)
        kind = scaled(shape)
        if self.draw(st.booleans()):
            return self.b.add(name, Add.from_types(kind, kind, kind), x, y)
        return self.b.add(name, Mul(-3, -3, Requantization.from_real(1 / 64, -3)), x, y)

    def concat(self, name: str, x: str) -> str:
        axis = self.draw(st.integers(0, len(self.shape(x)) - 1))
        fitting = [other for other in self.pool if self.shape(other) == self.shape(x)]
        y = self.draw(st.sampled_from([*fitting, self.constant(self.shape(x))]))
        return self.b.add(name, Concat(axis, (None, None)), x, y)

    def part(self, name: str, x: str) -> str:
        shape = self.shape(x)
        if self.draw(st.booleans()):
            before, after = (tuple(self.draw(st.integers(0, 1)) for _ in shape) for _ in range(2))
            return self.b.add(name, Pad(before, after, 9), x)
        starts = tuple(self.draw(st.integers(0, n - 1)) for n in shape)
        return self.b.add(
            name, Slice(starts, tuple(n - s for n, s in zip(shape, starts, strict=True)), (1,) * len(shape)), x
        )

    def mean(self, name: str, x: str) -> str | None:
        rank = len(self.shape(x))
        if rank < 2:
            return None
        first = self.draw(st.integers(0, rank - 1))
        last = self.draw(st.integers(first, min(first + rank - 2, rank - 1)))
        count = math.prod(self.shape(x)[first : last + 1])
        return self.b.add(name, Mean(first, last, -3, Requantization.from_real(1 / count, -3)), x)

    def rows(self, name: str, x: str) -> str:
        width = self.shape(x)[-1]
        if self.draw(st.booleans()):
            weight = self.rng.integers(-127, 128, (3, width)).astype(np.int8)
            return self.b.add(name, Linear(weight, np.zeros(3, np.int32), -3, Requantization.from_real(0.01, -3)), x)
        probabilities = self.b.add(f"{name}s", Softmax.from_scale(1 / 64), x, like=TensorType((), 1 / 256, -128))
        requantize = Requantize(-128, Requantization.from_real(0.25, -3))
        return self.b.add(name, requantize, probabilities, like=scaled(()))

    def product(self, name: str, x: str) -> str | None:
        shape = self.shape(x)
        fitting = [
            y for y in self.pool if len(shape) > 1 and self.shape(y)[:-2] == shape[:-2] and len(self.shape(y)) > 1
        ]
        output = Requantization.from_real(1 / 64, -3)
        for y in self.draw(st.permutations(fitting)) if fitting else []:
            for transposed in (False, True):
                if self.shape(y)[-1 if transposed else -2] == shape[-1]:
                    return self.b.add(name, MatMul(-3, -3, output, transposed), x, y)
        return None

    def attention(self, name: str, x: str) -> str | None:
        """As fused; now and then with another reader of the scores or the probabilities."""
        shape = self.shape(x)
        fitting = [y for y in self.pool if len(shape) > 1 and self.shape(y)[:-1] == shape[:-1]]
        keys = [y for y in fitting if self.shape(y)[-1] == shape[-1]]
        if not keys:
            return None
        output = Requantization.from_real(1 / 64, -3)
        key, value = self.draw(st.sampled_from(keys)), self.draw(st.sampled_from(fitting))
        scores = self.b.add(f"{name}s", MatMul(-3, -3, output, transpose_b=True), x, key)
        shares = self.b.add(f"{name}p", Softmax.from_scale(1 / 64), scores, like=TensorType((), 1 / 256, -128))
        kind = self.draw(st.sampled_from(["plain", "plain", "scores read", "probabilities read"]))
        if kind == "scores read":
            self.pool.append(scores)
        elif kind == "probabilities read":
            requantize = Requantize(-128, Requantization.from_real(0.25, -3))
            self.pool.append(self.b.add(f"{name}r", requantize, shares, like=scaled(())))
        return self.b.add(name, MatMul(-128, -3, Requantization.from_real(1 / 256, -3)), shares, value, like=scaled(()))

    def pooled(self, name: str, x: str) -> str | None:
        return self.b.add(name, MaxPool2D((1, 1)), x) if len(self.shape(x)) == 3 else None

    def known(self, name: str, x: str) -> str:
        return self.b.add(name, Transpose(tuple(range(len(self.shape(x))))[::-1]), self.constant(self.shape(x)))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    drawing = Drawing(draw)
    for index in range(draw(st.integers(1, 14))):
        drawing.step(index)
    outputs = draw(st.lists(st.sampled_from(drawing.pool[1:] or drawing.pool), min_size=1, max_size=3, unique=True))
    graph = drawing.b.graph(*outputs)

    def permuted(port: Port) -> Port:
        axes = range(len(graph.tensors[port.tensor].shape))
        return replace(port, permutation=draw(st.sampled_from([(), tuple(draw(st.permutations(axes)))])))

    return replace(graph, inputs=tuple(map(permuted, graph.inputs)), outputs=tuple(map(permuted, graph.outputs)))


@pytest.mark.parametrize("name", PASSES)
@given(graph=graphs())
@settings(max_examples=60)
@example(graph=hybrid_graph())
def test_pass_keeps_every_byte(name: str, graph: Graph) -> None:
    assert_same(graph, PASSES[name](graph))


def kinds(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def stem() -> Builder:
    b = Builder("stem")
    b.input("x", (3, 4, 4))
    b.add("last", Transpose((1, 2, 0)), "x")
    b.add("pool", MaxPool2D((2, 2), (2, 2)), "last")
    b.add("first", Transpose((2, 0, 1)), "pool")
    return b


def test_image_to_tokens_needs_no_transpose() -> None:
    b = stem()
    b.add("flat", Reshape((3, 4)), "first")
    b.add("tokens", Transpose((1, 0)), "flat")
    graph = b.graph("tokens")
    after = optimize(graph)
    assert kinds(after) == ["max_pool2d", "reshape"]
    assert after.inputs == (Port("x", "x", (1, 2, 0)),)
    assert_same(graph, after)


def test_output_takes_the_graph_layout() -> None:
    graph = stem().graph("first")
    after = optimize(graph)
    assert kinds(after) == ["max_pool2d"]
    assert after.outputs == (Port("pool", "first_out", (1, 2, 0)),)
    assert_same(graph, after)


def test_residual_of_two_images_stays_channels_last() -> None:
    b = stem()
    table = Lookup(np.arange(-128, 128, dtype=np.int8)[::-1].copy())
    b.add("again", MaxPool2D((1, 1)), b.add("back", Transpose((1, 2, 0)), b.add("table", table, "first")))
    b.add("second", Transpose((2, 0, 1)), "again")
    b.add("sum", Add.from_types(scaled(()), scaled(()), scaled(())), "first", "second")
    b.add(
        "shifted",
        Add.from_types(scaled(()), scaled(()), scaled(())),
        "sum",
        b.constant("c", np.ones((3, 1, 1), np.int8), 1 / 64, -3),
    )
    graph = b.graph("shifted")
    after = optimize(graph)
    assert sorted(kinds(after)) == ["add", "add", "lookup", "max_pool2d", "max_pool2d"]
    assert after.tensors[after.outputs[0].tensor].shape == (2, 2, 3)
    assert_same(graph, after)


def test_flattened_image_reorders_the_weights() -> None:
    b = stem()
    weight = np.arange(24, dtype=np.int8).reshape(2, 12)
    b.add("rows", Reshape((12,)), "first")
    b.add("out", Linear(weight, np.zeros(2, np.int32), -3, Requantization.from_real(0.01, -3)), "rows")
    graph = b.graph("out")
    after = optimize(graph)
    assert kinds(after) == ["max_pool2d", "reshape", "linear"]
    assert_same(graph, after)


def test_transposed_keys_become_transpose_b() -> None:
    b = Builder("keys")
    b.input("q", (2, 3, 4))
    b.input("k", (2, 5, 4))
    b.add("t", Transpose((0, 2, 1)), "k")
    b.add("scores", MatMul(-3, -3, Requantization.from_real(1 / 64, -3)), "q", "t")
    graph = b.graph("scores")
    after = optimize(graph)
    assert kinds(after) == ["matmul"]
    assert after.nodes[0].op.transpose_b
    assert_same(graph, after)


def test_tables_merge_into_one() -> None:
    b = Builder("tables")
    b.input("x", (5,))
    b.add("r", Requantize(-3, Requantization.from_real(0.7, -3)), "x")
    b.add("t", Lookup(np.arange(-128, 128, dtype=np.int8)[::-1].copy()), "r")
    b.add("same", Requantize(-3, Requantization.from_real(1.0, -3)), "t")
    graph = b.graph("same")
    after = optimize(graph)
    assert kinds(after) == ["lookup"]
    assert_same(graph, after)


def attention(*outputs: str) -> Graph:
    b = Builder("attention")
    q, k, v = (b.input(name, (2, 5, 4)) for name in "qkv")
    scores = b.add("scores", MatMul(-3, -3, Requantization.from_real(1 / 64, -3), transpose_b=True), q, k)
    shares = b.add("softmax", Softmax.from_scale(1 / 64), scores, like=TensorType((), 1 / 256, -128))
    b.add("context", MatMul(-128, -3, Requantization.from_real(1 / 256, -3)), shares, v, like=scaled(()))
    return b.graph(*outputs)


def test_attention_is_one_operator() -> None:
    graph = attention("context")
    after = fuse_attention(graph)
    assert [(node.name, node.op.name, node.inputs) for node in after.nodes] == [("context", "attention", (*"qkv",))]
    assert set(after.tensors) == {*"qkv", "context"}
    assert_same(graph, after)


@pytest.mark.parametrize("kept", ["scores", "softmax"])
def test_scores_that_someone_else_reads_stay(kept: str) -> None:
    graph = attention("context", kept)
    assert fuse_attention(graph).nodes == graph.nodes


def test_constants_are_computed_beforehand() -> None:
    b = Builder("constants")
    b.input("x", (2, 3))
    b.constant("c", np.arange(6, dtype=np.int8).reshape(3, 2), 1 / 64, -3)
    b.add("t", Transpose((1, 0)), "c")
    b.add("u", Lookup(np.arange(-128, 128, dtype=np.int8)[::-1].copy()), "t")
    b.add("sum", Add.from_types(scaled(()), scaled(()), scaled(())), "x", "u")
    b.add("unused", Reshape((6,)), "sum")
    graph = b.graph("sum")
    after = optimize(graph)
    assert kinds(after) == ["add"]
    assert set(after.tensors) == {"x", "u", "sum"}
    assert_same(graph, after)


def test_input_that_is_permuted_already_absorbs_a_transpose() -> None:
    b = Builder("port")
    b.input("x", (2, 3, 4))
    b.add("t", Transpose((1, 2, 0)), "x")
    b.add("rows", Softmax.from_scale(1 / 64), "t", like=TensorType((), 1 / 256, -128))
    graph = replace(b.graph("rows"), inputs=(Port("x", "x", (1, 0, 2)),))
    after = absorb_input_transposes(graph)
    assert kinds(after) == ["softmax"]
    assert after.inputs == (Port("x", "x", (0, 2, 1)),)
    assert_same(graph, after)
