"""What an image is run on: the user's samples, adversarial ones, and every operator's extreme inputs."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import refsim
from codegen.program import Program, Step
from refsim.graph import Graph
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from refsim.tensor import Shape

LOW, HIGH = -128, 127


@dataclass(frozen=True)
class Sample:
    """A sample and what the golden model makes of it.

    Attributes:
        name: its index and origin, such as "3 (random)".
        inputs: int8 of each input's shape, by tensor name.
        golden: the same of every tensor of the graph.
    """

    name: str
    inputs: Mapping[str, Int8Array]
    golden: Mapping[str, Int8Array]


@dataclass(frozen=True)
class Extreme:
    """Inputs for every operator by itself: each is given its own, whatever the ones before it computed.

    Attributes:
        name: such as "extreme: largest sums".
        patches: (offset in the arena, bytes) to put there as each step begins, by step.
        inputs: what each step reads, constants included.
        golden: what each step must write.
    """

    name: str
    patches: tuple[tuple[tuple[int, bytes], ...], ...]
    inputs: tuple[tuple[Int8Array, ...], ...]
    golden: tuple[Int8Array, ...]


def adversarial_inputs(graph: Graph, seed: int) -> Iterator[tuple[str, dict[str, Int8Array]]]:
    """Inputs that real data does not have: (what they are, int8 of each input's shape by tensor name)."""
    shapes = {port.tensor: graph.tensors[port.tensor].shape for port in graph.inputs}
    rng = np.random.default_rng(seed)
    yield "all -128", {name: _full(shape, LOW) for name, shape in shapes.items()}
    yield "all 127", {name: _full(shape, HIGH) for name, shape in shapes.items()}
    yield "alternating -128 and 127", {name: _alternating(shape) for name, shape in shapes.items()}
    yield (
        "saturated at random",
        {name: np.where(rng.integers(0, 2, shape) > 0, HIGH, LOW).astype(np.int8) for name, shape in shapes.items()},
    )
    yield "random", {name: _random(shape, rng) for name, shape in shapes.items()}


def samples(graph: Graph, real: Mapping[str, Int8Array], seed: int) -> tuple[Sample, ...]:
    """The user's samples and then the adversarial ones, with every tensor of the golden model.

    Args:
        graph: the model.
        real: int8 (N, *shape) by input tensor; N may be 0.
        seed: of what is random.
    """
    count = len(next(iter(real.values())))
    named = [(f"{i} (data)", {name: x[i] for name, x in real.items()}) for i in range(count)]
    named += [(f"{count + i} ({what})", x) for i, (what, x) in enumerate(adversarial_inputs(graph, seed))]
    batch = {name: np.stack([inputs[name] for _, inputs in named]) for name in real}
    tensors = refsim.run(graph, batch, trace=True)
    return tuple(
        Sample(name, inputs, {tensor: x[index] for tensor, x in tensors.items()})
        for index, (name, inputs) in enumerate(named)
    )


def extremes(program: Program, seed: int) -> tuple[Extreme, ...]:
    """Inputs that drive every operator to its extremes.

    Sums of products come as far up and down as the weights allow: where an input's weight is positive it is 127, else
    -128, and the reverse; each row or window of the input serves another channel.

    Args:
        program: that was generated.
        seed: of what is random.
    """
    rng = np.random.default_rng(seed)
    return tuple(_extreme(program, f"extreme: {name}", draw, rng) for name, draw in _DRAWS.items())


_Draw = Callable[[Operator, Sequence[Shape], np.random.Generator], list[Int8Array]]


def _extreme(program: Program, name: str, draw: _Draw, rng: np.random.Generator) -> Extreme:
    graph, offsets = program.graph, program.plan.tensor_offsets
    patches, inputs, golden = [], [], []
    for step, node in zip(program.steps, graph.nodes, strict=True):
        shapes = [graph.tensors[tensor].shape for tensor in step.inputs]
        drawn = zip(step.inputs, draw(node.op, shapes, rng), strict=True)
        given = {tensor: x for tensor, x in drawn if tensor not in graph.constants}
        arena = np.zeros(program.plan.arena_bytes, np.int8)  # inputs may share bytes: the last one has them
        for tensor, x in given.items():
            arena[offsets[tensor] : offsets[tensor] + x.size] = x.ravel()
        patches.append(tuple((offsets[tensor], x.tobytes()) for tensor, x in given.items()))
        inputs.append(tuple(_input(step, index, program, arena) for index in range(len(shapes))))
        golden.append(node.op.run(*(x[None] for x in inputs[-1]))[0])
    return Extreme(name, tuple(patches), tuple(inputs), tuple(golden))


def _input(step: Step, index: int, program: Program, arena: Int8Array) -> Int8Array:
    tensor = step.inputs[index]
    if tensor in program.graph.constants:
        return program.graph.constants[tensor]
    kind, at = program.graph.tensors[tensor], program.plan.tensor_offsets[tensor]
    return arena[at : at + kind.size].reshape(kind.shape)


def _full(shape: Shape, value: int) -> Int8Array:
    return np.full(shape, value, np.int8)


def _alternating(shape: Shape) -> Int8Array:
    return np.where(np.arange(np.prod(shape, dtype=np.int64)) % 2 > 0, HIGH, LOW).astype(np.int8).reshape(shape)


def _random(shape: Shape, rng: np.random.Generator) -> Int8Array:
    return rng.integers(LOW, HIGH + 1, shape).astype(np.int8)


def _lowest(op: Operator, shapes: Sequence[Shape], rng: np.random.Generator) -> list[Int8Array]:
    return [_full(shape, LOW) for shape in shapes]


def _highest(op: Operator, shapes: Sequence[Shape], rng: np.random.Generator) -> list[Int8Array]:
    return [_full(shape, HIGH) for shape in shapes]


def _opposite(op: Operator, shapes: Sequence[Shape], rng: np.random.Generator) -> list[Int8Array]:
    """The first input at one end, the others at the other; a single one alternates."""
    if len(shapes) == 1:
        return [_alternating(shapes[0])]
    return [_full(shape, HIGH if index else LOW) for index, shape in enumerate(shapes)]


def _largest_sums(op: Operator, shapes: Sequence[Shape], rng: np.random.Generator) -> list[Int8Array]:
    return [_aligned(op, shapes[0], rng, HIGH, LOW), *(_one_of_row(shape, HIGH, LOW) for shape in shapes[1:])]


def _least_sums(op: Operator, shapes: Sequence[Shape], rng: np.random.Generator) -> list[Int8Array]:
    return [_aligned(op, shapes[0], rng, LOW, HIGH), *(_one_of_row(shape, LOW, HIGH) for shape in shapes[1:])]


def _any(op: Operator, shapes: Sequence[Shape], rng: np.random.Generator) -> list[Int8Array]:
    return [_random(shape, rng) for shape in shapes]


_DRAWS: dict[str, _Draw] = {
    "all inputs -128": _lowest,
    "all inputs 127": _highest,
    "inputs at opposite ends": _opposite,
    "largest sums": _largest_sums,
    "least sums": _least_sums,
    "random inputs": _any,
}


def _aligned(op: Operator, shape: Shape, rng: np.random.Generator, positive: int, negative: int) -> Int8Array:
    """Input of an operator: `positive` where its weight is positive, else `negative`."""
    if isinstance(op, Linear):
        signs = np.where(op.weight > 0, positive, negative).astype(np.int8)
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        first = int(rng.integers(len(signs)))
        return signs[(first + np.arange(rows)) % len(signs)].reshape(shape)
    if isinstance(op, Conv2D | DepthwiseConv2D):
        x = _random(shape, rng)
        for number, (window_rows, window_columns) in enumerate(_windows(op, shape)):
            taps = _taps(op, number, shape[-1])
            inside_h = (window_rows >= 0) & (window_rows < shape[0])
            inside_w = (window_columns >= 0) & (window_columns < shape[1])
            signs = np.where(taps > 0, positive, negative).astype(np.int8)
            x[np.ix_(window_rows[inside_h], window_columns[inside_w])] = signs[np.ix_(inside_h, inside_w)]
        return x
    return _one_of_row(shape, positive, negative)


def _windows(op: Conv2D | DepthwiseConv2D, shape: Shape) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, columns) of the input that windows take, so far apart that none overlaps."""
    height, width = op.output_shape(shape)[:2]
    sizes = op.weight.shape[1:3] if isinstance(op, Conv2D) else op.weight.shape[:2]
    taps = [np.arange(size) * dilation for size, dilation in zip(sizes, op.dilation, strict=True)]
    steps = [-(-int(t[-1] + 1) // stride) for t, stride in zip(taps, op.stride, strict=True)]
    for oh, ow in itertools.product(range(0, height, steps[0]), range(0, width, steps[1])):
        yield oh * op.stride[0] - op.padding[0] + taps[0], ow * op.stride[1] - op.padding[1] + taps[1]


def _taps(op: Conv2D | DepthwiseConv2D, number: int, channels: int) -> Int8Array:
    """Weights (KH, KW, input channels) of one output channel of each group, another one for each window."""
    if isinstance(op, DepthwiseConv2D):
        multiplier = op.weight.shape[2] // channels
        return op.weight[:, :, number % multiplier :: multiplier]
    per_group = len(op.weight) // op.groups
    chosen = op.weight[number % per_group :: per_group]
    return np.concatenate(list(chosen), axis=-1)


def _one_of_row(shape: Shape, one: int, others: int) -> Int8Array:
    """Every row of the last axis has `one` once, each row at the next place, and else `others`."""
    x = _full(shape, others)
    rows = x.reshape(-1, shape[-1]) if shape else x.reshape(1, 1)
    rows[np.arange(len(rows)), np.arange(len(rows)) % rows.shape[1]] = one
    return x
