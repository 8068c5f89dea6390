"""Relations of operators on rows: linear, normalisation, softmax, matrix products, attention."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np

from conformance.relations.base import Pair, relation
from conformance.relations.engine import Engine
from conformance.strategies import Case
from refsim.numerics import Int8Array
from refsim.ops.attention import Attention
from refsim.ops.base import Requantization
from refsim.ops.conv2d import Conv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.matmul import MatMul
from refsim.ops.mean import Mean

ROW_WISE = ("linear", "layernorm", "softmax")


def shuffled(length: int, random: Random) -> list[int]:
    """A random order."""
    return random.sample(range(length), length)


def channels(output: Requantization, chosen: list[int] | slice) -> Requantization:
    """The last step of some of the channels."""
    if output.multiplier.size == 1:
        return output
    return replace(output, multiplier=output.multiplier[chosen], shift=output.shift[chosen])


@relation(*ROW_WISE)
def permuted_tokens(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Rows in another order give their outputs in that order."""
    (x,) = case.inputs
    if x.ndim > 2:
        order = shuffled(x.shape[-2], random)
        yield engine.run(case.op, x)[..., order, :], engine.run(case.op, x[..., order, :])


@relation(*ROW_WISE)
def rows_in_parts(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Rows in two parts give what all together do."""
    (x,) = case.inputs
    if x.ndim > 2 and x.shape[-2] > 1:
        at = random.randrange(1, x.shape[-2])
        parts = (engine.run(case.op, part) for part in (x[..., :at, :], x[..., at:, :]))
        yield engine.run(case.op, x), np.concatenate(list(parts), axis=-2)


@relation("softmax")
def permuted_scores(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Softmax of permuted elements is softmax, permuted."""
    (x,) = case.inputs
    order = shuffled(x.shape[-1], random)
    yield engine.run(case.op, x)[..., order], engine.run(case.op, x[..., order])


@relation("softmax", "layernorm")
def shifted_rows(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A constant added to a whole row changes nothing."""
    (x,) = case.inputs
    low, high = -128 - int(x.min()), 127 - int(x.max())
    yield engine.run(case.op, x), engine.run(case.op, (x + np.int16(random.randint(low, high))).astype(np.int8))


@relation("layernorm")
def permuted_features(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Elements, gamma and beta in another order give the output in that order."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, LayerNorm)
    order = shuffled(x.shape[-1], random)
    permuted = replace(op, gamma=op.gamma[order], beta=op.beta[order])
    yield engine.run(op, x)[..., order], engine.run(permuted, x[..., order])


@relation("linear")
def permuted_weights(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Inputs and weights in another order change nothing; output channels in another order give outputs in it."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Linear)
    y = engine.run(op, x)
    order = shuffled(x.shape[-1], random)
    yield y, engine.run(replace(op, weight=np.ascontiguousarray(op.weight[:, order])), x[..., order])
    order = shuffled(len(op.weight), random)
    permuted = replace(op, weight=op.weight[order], bias=op.bias[order], output=channels(op.output, order))
    yield y[..., order], engine.run(permuted, x)


@relation("linear")
def channels_in_parts(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Output channels in two layers give what one layer does."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Linear)
    if len(op.weight) > 1:
        at = random.randrange(1, len(op.weight))
        halves = [
            replace(op, weight=op.weight[part], bias=op.bias[part], output=channels(op.output, part))
            for part in (slice(at), slice(at, None))
        ]
        yield engine.run(op, x), np.concatenate([engine.run(half, x) for half in halves], axis=-1)


@relation("linear")
def weights_of_zero(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Inputs whose weights are zero change nothing, whatever they are."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Linear)
    more, at = random.choice((1, 3, 4, 70)), random.randint(0, x.shape[-1])
    weight = np.insert(op.weight, [at] * more, 0, axis=1)
    noise = np.frombuffer(random.randbytes(x.size // x.shape[-1] * more), np.int8).reshape(*x.shape[:-1], more)
    wide = np.concatenate([x[..., :at], noise, x[..., at:]], axis=-1)
    yield engine.run(op, x), engine.run(replace(op, weight=weight), wide)


@relation("linear")
def linear_as_convolution(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A linear layer is a convolution of single positions."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Linear)
    convolution = Conv2D(op.weight[:, None, None, :], op.bias, op.input_zero_point, op.output)
    y = engine.run(convolution, x.reshape(1, -1, 1, x.shape[-1]))
    yield engine.run(op, x), y.reshape(*x.shape[:-1], -1)


@relation("matmul")
def products_transposed(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A second factor laid out the other way gives the same."""
    (a, b), op = case.inputs, case.op
    assert isinstance(op, MatMul)
    yield engine.run(op, a, b), engine.run(replace(op, transpose_b=not op.transpose_b), a, b.swapaxes(-1, -2))


@relation("matmul")
def products_permuted(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Rows, columns and terms of a product may come in any order."""
    (a, b), op = case.inputs, case.op
    assert isinstance(op, MatMul)
    b = b if not op.transpose_b else b.swapaxes(-1, -2)
    op = replace(op, transpose_b=False)
    rows, terms, columns = (shuffled(n, random) for n in (a.shape[-2], *b.shape[-2:]))
    y = engine.run(op, a, b)
    permuted = engine.run(op, a[..., rows, :][..., terms], b[..., terms, :][..., columns])
    yield y[..., rows, :][..., columns], permuted


@relation("matmul")
def products_one_by_one(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Each row, alone, gives its row of the product; each matrix of a stack its own product."""
    (a, b), op = case.inputs, case.op
    assert isinstance(op, MatMul)
    y, row = engine.run(op, a, b), random.randrange(a.shape[-2])
    yield y[..., row : row + 1, :], engine.run(op, a[..., row : row + 1, :], b)
    if a.ndim > 3:
        at = random.randrange(a.shape[1])
        yield y[:, at], engine.run(op, a[:, at], b[:, at])


@relation("matmul")
def product_as_layer(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A product by a constant matrix, whose zero point is 0, is a linear layer without bias."""
    (a, b), op = case.inputs, case.op
    assert isinstance(op, MatMul)
    if op.b_zero_point == 0 and b.ndim == 3:
        weight = np.ascontiguousarray(b[0] if op.transpose_b else b[0].T)
        layer = Linear(weight, np.zeros(len(weight), np.int32), op.a_zero_point, op.output)
        yield engine.run(op, a, b), engine.run(layer, a)


@relation("attention")
def attention_in_three(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Fused attention is matmul, softmax, matmul."""
    (q, k, v), op = case.inputs, case.op
    assert isinstance(op, Attention)
    shares = engine.run(op.softmax, engine.run(op.scores, q, k))
    yield engine.run(op, q, k, v), engine.run(op.context, shares, v)


@relation("attention")
def permuted_attention(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Queries in another order give outputs in that order; keys with their values in another order change nothing."""
    (q, k, v), op = case.inputs, case.op
    assert isinstance(op, Attention)
    y = engine.run(op, q, k, v)
    order = shuffled(q.shape[-2], random)
    yield y[..., order, :], engine.run(op, q[..., order, :], k, v)
    axis = -2 if op.scores.transpose_b else -1
    order = shuffled(k.shape[axis], random)
    shuffled_values = np.take(v, order, axis=-1 if op.context.transpose_b else -2)
    yield y, engine.run(op, q, np.take(k, order, axis=axis), shuffled_values)


@relation("attention")
def heads_one_by_one(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Each head, alone, gives its part of the output."""
    if case.inputs[0].ndim > 3:
        at = random.randrange(case.inputs[0].shape[1])
        yield engine.run(case.op, *case.inputs)[:, at], engine.run(case.op, *(x[:, at] for x in case.inputs))


@relation("mean")
def mean_as_layer(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A mean is a linear layer whose weights are all 1."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Mean)
    if 0 < int(op.output.multiplier[0]) < 2**30:  # which a mean alone takes
        return
    taken = list(range(op.first_axis + 1, op.last_axis + 2))
    rows = np.moveaxis(x, taken, list(range(x.ndim - len(taken), x.ndim)))
    rows = rows.reshape(1, -1, int(np.prod([x.shape[axis] for axis in taken])))
    layer = Linear(np.ones((1, rows.shape[-1]), np.int8), np.zeros(1, np.int32), op.input_zero_point, op.output)
    y = engine.run(op, x)
    yield y, engine.run(layer, rows).reshape(y.shape)


@relation("mean")
def permuted_mean(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """The elements of a mean may come in any order."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Mean)
    axis = random.randint(op.first_axis, op.last_axis) + 1
    yield engine.run(op, x), engine.run(op, _taken(x, shuffled(x.shape[axis], random), axis))


def _taken(x: Int8Array, order: list[int], axis: int) -> Int8Array:
    return np.take(x, order, axis=axis)
