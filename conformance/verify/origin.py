"""Where one output byte comes from: its accumulator before requantisation, and the inputs that feed it.

Each operator's definition (docs/numerics.md) for a single element, in Python integers, which have no bound: an
accumulator that does not fit int32 shows here as what it should have been.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import singledispatch

from refsim.numerics import Int8Array, Multiplier, requantize
from refsim.ops.add import LEFT_SHIFT, Add
from refsim.ops.attention import Attention
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import Operator, Pooling
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.softmax import Softmax
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape
from refsim.windows import Window

LINES = 16
"""Inputs that are shown."""

Index = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """An input tensor of one sample: its name, and int8 of its shape."""

    name: str
    data: Int8Array

    def at(self, index: Iterable[int]) -> tuple[int, str]:
        """An element, and its name and place, such as "'image'[0, 3]"."""
        place = tuple(index)
        return int(self.data[place]), f"{self.name!r}{list(place)}"


@dataclass(frozen=True)
class Term:
    """What one input adds: how it comes about, and its value."""

    text: str
    value: int


@dataclass(frozen=True)
class Origin:
    """Of one output byte.

    Attributes:
        accumulator: before requantisation; None where the operator has none.
        terms: what feeds it, in the order of the definition; of an accumulator that is a sum, its summands.
    """

    accumulator: int | None
    terms: tuple[Term, ...]

    def lines(self) -> tuple[str, ...]:
        """The terms as text, largest first, those beyond `LINES` summed up."""
        ordered = sorted(self.terms, key=lambda term: -abs(term.value))
        shown = [term.text for term in ordered[:LINES]]
        rest = ordered[LINES:]
        if rest:
            is_sum = self.accumulator == sum(term.value for term in self.terms)
            shown.append(f"and {len(rest)} more" + (f", {sum(term.value for term in rest)} together" if is_sum else ""))
        return tuple(shown)


@singledispatch
def origin(op: Operator, inputs: Sequence[Source], element: Index) -> Origin:
    """Explain an element of an operator's output for one sample.

    Args:
        op: the operator; one that is not known here has no accumulator and no terms.
        inputs: what it reads.
        element: index in its output.
    """
    return Origin(None, ())


def _sum(terms: Iterable[Term]) -> Origin:
    kept = tuple(terms)
    return Origin(sum(term.value for term in kept), kept)


def _bias(value: int, channel: int) -> Term:
    return Term(f"bias[{channel}] = {value}", value)


def _product(x: int, place: str, zero_point: int, factor: int, factor_place: str) -> Term:
    value = (x - zero_point) * factor
    return Term(f"{place}: ({x} - {_signed(zero_point)}) * {factor_place} {_signed(factor)} = {value}", value)


def _difference(x: int, place: str, zero_point: int) -> Term:
    return Term(f"{place}: {x} - {_signed(zero_point)} = {x - zero_point}", x - zero_point)


def _plain(x: int, place: str) -> Term:
    return Term(f"{place} = {x}", x)


def _signed(value: int) -> str:
    return f"({value})" if value < 0 else str(value)


def _inside(window: Window, shape: Shape, row: int, column: int) -> Iterable[tuple[int, int, int, int]]:
    """(kernel row, kernel column, image row, image column) of the window's positions inside the image."""
    for kernel_row, kernel_column in itertools.product(*map(range, window.kernel)):
        y = row * window.stride[0] - window.padding[0] + kernel_row * window.dilation[0]
        x = column * window.stride[1] - window.padding[1] + kernel_column * window.dilation[1]
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            yield kernel_row, kernel_column, y, x


@origin.register
def _(op: Conv2D, inputs: Sequence[Source], element: Index) -> Origin:
    row, column, channel = element
    depth = op.weight.shape[3]
    first = channel // (op.weight.shape[0] // op.groups) * depth
    terms = [_bias(int(op.bias[channel]), channel)]
    for kh, kw, y, x in _inside(op.window, inputs[0].data.shape, row, column):
        for i in range(depth):
            weight = int(op.weight[channel, kh, kw, i])
            place = f"weight[{channel}, {kh}, {kw}, {i}]"
            terms.append(_product(*inputs[0].at((y, x, first + i)), op.input_zero_point, weight, place))
    return _sum(terms)


@origin.register
def _(op: DepthwiseConv2D, inputs: Sequence[Source], element: Index) -> Origin:
    row, column, channel = element
    shape = inputs[0].data.shape
    source = channel // (op.weight.shape[2] // shape[2])
    terms = [_bias(int(op.bias[channel]), channel)]
    for kh, kw, y, x in _inside(op.window, shape, row, column):
        weight = int(op.weight[kh, kw, channel])
        place = f"weight[{kh}, {kw}, {channel}]"
        terms.append(_product(*inputs[0].at((y, x, source)), op.input_zero_point, weight, place))
    return _sum(terms)


@origin.register
def _(op: Linear, inputs: Sequence[Source], element: Index) -> Origin:
    *row, channel = element
    return _sum(
        [
            _bias(int(op.bias[channel]), channel),
            *(
                _product(
                    *inputs[0].at((*row, i)), op.input_zero_point, int(op.weight[channel, i]), f"weight[{channel}, {i}]"
                )
                for i in range(op.weight.shape[1])
            ),
        ]
    )


@origin.register
def _(op: MatMul, inputs: Sequence[Source], element: Index) -> Origin:
    *batch, row, column = element
    a, b = inputs
    terms = []
    for k in range(a.data.shape[-1]):
        left, left_place = a.at((*batch, row, k))
        right, right_place = b.at((*batch, *((column, k) if op.transpose_b else (k, column))))
        value = (left - op.a_zero_point) * (right - op.b_zero_point)
        factors = (
            f"{left_place} ({left} - {_signed(op.a_zero_point)}) * {right_place} ({right} - {_signed(op.b_zero_point)})"
        )
        terms.append(Term(f"{factors} = {value}", value))
    return _sum(terms)


@origin.register
def _(op: Attention, inputs: Sequence[Source], element: Index) -> Origin:
    query, keys, values = inputs
    probabilities = op.softmax.run(op.scores.run(query.data[None], keys.data[None]))[0]
    return origin(op.context, (Source("probabilities", probabilities), values), element)


@origin.register
def _(op: Add, inputs: Sequence[Source], element: Index) -> Origin:
    def scaled(source: Source, zero_point: int, multiplier: Multiplier, sign: int = 1) -> Term:
        x, place = source.at(_broadcast(element, source.data.shape))
        value = sign * int(requantize((x - zero_point) << LEFT_SHIFT, *multiplier, int(op.output.rounding)))
        factor = sign * multiplier.multiplier * 2.0 ** (multiplier.shift - 31)
        return Term(f"{place}: ({x} - {_signed(zero_point)}) * 2^{LEFT_SHIFT} * {factor:.6g} = {value}", value)

    a, b = inputs
    sign = -1 if op.subtract else 1
    return _sum((scaled(a, op.a_zero_point, op.a_multiplier), scaled(b, op.b_zero_point, op.b_multiplier, sign)))


@origin.register
def _(op: Mul, inputs: Sequence[Source], element: Index) -> Origin:
    terms = tuple(
        _difference(*source.at(_broadcast(element, source.data.shape)), zero_point)
        for source, zero_point in zip(inputs, op.zero_points, strict=True)
    )
    return Origin(math.prod(term.value for term in terms), terms)


@origin.register
def _(op: Mean, inputs: Sequence[Source], element: Index) -> Origin:
    outer, inner = element[: op.first_axis], element[op.first_axis :]
    axes = inputs[0].data.shape[op.first_axis : op.last_axis + 1]
    return _sum(
        _difference(*inputs[0].at((*outer, *middle, *inner)), op.input_zero_point)
        for middle in itertools.product(*map(range, axes))
    )


@origin.register
def _(op: AveragePool2D, inputs: Sequence[Source], element: Index) -> Origin:
    return _sum(_pooled(op, inputs[0], element))


@origin.register
def _(op: Pooling, inputs: Sequence[Source], element: Index) -> Origin:
    return Origin(None, tuple(_pooled(op, inputs[0], element)))


def _pooled(op: Pooling, source: Source, element: Index) -> Iterable[Term]:
    row, column, channel = element
    for _, _, y, x in _inside(op.window, source.data.shape, row, column):
        yield _plain(*source.at((y, x, channel)))


@origin.register
def _(op: LayerNorm, inputs: Sequence[Source], element: Index) -> Origin:
    *row, channel = element
    values = [inputs[0].at((*row, i)) for i in range(op.gamma.size)]
    count, total = len(values), sum(x for x, _ in values)
    variance = count * sum(x * x for x, _ in values) - total * total + op.epsilon
    normalised = 0
    if variance:
        half_shift = (61 - (variance.bit_length() - 1)) >> 1
        root = math.isqrt(variance << 2 * half_shift if half_shift >= 0 else variance >> -2 * half_shift)
        t = 61 - op.scale_bits - half_shift
        deviation = count * values[channel][0] - total
        normalised = min(max((deviation * (2**61 // root) + (1 << (t - 1))) >> t, -(2**15)), 2**15 - 1)
    gamma, beta = int(op.gamma[channel]), int(op.beta[channel])
    scaled = Term(
        f"normalised {values[channel][1]}, {normalised}, * gamma[{channel}] {_signed(gamma)} = {normalised * gamma}",
        normalised * gamma,
    )
    shift = Term(f"beta[{channel}] = {beta}", beta)
    return Origin(scaled.value + beta, (scaled, shift, *(_plain(*value) for value in values)))


@origin.register
def _(op: Requantize, inputs: Sequence[Source], element: Index) -> Origin:
    return _sum([_difference(*inputs[0].at(element), op.input_zero_point)])


@origin.register
def _(op: Concat, inputs: Sequence[Source], element: Index) -> Origin:
    at = element[op.axis]
    for source, rescale in zip(inputs, op.rescale, strict=True):
        index = (*element[: op.axis], at, *element[op.axis + 1 :])
        if at < source.data.shape[op.axis]:
            return _copied(source, index) if rescale is None else origin(rescale, (source,), index)
        at -= source.data.shape[op.axis]
    raise IndexError(f"element {element} lies beyond the end of concat's output")


@origin.register
def _(op: Softmax, inputs: Sequence[Source], element: Index) -> Origin:
    (source,) = inputs
    return Origin(None, tuple(_plain(*source.at((*element[:-1], i))) for i in range(source.data.shape[-1])))


@origin.register
def _(op: Lookup, inputs: Sequence[Source], element: Index) -> Origin:
    x, place = inputs[0].at(element)
    return Origin(None, (Term(f"table[{place} + 128] = table[{x + 128}] = {op.table[x + 128]}", x),))


@origin.register
def _(op: Reshape, inputs: Sequence[Source], element: Index) -> Origin:
    at = 0
    for index, length in zip(element, op.shape, strict=True):
        at = at * length + index
    index_in: list[int] = []
    for length in reversed(inputs[0].data.shape):
        at, index = divmod(at, length)
        index_in.insert(0, index)
    return _copied(inputs[0], tuple(index_in))


@origin.register
def _(op: Transpose, inputs: Sequence[Source], element: Index) -> Origin:
    return _copied(inputs[0], tuple(element[op.permutation.index(axis)] for axis in range(len(element))))


@origin.register
def _(op: Slice, inputs: Sequence[Source], element: Index) -> Origin:
    steps = zip(op.starts, element, op.steps, strict=True)
    return _copied(inputs[0], tuple(start + index * step for start, index, step in steps))


@origin.register
def _(op: Pad, inputs: Sequence[Source], element: Index) -> Origin:
    index = tuple(at - before for at, before in zip(element, op.before, strict=True))
    if all(0 <= at < length for at, length in zip(index, inputs[0].data.shape, strict=True)):
        return _copied(inputs[0], index)
    return Origin(None, (Term(f"padding = {op.value}", op.value),))


def _copied(source: Source, index: Index) -> Origin:
    return Origin(None, (_plain(*source.at(index)),))


def _broadcast(element: Index, shape: Shape) -> Index:
    """The element of an input of that shape that an element of the broadcast output reads."""
    aligned = element[len(element) - len(shape) :]
    return tuple(0 if length == 1 else index for index, length in zip(aligned, shape, strict=True))
