"""The primitives that kernels are made of, called directly: a row of the conformance table beside the operators'.

What is last but one bit of an exponential hardly ever reaches an int8. So each function of `primitives.c`, which calls
those of numerics.h and dsp.h, is taken for a kernel of its own: thousands of arguments in, a word out for each.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from codegen.emit import KernelCall
from conformance.opinion.primitives import DEFINITIONS
from refsim import numerics
from refsim.errors import ShapeError, UnsupportedError
from refsim.numerics import Int8Array
from refsim.ops.base import Operator
from refsim.ops.softmax import exp_on_negative, reciprocal
from refsim.tensor import Shape, TensorType

PRIMITIVES = "primitives"
"""Their row in the table."""

SOURCE = Path(__file__).parent / "primitives.c"


@cache
def functions() -> dict[str, tuple[int, int]]:
    """Of each function of `primitives.c` its place in the list, and the words of a row."""
    found = re.findall(r"^ +PRIMITIVE\((\w+), (\d+), ", SOURCE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (index, int(words)) for index, (name, words) in enumerate(found)}


GOLDEN: dict[str, Callable[..., Any]] = {
    "clamp": numerics.clamp,
    "srdhm": numerics.srdhm,
    "rdbpot": numerics.rdbpot,
    "requantize_value": numerics.requantize,
    "exp_negative": exp_on_negative,
    "reciprocal": reciprocal,
}
"""Those that the golden model has as well; of the others there is the definition alone."""


@dataclass(frozen=True, eq=False)
class Primitive(Operator):
    """A primitive, on many arguments.

    Its input are bytes (rows, 4 * words of an argument), each word's lowest byte first; its output (rows, 4).

    Attributes:
        function: of `functions`.
    """

    name: ClassVar[str] = PRIMITIVES

    function: str

    def __post_init__(self) -> None:
        if self.function not in functions():
            raise UnsupportedError(f"there is no primitive {self.function!r}; there are {', '.join(functions())}")

    @property
    def words(self) -> int:
        """Words of an argument."""
        return functions()[self.function][1]

    def output_shape(self, *shapes: Shape) -> Shape:
        """(rows, 4).

        Raises:
            ShapeError: the rows are not those of this function.
        """
        rows, size = shapes[0]
        if size != 4 * self.words:
            raise ShapeError(f"{self.function} takes rows of {4 * self.words} bytes, found {size}")
        return rows, 4

    def check_quantization(self, inputs: object, output: TensorType) -> None:
        """Words have no quantisation."""

    def run(self, *inputs: Int8Array) -> Int8Array:
        """By the golden model's primitive where it has one, else by the definition."""
        return self.by(GOLDEN.get(self.function, DEFINITIONS[self.function]), inputs[0])

    def by(self, function: Callable[..., Any], x: Int8Array) -> Int8Array:
        """What a function of integers gives for each row: (..., rows, 4)."""
        arguments = np.ascontiguousarray(x).view("<i4").reshape(-1, self.words)
        results = [int(function(*row)) & 0xFFFFFFFF for row in arguments.tolist()]
        return np.array(results, "<u4").view(np.int8).reshape(*x.shape[:-1], 4)

    def call(self, shape: Shape) -> KernelCall:
        """The call in C.

        Args:
            shape: of the input.
        """
        return KernelCall(
            f"tnf_{PRIMITIVES}", {"function": functions()[self.function][0], "rows": shape[0]}, (PRIMITIVES,)
        )


def rows_of(words: NDArray[np.int64]) -> Int8Array:
    """Arguments (rows, words) of any integers, as an input (1, rows, 4 * words)."""
    return np.ascontiguousarray(words.astype("<i4")).view(np.int8)[None]
