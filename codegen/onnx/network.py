"""The importer's view of a model: float operators, with quantisation noted on their tensors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.tensor import Shape

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A real function of one variable, vectorised."""


@dataclass(frozen=True)
class Quantization:
    """int8 affine quantisation of a tensor: real = scale * (q - zero_point)."""

    scale: float
    zero_point: int

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest number that it can hold."""
        return (-128 - self.zero_point) * self.scale, (127 - self.zero_point) * self.scale


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that is known beforehand.

    Attributes:
        real: what it stands for: float64, or integers and booleans as they are.
        stored: a quantised constant's integers, of real's shape (uint8 shifted to int8); None for a float constant.
        scale, zero_point: of the stored integers, of real's shape: real = scale * (stored - zero_point).
    """

    real: NDArray[Any]
    stored: NDArray[Any] | None = None
    scale: NDArray[np.float64] = field(default_factory=lambda: np.ones(()))
    zero_point: NDArray[np.int64] = field(default_factory=lambda: np.zeros((), np.int64))

    def map(self, move: Callable[[NDArray[Any]], NDArray[Any]]) -> "Constant":
        """The same constant with its elements moved by `move` (a transpose, reshape, slice, ...)."""
        if self.stored is None:
            return Constant(move(self.real))
        return Constant(move(self.real), move(self.stored), move(self.scale), move(self.zero_point))

    def multiply(self, factor: NDArray[np.float64] | float) -> "Constant":
        """Each element times `factor` (broadcast): scales change, a negative factor flips the integers' sign."""
        if self.stored is None:
            return Constant(self.real * factor)
        full = np.broadcast_to(np.asarray(factor, np.float64), self.real.shape)
        sign = np.where(full < 0, -1, 1)
        # A factor of zero would leave a scale of zero: the integers carry the zero instead.
        magnitude = np.where(full == 0, 1.0, np.abs(full))
        stored = np.where(full == 0, 0, self.stored.astype(np.int64) * sign)
        return Constant(self.real * full, stored, self.scale * magnitude, self.zero_point * sign)


@dataclass(eq=False)
class Op:
    """One operator.

    Attributes:
        name: of the model file's node; unique.
        kind: see `codegen.onnx.normalize` for the kinds.
        inputs: tensor names, constants included.
        output: tensor name.
        attributes: by kind.
    """

    name: str
    kind: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Network:
    """A model between the file and the integer graph; the importer's stages change it in place.

    Shapes are whole, for a batch of one sample.

    Attributes:
        name: of the model.
        inputs, outputs: (tensor, name in the file).
        ops: in execution order.
        constants: by tensor name.
        shapes: of every tensor, constants included.
        quantizations: of the activations that the file quantises.
    """

    name: str
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]
    ops: list[Op]
    constants: dict[str, Constant]
    shapes: dict[str, Shape]
    quantizations: dict[str, Quantization]

    def producer(self, tensor: str) -> Op | None:
        """The operator that writes a tensor."""
        return next((op for op in self.ops if op.output == tensor), None)

    def consumers(self, tensor: str) -> list[Op]:
        """The operators that read a tensor."""
        return [op for op in self.ops if tensor in op.inputs]

    def is_output(self, tensor: str) -> bool:
        """Whether the graph hands the tensor out."""
        return any(tensor == name for name, _ in self.outputs)

    def used_once(self, tensor: str) -> bool:
        """Whether one operator reads the tensor, and nothing else does."""
        return len(self.consumers(tensor)) == 1 and not self.is_output(tensor)

    def scalar(self, tensor: str) -> float | None:
        """The value of a float constant of one element."""
        constant = self.constants.get(tensor)
        if constant is None or constant.real.size != 1:
            return None
        return float(constant.real.reshape(()))

    def activations(self, op: Op) -> list[str]:
        """The inputs of an operator that are no constants."""
        return [name for name in op.inputs if name and name not in self.constants]

    def add_constant(self, wanted: str, constant: Constant) -> str:
        """Enter a constant under the wanted name, or the next free one like it."""
        name, count = wanted, 1
        while name in self.shapes:
            name, count = f"{wanted}_{count}", count + 1
        self.constants[name] = constant
        self.shapes[name] = constant.real.shape
        return name

    def drop_unused(self) -> None:
        """Remove operators whose output nobody reads."""
        live = {tensor for tensor, _ in self.outputs}
        kept = []
        for op in reversed(self.ops):
            if op.output in live:
                live.update(op.inputs)
                kept.append(op)
        self.ops = kept[::-1]
        used = live | {tensor for tensor, _ in self.inputs}
        self.quantizations = {name: q for name, q in self.quantizations.items() if name in used}


def unique_names(wanted: Iterable[str]) -> list[str]:
    """The names, numbered from the second use on."""
    taken: set[str] = set()
    result = []
    for base in wanted:
        name, count = base, 1
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        taken.add(name)
        result.append(name)
    return result
