"""Every operator of docs/numerics.md, section 3, element by element in Python's unbounded integers.

What is read of an operator are its parameters, and nothing that it computes: shapes, broadcasting, windows and
roundings are worked out here once more.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from typing import Any

from conformance.opinion.definitions import clamp, layernorm_row, nearest, requant, softmax_row
from conformance.opinion.primitives import DEFINITIONS

Index = tuple[int, ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """Integers in rows, the last axis fastest."""

    shape: Shape
    values: list[int]

    def at(self, *index: int) -> int:
        """The element at an index."""
        position = 0
        for i, n in zip(index, self.shape, strict=True):
            position = position * n + i
        return self.values[position]


def tensor(array: Any) -> Tensor:
    """A NumPy array of integers."""
    return Tensor(tuple(array.shape), array.ravel().tolist())


def indices(shape: Sequence[int]) -> Iterator[Index]:
    """Every index of a shape, in the order of its elements."""
    return product(*map(range, shape))


def fill(shape: Shape, element: Callable[..., int]) -> Tensor:
    """The tensor whose element at each index is `element(*index)`."""
    return Tensor(shape, [element(*index) for index in indices(shape)])


def finish(acc: int, last: Any, channel: int = 0) -> int:
    """clamp(requant(acc, M, s, rounding) + z_y, act_min, act_max)."""
    which = channel if len(last.multiplier) > 1 else 0
    scaled = requant(acc, int(last.multiplier[which]), int(last.shift[which]), int(last.rounding))
    return clamp(scaled + last.zero_point, last.act_min, last.act_max)


def broadcast(a: Tensor, b: Tensor, element: Callable[[int, int], int]) -> Tensor:
    """`element` of both tensors, shapes aligned at their last axes as in NumPy."""
    rank = max(len(a.shape), len(b.shape))
    left, right = ((1,) * (rank - len(t.shape)) + t.shape for t in (a, b))
    shape = tuple(n if m == 1 else m for m, n in zip(left, right, strict=True))

    def of(t: Tensor, aligned: Shape, index: Index) -> int:
        return Tensor(aligned, t.values).at(*(0 if n == 1 else i for i, n in zip(index, aligned, strict=True)))

    return fill(shape, lambda *index: element(of(a, left, index), of(b, right, index)))


def window_size(size: int, before: int, after: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Positions of a window over an axis."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def conv2d(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, conv2d."""
    height, width, _ = x.shape
    weight = tensor(op.weight)
    outputs, kernel_h, kernel_w, group_inputs = weight.shape
    top, left, bottom, right = op.padding

    def element(oh: int, ow: int, o: int) -> int:
        group = o // (outputs // op.groups)
        acc = int(op.bias[o])
        for kh, kw in indices((kernel_h, kernel_w)):
            row = oh * op.stride[0] - top + kh * op.dilation[0]
            column = ow * op.stride[1] - left + kw * op.dilation[1]
            if 0 <= row < height and 0 <= column < width:
                for i in range(group_inputs):
                    value = x.at(row, column, group * group_inputs + i)
                    acc += (value - op.input_zero_point) * weight.at(o, kh, kw, i)
        return finish(acc, op.output, o)

    shape = (
        window_size(height, top, bottom, kernel_h, op.stride[0], op.dilation[0]),
        window_size(width, left, right, kernel_w, op.stride[1], op.dilation[1]),
        outputs,
    )
    return fill(shape, element)


def depthwise_conv2d(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, depthwise_conv2d."""
    height, width, channels = x.shape
    weight = tensor(op.weight)
    kernel_h, kernel_w, outputs = weight.shape
    top, left, bottom, right = op.padding

    def element(oh: int, ow: int, o: int) -> int:
        acc = int(op.bias[o])
        for kh, kw in indices((kernel_h, kernel_w)):
            row = oh * op.stride[0] - top + kh * op.dilation[0]
            column = ow * op.stride[1] - left + kw * op.dilation[1]
            if 0 <= row < height and 0 <= column < width:
                value = x.at(row, column, o // (outputs // channels))
                acc += (value - op.input_zero_point) * weight.at(kh, kw, o)
        return finish(acc, op.output, o)

    shape = (
        window_size(height, top, bottom, kernel_h, op.stride[0], op.dilation[0]),
        window_size(width, left, right, kernel_w, op.stride[1], op.dilation[1]),
        outputs,
    )
    return fill(shape, element)


def linear(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, linear."""
    weight = tensor(op.weight)
    outputs, inputs = weight.shape

    def element(*index: int) -> int:
        *row, o = index
        acc = int(op.bias[o])
        for i in range(inputs):
            acc += (x.at(*row, i) - op.input_zero_point) * weight.at(o, i)
        return finish(acc, op.output, o)

    return fill((*x.shape[:-1], outputs), element)


def matmul(op: Any, a: Tensor, b: Tensor) -> Tensor:
    """See docs/numerics.md, matmul."""
    depth = a.shape[-1]
    columns = b.shape[-2] if op.transpose_b else b.shape[-1]

    @cache  # each serves many elements
    def row(leading: Index, i: int) -> list[int]:
        return [a.at(*leading, i, k) - op.a_zero_point for k in range(depth)]

    @cache
    def column(leading: Index, j: int) -> list[int]:
        places = ((j, k) if op.transpose_b else (k, j) for k in range(depth))
        return [b.at(*leading, *place) - op.b_zero_point for place in places]

    def element(*index: int) -> int:
        *leading, i, j = index
        terms = zip(row(tuple(leading), i), column(tuple(leading), j), strict=True)
        return finish(sum(x * y for x, y in terms), op.output)

    return fill((*a.shape[:-1], columns), element)


def add(op: Any, a: Tensor, b: Tensor) -> Tensor:
    """See docs/numerics.md, add."""
    rounding = int(op.output.rounding)
    (multiplier_a, shift_a), (multiplier_b, shift_b) = op.a_multiplier, op.b_multiplier

    def element(left: int, right: int) -> int:
        sa = requant((left - op.a_zero_point) << 20, multiplier_a, shift_a, rounding)
        sb = requant((right - op.b_zero_point) << 20, multiplier_b, shift_b, rounding)
        return finish(sa - sb if op.subtract else sa + sb, op.output)

    return broadcast(a, b, element)


def mul(op: Any, a: Tensor, b: Tensor) -> Tensor:
    """See docs/numerics.md, mul."""
    return broadcast(a, b, lambda x, y: finish((x - op.a_zero_point) * (y - op.b_zero_point), op.output))


def requantize(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, requantize."""
    return Tensor(x.shape, [finish(v - op.input_zero_point, op.output) for v in x.values])


def lookup(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, lookup."""
    table = op.table.tolist()
    return Tensor(x.shape, [table[v + 128] for v in x.values])


def _rows(x: Tensor, function: Callable[[list[int]], list[int]]) -> Tensor:
    n = x.shape[-1]
    rows = (x.values[start : start + n] for start in range(0, len(x.values), n))
    return Tensor(x.shape, [value for row in rows for value in function(row)])


def softmax(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, softmax; diff_min is worked out here."""
    diff_min = -(31 * 2**26 // 2**op.shift)
    return _rows(x, lambda row: softmax_row(row, op.multiplier, op.shift, diff_min))


def attention(op: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See docs/numerics.md, attention."""
    return matmul(op.context, softmax(op.softmax, matmul(op.scores, q, k)), v)


def layernorm(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, layernorm."""
    gamma, beta = op.gamma.tolist(), op.beta.tolist()

    def row_of(row: list[int]) -> list[int]:
        normalised = layernorm_row(row, op.scale_bits, op.epsilon)
        return [finish(h * g + b, op.output) for h, g, b in zip(normalised, gamma, beta, strict=True)]

    return _rows(x, row_of)


def _pool(op: Any, x: Tensor, reduce: Callable[[list[int]], int]) -> Tensor:
    height, width, channels = x.shape
    top, left, bottom, right = op.padding

    def element(oh: int, ow: int, c: int) -> int:
        inside = []
        for kh, kw in indices(op.kernel):
            row, column = oh * op.stride[0] - top + kh, ow * op.stride[1] - left + kw
            if 0 <= row < height and 0 <= column < width:
                inside.append(x.at(row, column, c))
        return clamp(reduce(inside), op.act_min, op.act_max)

    shape = (
        window_size(height, top, bottom, op.kernel[0], op.stride[0]),
        window_size(width, left, right, op.kernel[1], op.stride[1]),
        channels,
    )
    return fill(shape, element)


def max_pool2d(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, max_pool2d."""
    return _pool(op, x, max)


def average_pool2d(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, average_pool2d."""
    return _pool(op, x, lambda inside: nearest(sum(inside), len(inside)))


def mean(op: Any, x: Tensor) -> Tensor:
    """See docs/numerics.md, mean."""
    first, last = op.first_axis, op.last_axis + 1
    reduced = x.shape[first:last]

    def element(*index: int) -> int:
        total = 0
        for inner in indices(reduced):
            total += x.at(*index[:first], *inner, *index[first:]) - op.input_zero_point
        return finish(total, op.output)

    return fill(x.shape[:first] + x.shape[last:], element)


def reshape(op: Any, x: Tensor) -> Tensor:
    """The same elements in the same order."""
    assert prod(op.shape) == len(x.values)
    return Tensor(tuple(op.shape), x.values)


def transpose(op: Any, x: Tensor) -> Tensor:
    """Axis k of the output is axis permutation[k] of the input."""

    def element(*index: int) -> int:
        source = [0] * len(index)
        for axis, i in zip(op.permutation, index, strict=True):
            source[axis] = i
        return x.at(*source)

    return fill(tuple(x.shape[axis] for axis in op.permutation), element)


def slice_(op: Any, x: Tensor) -> Tensor:
    """Every `steps`-th element from `starts` on."""
    place = list(zip(op.starts, op.steps, strict=True))
    return fill(
        tuple(op.sizes),
        lambda *index: x.at(*(start + i * step for i, (start, step) in zip(index, place, strict=True))),
    )


def pad(op: Any, x: Tensor) -> Tensor:
    """A constant byte around the input."""

    def element(*index: int) -> int:
        source = [i - before for i, before in zip(index, op.before, strict=True)]
        inside = all(0 <= i < n for i, n in zip(source, x.shape, strict=True))
        return x.at(*source) if inside else int(op.value)

    return fill(tuple(b + n + a for b, n, a in zip(op.before, x.shape, op.after, strict=True)), element)


def concat(op: Any, *inputs: Tensor) -> Tensor:
    """The inputs one after the other along an axis, those with another quantisation requantised."""
    parts = [x if last is None else requantize(last, x) for x, last in zip(inputs, op.rescale, strict=True)]
    axis: int = op.axis
    owners = [(part, i) for part in parts for i in range(part.shape[axis])]

    def element(*index: int) -> int:
        part, i = owners[index[axis]]
        return part.at(*index[:axis], i, *index[axis + 1 :])

    first = parts[0].shape
    return fill((*first[:axis], len(owners), *first[axis + 1 :]), element)


def primitives(op: Any, x: Tensor) -> Tensor:
    """Words, the lowest byte first, to a word for each row; see `conformance.opinion.primitives`."""
    rows, size = x.shape
    words = struct.iter_unpack(f"<{size // 4}i", bytes(value % 256 for value in x.values))
    results = (DEFINITIONS[op.function](*row) % 2**32 for row in words)
    return Tensor((rows, 4), list(struct.unpack(f"{4 * rows}b", struct.pack(f"<{rows}I", *results))))


OPERATORS: dict[str, Callable[..., Tensor]] = {
    function.__name__.rstrip("_"): function
    for function in (
        *(add, attention, average_pool2d, concat, conv2d, depthwise_conv2d, layernorm, linear, lookup, matmul),
        *(max_pool2d, mean, mul, pad, primitives, requantize, reshape, slice_, softmax, transpose),
    )
}
"""Operator name, or "primitives" -> its definition: operator and inputs, without the batch axis, to the output."""
