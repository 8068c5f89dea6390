"""Relations of operators on single elements, and those of every operator that requantises."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from conformance.relations.base import Pair, relation
from conformance.relations.engine import Engine
from conformance.strategies import Case
from refsim.errors import QuantizationError
from refsim.numerics import Int8Array
from refsim.ops import OPERATORS
from refsim.ops.add import Add
from refsim.ops.base import Operator, Pooling, Requantization
from refsim.ops.concat import Concat
from refsim.ops.lookup import Lookup
from refsim.ops.mul import Mul
from refsim.ops.requantize import Requantize
from refsim.tensor import Shape

_ZERO_POINTS = {
    **dict.fromkeys(("linear", "conv2d", "depthwise_conv2d", "mean", "requantize"), ("input_zero_point",)),
    **dict.fromkeys(("matmul", "add", "mul"), ("a_zero_point", "b_zero_point")),
}
"""The field with the zero point of each input."""

_IDENTITY = (np.array([2**30], np.int32), np.array([1], np.int32))  # 2^30 * 2^(1 - 31) = 1


@relation(*OPERATORS)
def every_kernel(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Dense or sparse weights, every size of blocks, every height of tiles, in place or not: the same bytes."""
    first, *others = engine.every_kernel(case.op, *case.inputs)
    yield from ((first, other) for other in others)


@relation(*_ZERO_POINTS)
def shifted_zero_points(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """An input and its zero point, both shifted alike, change nothing."""
    y = engine.run(case.op, *case.inputs)
    for index, (x, field) in enumerate(zip(case.inputs, _ZERO_POINTS[case.op.name], strict=True)):
        zero_point = getattr(case.op, field)
        shift = random.randint(-128 - min(int(x.min()), zero_point), 127 - max(int(x.max()), zero_point))
        inputs = list(case.inputs)
        inputs[index] = (x + np.int16(shift)).astype(np.int8)
        try:
            shifted = replace(case.op, **{field: zero_point + shift})  # type: ignore[type-var]  # every operator is a dataclass
        except QuantizationError:  # an accumulator might overflow for other inputs
            continue
        if _accepts(shifted, case.shapes):
            yield y, engine.run(shifted, *inputs)


def _accepts(op: Operator, shapes: tuple[Shape, ...]) -> bool:
    try:
        op.output_shape(*shapes)
    except QuantizationError:
        return False
    return True


@relation(*_ZERO_POINTS, "layernorm")
def shifted_output(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """The output's zero point and range, both shifted alike, shift the output."""
    output = _output_of(case.op)
    shift = random.randint(-20, 20)
    low, high = max(output.act_min, -128 - shift), min(output.act_max, 127 - shift)
    if low > high or not -128 <= output.zero_point + shift <= 127:
        return

    def with_output(by: int) -> Operator:
        moved = replace(output, zero_point=output.zero_point + by, act_min=low + by, act_max=high + by)
        return _with_output(case.op, moved)

    try:
        there = with_output(shift)
    except QuantizationError:
        return
    if _accepts(there, case.shapes):
        yield engine.run(with_output(0), *case.inputs) + np.int8(shift), engine.run(there, *case.inputs)


@relation(*_ZERO_POINTS, "layernorm", "max_pool2d", "average_pool2d")
def clamped_afterwards(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A fused activation is the same operator without it, clamped."""
    y = engine.run(case.op, *case.inputs)
    if isinstance(case.op, Pooling):
        op: Operator = replace(case.op, act_min=-128, act_max=127)
        low, high = case.op.act_min, case.op.act_max
    else:
        output = _output_of(case.op)
        op = _with_output(case.op, replace(output, act_min=-128, act_max=127))
        low, high = output.act_min, output.act_max
    yield y, np.clip(engine.run(op, *case.inputs), low, high)


def _output_of(op: Operator) -> Requantization:
    output: Requantization = getattr(op, "output")  # noqa: B009 - not every operator has one
    return output


def _with_output(op: Operator, output: Requantization) -> Operator:
    changed: Operator = replace(op, output=output)  # type: ignore[type-var]  # every operator is a dataclass
    return changed


@relation("requantize")
def requantised_by_table(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Requantising is looking up in a table of what it gives for each byte."""
    (x,), op = case.inputs, case.op
    every = np.arange(-128, 128).astype(np.int8)[None]
    yield engine.run(op, x), engine.run(Lookup(engine.run(op, every)[0]), x)


@relation("requantize", "lookup")
def requantised_to_itself(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Requantising to the same scale and zero point changes nothing, with either rounding."""
    (x,) = case.inputs
    for rounding in type(Requantization.rounding):
        zero_point = random.randint(-128, 127)
        output = Requantization(*_IDENTITY, zero_point, rounding=rounding)
        yield x, engine.run(Requantize(zero_point, output), x)
        yield x, engine.run(Concat(0, (Requantize(zero_point, output),)), x.reshape(1, -1)).reshape(x.shape)


@relation("lookup")
def tables_compose(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A table after a table is one table."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Lookup)
    second = Lookup(np.frombuffer(random.randbytes(256), np.int8))
    merged = Lookup(second.table[op.table.astype(np.int64) + 128])
    yield engine.run(second, engine.run(op, x)), engine.run(merged, x)


@relation("add", "mul")
def inputs_exchanged(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Sums and products do not hang on the order of the inputs."""
    (a, b), op = case.inputs, case.op
    assert isinstance(op, Add | Mul)
    exchanged: dict[str, Any] = {"a_zero_point": op.b_zero_point, "b_zero_point": op.a_zero_point}
    if isinstance(op, Add):
        exchanged |= {"a_multiplier": op.b_multiplier, "b_multiplier": op.a_multiplier}
    other = replace(op, **exchanged)  # all at once: zero points with the other input's multiplier may be illegal
    if not (isinstance(op, Add) and op.subtract):
        yield engine.run(op, a, b), engine.run(other, b, a)


@relation("add", "mul")
def explicit_broadcast(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """An input that repeats may be written out."""
    y = engine.run(case.op, *case.inputs)
    yield y, engine.run(case.op, *(_repeated(x, y.shape[1:]) for x in case.inputs))


def _repeated(x: Int8Array, shape: Shape) -> Int8Array:
    return np.broadcast_to(x[0], shape)[None]


@relation("add", "mul", "lookup", "requantize")
def permuted_elements(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Elements in another order give their outputs in that order."""
    y = engine.run(case.op, *case.inputs)
    order = random.sample(range(y.size), y.size)
    shuffled = [_repeated(x, y.shape[1:]).reshape(1, -1)[:, order] for x in case.inputs]
    yield y.reshape(1, -1)[:, order], engine.run(case.op, *shuffled)
