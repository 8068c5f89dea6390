"""Rules for operators of the network that move bytes."""

import math
from dataclasses import replace

from codegen.onnx.building import (
    GraphBuilder,
    Rule,
    Value,
    aligned,
    channels_first,
    drop_axis,
    image,
    sample_axis,
    steps_of,
)
from codegen.onnx.network import Op
from refsim.errors import UnsupportedError
from refsim.ops.concat import Concat
from refsim.ops.pad import Pad
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.tensor import Shape


def _reshape(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    batch = _batch_after_reshape(low.shape(), value.batch, low.output_shape)
    target = drop_axis(low.output_shape, batch)
    tensor = value.tensor
    if low.tensors[tensor].shape != target:
        tensor = low.moved("", Reshape(target), tensor, target, op.output)
    low.settle(tensor, replace(value.type, shape=target), batch)


def _batch_after_reshape(before: Shape, batch: int | None, after: Shape) -> int | None:
    """Where the batch's axis of one goes: to an axis of one with as many elements before it, if there is one.

    Where it was lost, when windows of an image became a batch, say, a first axis of one is it again.
    """
    if batch is None:
        return 0 if after[:1] == (1,) else None
    ones = [axis for axis, n in enumerate(after) if n == 1 and math.prod(after[:axis]) == math.prod(before[:batch])]
    return min(ones, key=lambda axis: abs(axis - batch), default=None)


def _transpose(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    permutation = op.attributes["permutation"]
    batch = None if value.batch is None else permutation.index(value.batch)
    order = [sample_axis(axis, value.batch, "") for axis in permutation if axis != value.batch]
    tensor = low.transposed("", value.tensor, order, op.output) if order != sorted(order) else value.tensor
    low.settle(tensor, replace(value.type, shape=low.tensors[tensor].shape), batch)


def _slice(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    starts, sizes, steps = (drop_axis(op.attributes[key], value.batch) for key in ("starts", "sizes", "steps"))
    tensor = low.moved("", Slice(starts, sizes, steps), value.tensor, sizes, op.output)
    low.settle(tensor, replace(value.type, shape=sizes), value.batch)


def _concat(low: GraphBuilder, op: Op) -> None:
    tensors, kinds, batch = aligned(low, op)
    axis = sample_axis(op.attributes["axis"], batch, "Concat")
    y = low.output_type(drop_axis(low.output_shape, batch))
    tensor = low.emit("", Concat.from_types(axis, kinds, y), tensors, y, op.output)
    low.values[op.output] = Value(tensor, y, batch)


def _pad(low: GraphBuilder, op: Op) -> None:
    value = low.value()
    before, after = (op.attributes[key] for key in ("before", "after"))
    if value.batch is not None and (before[value.batch] or after[value.batch]):
        raise UnsupportedError("padding the batch axis is not supported")
    before, after = drop_axis(before, value.batch), drop_axis(after, value.batch)
    kind = value.type
    byte = op.attributes.get("byte")
    if byte is None:
        byte = min(127, max(-128, kind.zero_point + steps_of(op.attributes["value"], kind)))
    shape = tuple(b + n + a for b, n, a in zip(before, kind.shape, after, strict=True))
    tensor = low.moved("", Pad(before, after, byte), value.tensor, shape, op.output)
    low.settle(tensor, replace(kind, shape=shape), value.batch)


def _repeat(low: GraphBuilder, op: Op) -> None:
    """Each element of an image several times: copies side by side along a new axis, which joins the one before it."""
    tensor, rank = image(low)
    kind = low.value().type
    across = op.attributes["factors"][-1]
    down = op.attributes["factors"][0] if rank == 2 else 1
    for factor, axis in ((across, 1), (down, 0)):
        if factor == 1:
            continue
        shape = low.tensors[tensor].shape
        rows = (*shape[: axis + 1], 1, math.prod(shape[axis + 1 :]))
        copies = (*shape[: axis + 1], factor, math.prod(shape[axis + 1 :]))
        larger = (*shape[:axis], shape[axis] * factor, *shape[axis + 1 :])
        once = low.moved("once", Reshape(rows), tensor, rows, f"{tensor}/once")
        name, several = low.tensor_name(f"{tensor}/repeated"), replace(low.tensors[once], shape=copies)
        many = low.emit("repeated", Concat(axis + 1, (None,) * factor), [once] * factor, several, name)
        tensor = low.moved("larger", Reshape(larger), many, larger, f"{tensor}/larger")
    first = channels_first(low, tensor, rank)
    low.settle(first, replace(kind, shape=low.tensors[first].shape), 0)


MOVES: dict[str, Rule] = {
    "Concat": _concat,
    "Pad": _pad,
    "Repeat": _repeat,
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": _transpose,
}
"""By the network's kind."""
