"""What every operator of the integer graph has in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import (
    Int8Array,
    Int32Array,
    Multiplier,
    Rounding,
    Stage,
    check_accumulator,
    check_multiplier,
    largest_distance,
    quantize_multiplier,
    requantized_bound,
)
from refsim.tensor import MOST_ELEMENTS, Shape, TensorType
from refsim.windows import Window, image_shape

MOST_WEIGHTS = 2**23 - 1
"""Of an output channel: what TNF_SPARSE_CHANNEL of ckernels/include/tinyformer/sparse.h has room for."""


class Operator(ABC):
    """An integer function of int8 tensors, complete in itself: its weights, zero points and multipliers are its fields.

    Sub-classes are frozen dataclasses that check themselves when built, live in a module named after `name`, and are
    found by it (`refsim.ops.OPERATORS`).
    """

    name: ClassVar[str]
    """The operator's name in every room: refsim/ops, ckernels/src, codegen/emit, conformance/strategies."""
    arity: ClassVar[int | None] = 1
    """Number of activation inputs; None for any number from one."""

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output for one sample.

        Args:
            shapes: the inputs' shapes, without the batch axis.

        Raises:
            ShapeError: the shapes do not fit the operator.
            QuantizationError: with these shapes an accumulator could overflow.
        """

    @abstractmethod
    def run(self, *inputs: Int8Array) -> Int8Array:
        """Compute a batch: int8 arrays (N, *shape), C-contiguous, to an int8 array (N, *output_shape)."""

    def check(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        """Check the operator against the tensors it is used with.

        Raises:
            ShapeError: wrong number of inputs, or shapes that do not fit.
            QuantizationError: a zero point or scale differs from what the operator was built for.
        """
        if self.arity is not None and len(inputs) != self.arity:
            raise ShapeError(f"{self.name} takes {self.arity} input(s), found {len(inputs)}")
        shape = self.output_shape(*(t.shape for t in inputs))
        if shape != output.shape:
            raise ShapeError(
                f"{self.name} turns {[t.shape for t in inputs]} into {shape}, but its output tensor is {output.shape}"
            )
        self.check_quantization(inputs, output)

    @abstractmethod
    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        """Check that the tensors' quantisation is the one that the operator was built for.

        Raises:
            QuantizationError: it is not.
        """

    def _expect_zero_point(self, tensor: TensorType, zero_point: int, role: str) -> None:
        if tensor.zero_point != zero_point:
            raise QuantizationError(
                f"{self.name} was built for {role} zero point {zero_point}, but the tensor has {tensor.zero_point}"
            )

    def _expect_same_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        for tensor in inputs:
            if not tensor.same_quantization(output):
                raise QuantizationError(
                    f"{self.name} keeps its input's quantisation (scale {tensor.scale:g}, zero point "
                    f"{tensor.zero_point}), but its output has scale {output.scale:g}, zero point {output.zero_point}"
                )


@dataclass(frozen=True, eq=False)
class Requantization:
    """An operator's last step: accumulator -> clamp(requant(acc, M, s, rounding) + zero_point, act_min, act_max).

    Attributes:
        multiplier: int32 (channels,), or (1,) where all share one.
        shift: int32, the same length; the real multiplier is multiplier * 2^(shift - 31).
        zero_point: the output's.
        act_min, act_max: range of the fused activation, within [-128, 127].
        rounding: see `Rounding`.

    Raises:
        QuantizationError: a value out of its range.
    """

    multiplier: Int32Array
    shift: Int32Array
    zero_point: int
    act_min: int = -128
    act_max: int = 127
    rounding: Rounding = Rounding.SINGLE

    def __post_init__(self) -> None:
        if self.multiplier.ndim != 1 or self.multiplier.shape != self.shift.shape or self.multiplier.size < 1:
            raise QuantizationError("multiplier and shift must be vectors of one length, at least 1")
        if self.multiplier.dtype != np.int32 or self.shift.dtype != np.int32:
            raise QuantizationError("multiplier and shift must be int32")
        for channel, (multiplier, shift) in enumerate(zip(self.multiplier, self.shift, strict=True)):
            check_multiplier(Multiplier(int(multiplier), int(shift)), f"output channel {channel}", self.rounding)
        check_zero_point(self.zero_point, "output")
        check_activation_range(self.act_min, self.act_max)

    @classmethod
    def from_real(
        cls,
        real: float | NDArray[np.float64] | Sequence[float],
        zero_point: int,
        act_min: int = -128,
        act_max: int = 127,
        rounding: Rounding = Rounding.SINGLE,
    ) -> "Requantization":
        """Build from real multipliers: one, or one a channel (float64).

        Raises:
            QuantizationError: a multiplier cannot be represented.
        """
        pairs = [quantize_multiplier(float(r)) for r in np.atleast_1d(np.asarray(real, np.float64))]
        return cls(
            np.array([p.multiplier for p in pairs], np.int32),
            np.array([p.shift for p in pairs], np.int32),
            zero_point,
            act_min,
            act_max,
            rounding,
        )

    def stage(self, channels: int = 1) -> Stage:
        """The same as the compiled loops take it, with one multiplier for each of `channels`; built once."""
        if channels not in self._stages:
            repeats = channels if self.multiplier.size == 1 else 1
            self._stages[channels] = Stage(
                self.multiplier.repeat(repeats),
                self.shift.repeat(repeats),
                int(self.rounding),
                self.zero_point,
                self.act_min,
                self.act_max,
            )
        return self._stages[channels]

    @cached_property
    def _stages(self) -> dict[int, Stage]:
        return {}

    def check(self, bounds: Sequence[int] | NDArray[Any], what: str = "") -> None:
        """Prove that no accumulator can overflow (docs/numerics.md, section 4).

        Args:
            bounds: largest magnitude of each channel's accumulator; one, or one a channel.
            what: what the channels are called in the error.

        Raises:
            QuantizationError: naming channel and bound.
        """
        count = max(len(bounds), self.multiplier.size)
        for channel in range(count):
            bound = int(bounds[channel if len(bounds) > 1 else 0])
            index = channel if self.multiplier.size > 1 else 0
            where = f"{what or 'output channel'} {channel}"
            check_accumulator(bound, where)
            requantized_bound(bound, int(self.multiplier[index]), int(self.shift[index]), self.rounding, where)


class Requantizing(Operator):
    """An operator that ends in a `Requantization` and was built for certain zero points."""

    output: Requantization

    @property
    @abstractmethod
    def zero_points(self) -> tuple[int, ...]:
        """Zero point of each input."""

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        for index, (tensor, zero_point) in enumerate(zip(inputs, self.zero_points, strict=True)):
            self._expect_zero_point(tensor, zero_point, f"input {index}")
        self._expect_zero_point(output, self.output.zero_point, "output")


@dataclass(frozen=True, eq=False)
class Pooling(Operator):
    """What max and average pooling share: windows over an image, one quantisation for input and output.

    Attributes:
        kernel, stride: (height, width).
        padding: (top, left, bottom, right); positions outside the image are left out.
        act_min, act_max: range of the fused activation, within [-128, 127].

    Raises:
        ShapeError: the window is malformed, or lies wholly in the padding somewhere.
        QuantizationError: the activation range is wrong.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    act_min: int = -128
    act_max: int = 127

    def __post_init__(self) -> None:
        _ = self.window
        check_activation_range(self.act_min, self.act_max)

    @property
    def window(self) -> Window:
        """The window's geometry."""
        return Window(self.kernel, self.stride, self.padding)

    def output_shape(self, *shapes: Shape) -> Shape:
        height, width, channels = image_shape(shapes[0], self.name)
        self.window.check_indices(height, width, channels)
        self.window.check_covers_image(height, width)
        return (*self.window.output_size(height, width), channels)

    def check_quantization(self, inputs: Sequence[TensorType], output: TensorType) -> None:
        self._expect_same_quantization(inputs, output)


def check_activation_range(act_min: int, act_max: int) -> None:
    """Check a fused activation's range.

    Raises:
        QuantizationError: it is empty or leaves [-128, 127].
    """
    if not -128 <= act_min <= act_max <= 127:
        raise QuantizationError(f"activation range [{act_min}, {act_max}] is not within [-128, 127]")


def check_zero_point(zero_point: int, what: str) -> None:
    """Check a zero point's range.

    Raises:
        QuantizationError: it is not in [-128, 127].
    """
    if not -128 <= zero_point <= 127:
        raise QuantizationError(f"{what} zero point must lie in [-128, 127], found {zero_point}")


def check_channels(output: Requantization, channels: int, what: str, *, halved: bool = False) -> None:
    """Check that there is one multiplier, or one for each channel, and that none is too small.

    Args:
        output: the last step.
        channels: of the output.
        what: the operator's name.
        halved: with double rounding a multiplier may be in [2^29, 2^30), as TensorFlow Lite's division of a mean's by
            the number of elements leaves it; no kernel of another operator takes that.

    Raises:
        ShapeError: there is another number.
        QuantizationError: a multiplier is below 2^30.
    """
    if output.multiplier.size not in (1, channels):
        raise ShapeError(f"{what} has {channels} output channels but {output.multiplier.size} multipliers")
    smallest = int(output.multiplier[output.multiplier != 0].min(initial=2**30))
    if smallest < 2**30 and not halved:
        raise QuantizationError(f"{what} takes multipliers from 2^30 to 2^31 - 1, or 0, found {smallest}")


def weighted_bounds(weight: Int8Array, bias: Int32Array, zero_point: int) -> list[int]:
    """Largest |accumulator| of each output channel, the first axis of weight (docs/numerics.md, section 4).

    Raises:
        ShapeError: a channel has more weights than sparse kernels count, or all together are more than indices reach.
    """
    if weight[0].size > MOST_WEIGHTS or weight.size > MOST_ELEMENTS:
        raise ShapeError(
            f"an output channel has at most {MOST_WEIGHTS} weights, and all together {MOST_ELEMENTS}, "
            f"found {weight[0].size} and {weight.size}"
        )
    sums = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(axis=1)
    return [abs(int(b)) + largest_distance(zero_point) * int(s) for b, s in zip(bias, sums, strict=True)]


def broadcast_shape(what: str, *shapes: Shape) -> Shape:
    """The shape that the inputs broadcast to, as in NumPy.

    Raises:
        ShapeError: they do not.
    """
    try:
        return tuple(int(n) for n in np.broadcast_shapes(*shapes))
    except ValueError:
        raise ShapeError(f"{what} cannot broadcast {' with '.join(map(str, shapes))}") from None


def broadcast_inputs(operator: Operator, a: Int8Array, b: Int8Array) -> tuple[Int8Array, Int8Array, Int8Array]:
    """Both inputs (N, *shape) expanded to the output's shape, and an empty output."""
    shape = operator.output_shape(a.shape[1:], b.shape[1:])
    y = np.empty((a.shape[0], *shape), np.int8)
    return _expand(a, y), _expand(b, y), y


def _expand(x: Int8Array, y: Int8Array) -> Int8Array:
    """x (N, *shape) repeated along the axes that it lacks to the shape of y (N, *shape)."""
    if x.shape == y.shape:
        return x
    aligned = x.reshape(x.shape[0], *(1,) * (y.ndim - x.ndim), *x.shape[1:])
    return np.ascontiguousarray(np.broadcast_to(aligned, y.shape))


def check_array(array: NDArray[Any], dtype: type[np.generic], shape: Sequence[int | None], what: str) -> None:
    """Check a constant's dtype and shape (None: any length of at least 1).

    Raises:
        ShapeError: naming `what`, what was found and what is expected.
    """
    fits = array.ndim == len(shape) and all(
        n >= 1 and (want is None or n == want) for n, want in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        expected = "(" + ", ".join("n" if n is None else str(n) for n in shape) + ")"
        raise ShapeError(
            f"{what} must be {np.dtype(dtype).name} of shape {expected}, found {array.dtype.name} {array.shape}"
        )
