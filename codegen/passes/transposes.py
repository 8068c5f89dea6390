"""Move transposes towards the outputs, where they meet others and cancel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from codegen.passes.unused import drop_unused
from refsim import Graph, Node, Port, TensorType
from refsim.numerics import Int8Array
from refsim.ops import Operator
from refsim.ops.add import Add
from refsim.ops.concat import Concat
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

Permutation = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """A tensor of the old graph: axis i is axis permutation[i] of `base`, a tensor of the new one."""

    base: str
    permutation: Permutation


def sink_transposes(graph: Graph, *, through: bool = True, both_ways: bool = False) -> Graph:
    """Carry transposes along as views of their inputs, and write one only where an operator needs its result.

    Args:
        graph: the graph.
        through: let operators work on the untransposed tensor where they can, and transpose what they write instead;
            without it transposes merge and cancel only where they meet.
        both_ways: where an element-wise operator or concat reads tensors in different layouts, bring them to the layout
            that is not the file's.

    Returns:
        An equal graph. Whether it moves fewer bytes than the old one is the caller's to compare (`optimize`).
    """
    return _Sinking(graph, through, both_ways).run()


class _Sinking:
    def __init__(self, graph: Graph, through: bool, both_ways: bool) -> None:
        self.graph = graph
        self.through = through
        self.both_ways = both_ways
        self.tensors: dict[str, TensorType] = {}
        self.constants: dict[str, Int8Array] = {}
        self.nodes: list[Node] = []
        self.views: dict[str, View] = {}
        self.written: dict[View, str] = {}
        self.names = {node.name for node in graph.nodes}

    def run(self) -> Graph:
        for port in self.graph.inputs:
            self._enter(port.tensor)
        for name, data in self.graph.constants.items():
            self._enter(name)
            self.constants[name] = data
        for node in self.graph.nodes:
            if isinstance(node.op, Transpose):
                view = self.views[node.inputs[0]]
                self.views[node.output] = View(view.base, tuple(view.permutation[axis] for axis in node.op.permutation))
                continue
            moved = self._through(node) if self.through else None
            if moved is None:
                self._write(node)
            else:
                operator, inputs, permutation = moved
                kind = self.graph.tensors[node.output]
                shape = [0] * len(permutation)
                for axis, source in enumerate(permutation):
                    shape[source] = kind.shape[axis]
                self.tensors[node.output] = replace(kind, shape=tuple(shape))
                self.nodes.append(Node(node.name, operator, tuple(inputs), node.output))
                self.views[node.output] = View(node.output, permutation)
        outputs = tuple(self._output(port) for port in self.graph.outputs)
        return drop_unused(
            Graph(self.graph.name, self.graph.inputs, outputs, self.tensors, tuple(self.nodes), self.constants)
        )

    def _enter(self, name: str) -> None:
        self.tensors[name] = self.graph.tensors[name]
        self.views[name] = View(name, _identity(len(self.graph.tensors[name].shape)))

    def _write(self, node: Node) -> None:
        """The node as it was, on tensors in the layout that they had."""
        operator, inputs = node.op, [self.views[name] for name in node.inputs]
        if isinstance(operator, MatMul):
            operator, inputs[1] = _transpose_operand(operator, inputs[1])
        names = [self._materialise(view, name) for view, name in zip(inputs, node.inputs, strict=True)]
        self.tensors[node.output] = self.graph.tensors[node.output]
        self.nodes.append(Node(node.name, operator, tuple(names), node.output))
        self.views[node.output] = View(node.output, _identity(len(self.graph.tensors[node.output].shape)))

    def _materialise(self, view: View, wanted: str) -> str:
        """A tensor of the new graph with the view's layout; named as `wanted` if a transpose wrote that."""
        if view.permutation == _identity(len(view.permutation)):
            return view.base
        if view in self.written:
            return self.written[view]
        kind = self.tensors[view.base]
        shape = tuple(kind.shape[axis] for axis in view.permutation)
        producer = self.graph.producer(wanted)
        if producer is not None and isinstance(producer.op, Transpose) and wanted not in self.tensors:
            name, tensor = producer.name, wanted
        else:
            name = self._free(f"{view.base}/transpose", self.names)
            tensor = self._free(f"{view.base}/transposed", self.graph.tensors.keys() | self.tensors.keys())
        self.names.add(name)
        self.tensors[tensor] = replace(kind, shape=shape)
        if view.base in self.constants:
            self.constants[tensor] = np.ascontiguousarray(self.constants[view.base].transpose(view.permutation))
        else:
            self.nodes.append(Node(name, Transpose(view.permutation), (view.base,), tensor))
        self.written[view] = tensor
        return tensor

    @staticmethod
    def _free(wanted: str, taken: set[str]) -> str:
        name, count = wanted, 1
        while name in taken:
            name, count = f"{wanted}_{count}", count + 1
        return name

    def _output(self, port: Port) -> Port:
        view = self.views[port.tensor]
        file_axes = port.permutation or _identity(len(view.permutation))
        axes = [0] * len(file_axes)
        for axis, source in enumerate(view.permutation):
            axes[source] = file_axes[axis]
        permutation = tuple(axes)
        return Port(view.base, port.name, () if permutation == _identity(len(axes)) else permutation)

    def _through(self, node: Node) -> tuple[Operator, list[str], Permutation] | None:
        """The node on untransposed inputs: operator, inputs, permutation to the old output; None if impossible."""
        views = [self.views[name] for name in node.inputs]
        if all(view.permutation == _identity(len(view.permutation)) for view in views):
            return None
        operator = node.op
        permutation = views[0].permutation
        bases = [view.base for view in views]
        rank = len(permutation)
        match operator:
            case Lookup() | Requantize():
                return operator, bases, permutation
            case Softmax() | LayerNorm() | Linear() if permutation[-1] == rank - 1:
                return operator, bases, permutation
            case MatMul() if views[1].permutation == permutation and permutation[-2:] == (rank - 2, rank - 1):
                return operator, bases, permutation
            case Pad():
                moved = replace(
                    operator,
                    before=_unpermute(operator.before, permutation),
                    after=_unpermute(operator.after, permutation),
                )
                return moved, bases, permutation
            case Slice():
                starts, sizes, steps = (
                    _unpermute(values, permutation) for values in (operator.starts, operator.sizes, operator.steps)
                )
                return Slice(starts, sizes, steps), bases, permutation
            case Mean():
                return _through_mean(operator, bases, permutation)
            case Reshape():
                whole = self._gather_runs(node, operator, views[0])
                if whole is None:
                    return None
                return _through_reshape(operator, whole, self.tensors[whole.base].shape)
            case Add() | Mul() | Concat():
                return self._through_many(node, views)
            case _:
                return None

    def _gather_runs(self, node: Node, operator: Reshape, view: View) -> View | None:
        """A view of the same tensor whose base holds each run of axes that the reshape reads together, in order.

        Where that takes a transpose, it pays only if another one follows that the base's order of runs may cancel.
        """
        base = self.tensors[view.base].shape
        runs = [[view.permutation[a] for a in sources] for sources, _ in _runs(_shape(base, view), operator.shape)]
        gathered = [axis for run in sorted(runs, key=min) for axis in run]
        order = tuple(axis for axis in range(len(base)) if base[axis] == 1) + tuple(gathered)
        if gathered == sorted(gathered):
            return view
        if not any(isinstance(reader.op, Transpose) for reader in self.graph.consumers(node.output)):
            return None
        tensor = self._materialise(View(view.base, order), node.inputs[0])
        return View(tensor, tuple(order.index(axis) for axis in view.permutation))

    def _through_many(self, node: Node, views: list[View]) -> tuple[Operator, list[str], Permutation] | None:
        """Operators that read several tensors in one layout; constants can be stored in any."""
        moving = [
            view.permutation for view, name in zip(views, node.inputs, strict=True) if name not in self.graph.constants
        ]
        rank = len(self.graph.tensors[node.output].shape)
        if any(len(view.permutation) != rank for view in views):
            return None
        permutation = next((p for p in moving if p != _identity(rank)), _identity(rank))
        if any(p != permutation for p in moving) and not self.both_ways:
            return None
        inputs = []
        for view, name in zip(views, node.inputs, strict=True):
            # The base that, read through `permutation`, gives this tensor.
            inputs.append(self._materialise(View(view.base, _unpermute(view.permutation, permutation)), name))
        operator = node.op
        if isinstance(operator, Concat):
            operator = replace(operator, axis=permutation[operator.axis])
        return operator, inputs, permutation


def _identity(rank: int) -> Permutation:
    return tuple(range(rank))


def _shape(base: Shape, view: View) -> Shape:
    return tuple(base[axis] for axis in view.permutation)


def _unpermute(values: Sequence[int], permutation: Permutation) -> tuple[int, ...]:
    """Values listed by the old tensor's axes, listed by its base's."""
    result = [0] * len(permutation)
    for axis, source in enumerate(permutation):
        result[source] = values[axis]
    return tuple(result)


def _transpose_operand(operator: MatMul, view: View) -> tuple[MatMul, View]:
    """Read the second operand transposed where that saves its transpose or keeps its innermost axis in place."""
    swapped = (*view.permutation[:-2], view.permutation[-1], view.permutation[-2])
    last = len(swapped) - 1
    if swapped[-1] == last and view.permutation[-1] != last:
        return replace(operator, transpose_b=not operator.transpose_b), View(view.base, swapped)
    return operator, view


def _through_mean(
    operator: Mean, bases: list[str], permutation: Permutation
) -> tuple[Operator, list[str], Permutation] | None:
    run = sorted(permutation[operator.first_axis : operator.last_axis + 1])
    if run != list(range(run[0], run[-1] + 1)):
        return None
    kept = [axis for axis in permutation if axis not in run]
    moved = replace(operator, first_axis=run[0], last_axis=run[-1])
    return moved, bases, tuple(sorted(kept).index(axis) for axis in kept)


def _through_reshape(operator: Reshape, view: View, base: Shape) -> tuple[Operator, list[str], Permutation]:
    """A reshape merges and splits runs of neighbouring axes, each of which is one in the base as well."""
    runs = _runs(_shape(base, view), operator.shape)
    runs.sort(key=lambda run: view.permutation[run[0][0]])
    targets = [axis for _, axes in runs for axis in axes]
    # Axes of one go wherever they disturb the order least: behind their predecessor.
    for axis, size in enumerate(operator.shape):
        if size == 1:
            targets.insert(targets.index(axis - 1) + 1 if axis else 0, axis)
    moved = Reshape(tuple(operator.shape[axis] for axis in targets))
    return moved, [view.base], tuple(targets.index(axis) for axis in range(len(targets)))


def _runs(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes, ones left out, that hold the same elements before and after."""
    left = [axis for axis, n in enumerate(before) if n > 1]
    right = [axis for axis, n in enumerate(after) if n > 1]
    runs = []
    while left:
        sources, targets = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[x] for x in sources)) != (b := math.prod(after[x] for x in targets)):
            if a < b:
                sources.append(left.pop(0))
            else:
                targets.append(right.pop(0))
        runs.append((sources, targets))
    return runs
