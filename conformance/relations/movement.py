"""Relations of operators that move bytes, and of batches."""

from collections.abc import Iterator
from random import Random

import numpy as np

from conformance.relations.base import Pair, relation
from conformance.relations.engine import Engine, GoldenModel
from conformance.relations.rows import shuffled
from conformance.strategies import Case
from refsim.ops import OPERATORS
from refsim.ops.concat import Concat
from refsim.ops.pad import Pad
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.transpose import Transpose


@relation(*OPERATORS)
def samples_one_by_one(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A batch gives what its samples give one by one (the golden model alone has batches)."""
    if isinstance(engine, GoldenModel):
        others = [np.frombuffer(random.randbytes(x.nbytes), np.int8).reshape(x.shape) for x in case.inputs]
        both = [np.concatenate(pair) for pair in zip(case.inputs, others, strict=True)]
        alone = [engine.run(case.op, *inputs) for inputs in (case.inputs, others)]
        yield np.concatenate(alone), engine.run(case.op, *both)


@relation("transpose")
def transposes_compose(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A transpose after a transpose is one transpose; after its inverse nothing has changed."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Transpose)
    y = engine.run(op, x)
    second = tuple(shuffled(x.ndim - 1, random))
    together = Transpose(tuple(op.permutation[axis] for axis in second))
    yield engine.run(together, x), engine.run(Transpose(second), y)
    yield x, engine.run(Transpose(tuple(int(axis) for axis in np.argsort(op.permutation))), y)


@relation("reshape")
def reshaped_back(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A reshape and one back change nothing."""
    (x,) = case.inputs
    yield x, engine.run(Reshape(x.shape[1:]), engine.run(case.op, x))


@relation("pad")
def padded_and_cut(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """What was padded can be cut off again; padding twice is padding once."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Pad)
    y = engine.run(op, x)
    yield x, engine.run(Slice(op.before, x.shape[1:], (1,) * (x.ndim - 1)), y)
    none = (0,) * len(op.before)
    yield y, engine.run(Pad(none, op.after, op.value), engine.run(Pad(op.before, none, op.value), x))


@relation("slice")
def slices_compose(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """A slice is one of the start and the size, then one of the step."""
    (x,), op = case.inputs, case.op
    assert isinstance(op, Slice)
    spans = tuple((size - 1) * step + 1 for size, step in zip(op.sizes, op.steps, strict=True))
    cut = engine.run(Slice(op.starts, spans, (1,) * len(spans)), x)
    yield engine.run(op, x), engine.run(Slice((0,) * len(spans), op.sizes, op.steps), cut)


@relation("slice", "reshape", "pad")
def concat_of_slices(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """What is cut in two and joined again is as it was."""
    x = case.inputs[0]
    axes = [axis for axis, length in enumerate(x.shape[1:]) if length > 1]
    if axes:
        axis = random.choice(axes)
        at = random.randrange(1, x.shape[axis + 1])
        halves = []
        for start, size in ((0, at), (at, x.shape[axis + 1] - at)):
            starts, sizes = [0] * (x.ndim - 1), list(x.shape[1:])
            starts[axis], sizes[axis] = start, size
            halves.append(engine.run(Slice(tuple(starts), tuple(sizes), (1,) * (x.ndim - 1)), x))
        yield x, engine.run(Concat(axis, (None, None)), *halves)


@relation("concat")
def slices_of_concat(case: Case, engine: Engine, random: Random) -> Iterator[Pair]:
    """Each part of what was joined is its input, requantised where the scales differ."""
    op, y = case.op, engine.run(case.op, *case.inputs)
    assert isinstance(op, Concat)
    start = 0
    for x, rescale in zip(case.inputs, op.rescale, strict=True):
        starts = [0] * (x.ndim - 1)
        starts[op.axis] = start
        start += x.shape[op.axis + 1]
        part = engine.run(Slice(tuple(starts), x.shape[1:], (1,) * (x.ndim - 1)), y)
        yield part, engine.run(rescale, x) if rescale else x
