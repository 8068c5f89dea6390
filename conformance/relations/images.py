"""Relations of operators on images: convolutions and pooling."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np

from conformance.relations.base import Pair, relation
from conformance.relations.engine import Engine
from conformance.relations.rows import channels, shuffled
from conformance.strategies import Case
from refsim.errors import ShapeError
from refsim.numerics import Int8Array
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import Operator, Pooling
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.pad import Pad
from refsim.ops.slice import Slice

Convolution = Conv2D | DepthwiseConv2D
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
POOLINGS = ("max_pool2d", "average_pool2d")


def _kernel_axes(op: Convolution) -> tuple[int, int]:
    """The weight's axes of kernel height and width."""
    return (1, 2) if isinstance(op, Conv2D) else (0, 1)


@relation(*CONVOLUTIONS, "max_pool2d")
def explicit_padding(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Padding is a pad before: of convolutions with the zero point, of max pooling with -128."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D | DepthwiseConv2D | MaxPool2D)
    top, left, bottom, right = op.padding
    value = -128 if isinstance(op, MaxPool2D) else op.input_zero_point
    padded = engine.run(Pad((top, left, 0), (bottom, right, 0), value), x)
    yield engine.run(op, x), engine.run(replace(op, padding=(0, 0, 0, 0)), padded)


@relation(*CONVOLUTIONS, "max_pool2d")
def explicit_stride(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A stride is a slice of what strides of 1 give."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D | DepthwiseConv2D | MaxPool2D)
    try:
        dense = engine.run(replace(op, stride=(1, 1)), x)
    except ShapeError:  # a window of pooling that strides leave out lies in the padding
        return
    y = engine.run(op, x)
    yield y, engine.run(Slice((0, 0, 0), y.shape[1:], (*op.stride, 1)), dense)


@relation(*CONVOLUTIONS)
def explicit_dilation(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A dilated kernel is one with zeros between its weights."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    if op.dilation == (1, 1):
        return
    weight = op.weight
    for axis, dilation in zip(_kernel_axes(op), op.dilation, strict=True):
        between = np.repeat(np.arange(1, weight.shape[axis]), dilation - 1)
        weight = np.insert(weight, between, 0, axis=axis)
    yield engine.run(op, x), engine.run(replace(op, weight=weight, dilation=(1, 1)), x)


@relation(*CONVOLUTIONS, *POOLINGS)
def mirrored_images(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A mirrored image under a mirrored kernel gives the mirrored output, where windows reach the image's end."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D | DepthwiseConv2D | Pooling)
    y = engine.run(op, x)
    for axis in (0, 1):
        padding = list(op.padding)
        span = op.window.dilation[axis] * (op.window.kernel[axis] - 1) + 1
        padded = x.shape[axis + 1] + padding[axis] + padding[axis + 2]
        padding[axis + 2] -= padded - ((y.shape[axis + 1] - 1) * op.stride[axis] + span)  # what no window meets
        padding[axis], padding[axis + 2] = padding[axis + 2], padding[axis]
        if padding[axis] >= 0:
            mirrored = _with_padding(op, padding)
            if not isinstance(mirrored, Pooling):
                flipped = np.ascontiguousarray(np.flip(mirrored.weight, _kernel_axes(mirrored)[axis]))
                mirrored = replace(mirrored, weight=flipped)
            yield np.flip(y, axis + 1), engine.run(mirrored, np.flip(x, axis + 1))


def _with_padding(op: Convolution | Pooling, padding: list[int]) -> Convolution | Pooling:
    top, left, bottom, right = padding
    return replace(op, padding=(top, left, bottom, right))


@relation(*CONVOLUTIONS, *POOLINGS)
def rows_for_columns(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Rows exchanged for columns, in image and window, exchange them in the output."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D | DepthwiseConv2D | Pooling)
    top, left, bottom, right = op.padding
    other = replace(op, stride=op.stride[::-1], padding=(left, top, right, bottom))
    if isinstance(other, Pooling):
        other = replace(other, kernel=other.kernel[::-1])
    else:
        weight = np.ascontiguousarray(other.weight.swapaxes(*_kernel_axes(other)))
        other = replace(other, weight=weight, dilation=other.dilation[::-1])
    yield engine.run(op, x).swapaxes(1, 2), engine.run(other, x.swapaxes(1, 2))


@relation(*POOLINGS)
def permuted_planes(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Channels in another order give their outputs in that order."""
    (x,) = case.inputs
    order = shuffled(x.shape[-1], random)
    yield engine.run(case.op, x)[..., order], engine.run(case.op, x[..., order])


@relation("conv2d")
def permuted_filters(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Input channels with their weights in another order change nothing; filters in another order move outputs."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D)
    if op.groups == 1:
        y = engine.run(op, x)
        order = shuffled(x.shape[-1], random)
        yield y, engine.run(replace(op, weight=np.ascontiguousarray(op.weight[..., order])), x[..., order])
        order = shuffled(len(op.weight), random)
        permuted = replace(op, weight=op.weight[order], bias=op.bias[order], output=channels(op.output, order))
        yield y[..., order], engine.run(permuted, x)


@relation("conv2d")
def groups_one_by_one(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Each group is a convolution of its own."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D)
    if op.groups > 1:
        group = random.randrange(op.groups)
        ins, outs = x.shape[-1] // op.groups, len(op.weight) // op.groups
        of_input, of_output = (slice(group * n, (group + 1) * n) for n in (ins, outs))
        alone = replace(
            op, weight=op.weight[of_output], bias=op.bias[of_output], output=channels(op.output, of_output), groups=1
        )
        yield engine.run(op, x)[..., of_output], engine.run(alone, x[..., of_input])


@relation("depthwise_conv2d")
def depthwise_in_groups(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A depthwise convolution is one in as many groups as there are channels."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, DepthwiseConv2D)
    weight = np.ascontiguousarray(np.moveaxis(op.weight, 2, 0)[..., None])
    grouped = Conv2D(
        weight, op.bias, op.input_zero_point, op.output, op.stride, op.padding, op.dilation, groups=x.shape[-1]
    )
    yield engine.run(op, x), engine.run(grouped, x)


@relation("conv2d")
def windows_as_rows(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A convolution is a linear layer on its windows, written out as rows."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Conv2D)
    if op.groups == 1:
        layer = Linear(op.weight.reshape(len(op.weight), -1), op.bias, op.input_zero_point, op.output)
        y = engine.run(op, x)
        yield y, engine.run(layer, _windows(op, x, y.shape[1:3])).reshape(y.shape)


def _windows(op: Conv2D, x: Int8Array, size: tuple[int, ...]) -> Int8Array:
    """The windows of a convolution, int8 (1, positions, taps)."""
    top, left, bottom, right = op.padding
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, pads, constant_values=op.input_zero_point)
    kernel, stride, dilation = op.window.kernel, op.stride, op.dilation
    taps = [
        padded[
            :,
            kh * dilation[0] :: stride[0],
            kw * dilation[1] :: stride[1],
        ][:, : size[0], : size[1]]
        for kh in range(kernel[0])
        for kw in range(kernel[1])
    ]
    return np.concatenate(taps, axis=-1).reshape(1, size[0] * size[1], -1)


@relation("max_pool2d")
def monotone_maxima(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """The largest of values on which a table does not fall is the table's value of the largest."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, MaxPool2D)
    free: Operator = replace(op, act_min=-128, act_max=127)
    table = Lookup(np.array(sorted(random.randint(-128, 127) for _ in range(256)), np.int8))
    yield engine.run(table, engine.run(free, x)), engine.run(free, engine.run(table, x))


@relation("average_pool2d")
def average_of_constants(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Windows of one value have that average, clamped."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, AveragePool2D)
    y = engine.run(op, np.full_like(x, x.flat[0]))
    yield np.full_like(y, min(max(int(x.flat[0]), op.act_min), op.act_max)), y


@relation("average_pool2d")
def negated_average(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Averages of negated values are negated: ties go away from zero on both sides."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, AveragePool2D)
    free, x = replace(op, act_min=-128, act_max=127), np.maximum(x, -127)
    yield -engine.run(free, x), engine.run(free, -x)
