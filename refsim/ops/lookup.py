"""Lookup: any int8 -> int8 function as a table of 256 entries (docs/numerics.md, lookup)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from refsim.compiled import compiled
from refsim.errors import QuantizationError
from refsim.numerics import Int8Array, round_half_away_array
from refsim.ops.base import Operator, check_array
from refsim.tensor import Shape, TensorType


@dataclass(frozen=True, eq=False)
class Lookup(Operator):
    """y = table[x + 128].

    Attributes:
        table: int8 (256,).

    Raises:
        ShapeError: the table is something else.
    """

    name: ClassVar[str] = "lookup"

    table: Int8Array

    def __post_init__(self) -> None:
        check_array(self.table, np.int8, (256,), "lookup table")

    @classmethod
    def from_function(
        cls, function: Callable[[NDArray[np.float64]], NDArray[np.float64]], x: TensorType, y: TensorType
    ) -> "Lookup":
        """Tabulate a real function (vectorised, float64) between two quantisations, rounding half away from zero.

        Raises:
            QuantizationError: the function is not finite somewhere on the input's range.
        """
        real = x.scale * (np.arange(-128, 128, dtype=np.float64) - x.zero_point)
        values = function(real)
        if not np.isfinite(values).all():
            where = float(real[~np.isfinite(values)][0])
            raise QuantizationError(f"the activation function is not finite at {where:g}, within its input's range")
        q = round_half_away_array(np.clip(values / y.scale, -1e6, 1e6)) + y.zero_point
        return cls(np.clip(q, -128, 127).astype(np.int8))

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        """A table serves any pair of quantisations: there is nothing to check."""

    def run(self, *inputs: Int8Array) -> Int8Array:
        (x,) = inputs
        y = np.empty_like(x)
        _lookup(x.reshape(x.shape[0], -1), self.table, y.reshape(x.shape[0], -1))
        return y


@compiled()
def _lookup(x: Int8Array, table: Int8Array, y: Int8Array) -> None:
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            y[n, i] = table[np.int64(x[n, i]) + np.int64(128)]
