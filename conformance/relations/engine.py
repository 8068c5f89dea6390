"""Who computes when a relation is tried: the golden model, or kernels at a place, which need no golden model for it."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from codegen.emit import KernelCall, kernel_calls
from conformance.layout import lay_out
from conformance.places import Place
from refsim.numerics import Int8Array
from refsim.ops.base import Operator


class Engine(ABC):
    """Computes operators.

    Attributes:
        name: in reports.
        detail: compiler and options.
    """

    name: str
    detail: str

    @abstractmethod
    def run(self, op: Operator, *inputs: Int8Array) -> Int8Array:
        """One sample, int8 (1, *shape) each, to int8 (1, *output_shape).

        Raises:
            ConformanceError: a kernel crashed, or wrote where it must not.
            EmulationError: it strayed, faulted or did not end.
        """

    @abstractmethod
    def every_kernel(self, op: Operator, *inputs: Int8Array) -> Iterator[Int8Array]:
        """The same by each kernel, encoding of weights and height of tiles there is, out of place and in place."""


class GoldenModel(Engine):
    """`refsim`."""

    name, detail = "refsim", "the golden model"

    def run(self, op: Operator, *inputs: Int8Array) -> Int8Array:
        return op.run(*map(np.ascontiguousarray, inputs))

    def every_kernel(self, op: Operator, *inputs: Int8Array) -> Iterator[Int8Array]:
        yield self.run(op, *inputs)


class Kernels(Engine):
    """A place, where each run takes one of the kernels for the operator; which one hangs on the inputs' bytes.

    So the two sides of a relation are often computed by different kernels.

    Args:
        place: where; the caller closes it.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.name, self.detail = place.name, place.detail

    def run(self, op: Operator, *inputs: Int8Array) -> Int8Array:
        ways = list(self._ways(op, inputs))
        call, in_place = ways[_seed(inputs) % len(ways)]
        return self._run(op, inputs, call, in_place)

    def every_kernel(self, op: Operator, *inputs: Int8Array) -> Iterator[Int8Array]:
        for call, in_place in self._ways(op, inputs):
            yield self._run(op, inputs, call, in_place)

    def _ways(self, op: Operator, inputs: tuple[Int8Array, ...]) -> Iterator[tuple[KernelCall, int | None]]:
        shapes = tuple(x.shape[1:] for x in inputs)
        for dsp in self.place.dsp:
            for call in kernel_calls(op, shapes, dsp=dsp):
                yield from ((call, index) for index in (None, *call.in_place))

    def _run(self, op: Operator, inputs: tuple[Int8Array, ...], call: KernelCall, in_place: int | None) -> Int8Array:
        shape = op.output_shape(*(x.shape[1:] for x in inputs))
        size = int(np.prod(shape))
        layout = lay_out(call, inputs, size, in_place, _seed(inputs))
        return np.frombuffer(layout.collect(self.place.run(call, layout)), np.int8).reshape(1, *shape)


def _seed(inputs: tuple[Int8Array, ...]) -> int:
    return zlib.crc32(b"".join(x.tobytes() for x in inputs))
