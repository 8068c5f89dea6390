"""What a test case is, and the small strategies that those of the operators are composed of.

Everything is legal by construction: weights are drawn first, the accumulator's bound follows from them, and the shift
is picked among those that the overflow checks allow (docs/numerics.md, section 4). Filters would make Hypothesis give
up just where the domain is narrow. Large arrays are a pattern and a seed, small ones are spelled out, so that both
shrink quickly. Strategies that do not depend on what was drawn are made once, since Hypothesis validates each new one.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from refsim.errors import QuantizationError
from refsim.numerics import INT32_MAX, Int8Array, Int32Array, Multiplier, Rounding, requantized_bound
from refsim.ops.base import Operator, Pooling, Requantization
from refsim.tensor import Shape

SPELLED_OUT = 12
"""Arrays of up to so many elements are drawn element by element."""

NEAR = 3
"""Bytes this close to their zero point, or weights to 0, make small accumulators: see `smallness`."""

MOST_AXES = 6
"""Axes that every operator takes: TNF_MAX_RANK of ckernels/include/tinyformer/kernels.h."""


@dataclass(frozen=True, eq=False)
class Case:
    """An operator and one sample of inputs for it.

    Attributes:
        op: the operator.
        inputs: int8 (1, *shape) each.
    """

    op: Operator
    inputs: tuple[Int8Array, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes of the inputs, without the batch axis."""
        return tuple(x.shape[1:] for x in self.inputs)

    def __repr__(self) -> str:
        return f"{self.op!r} on {', '.join(f'{x.tolist()}' for x in self.inputs)}"


# ---- numbers ----


def often(elements: Sequence[Any], rest: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`rest`, with the values where faults hide well represented."""
    return st.one_of(st.sampled_from(elements), rest)


@cache
def zero_points() -> st.SearchStrategy[int]:
    """Any zero point, both ends often."""
    anything = st.integers(-128, 127)
    return st.one_of(anything, anything, st.sampled_from((0, -128, 127)))


@cache
def elements(low: int, high: int) -> st.SearchStrategy[int]:
    """An element of an array, both ends and zero often."""
    return often((low, high, min(max(0, low), high)), st.integers(low, high))


@cache
def lengths(most: int = 6, rare: tuple[int, ...] = ()) -> st.SearchStrategy[int]:
    """Length of an axis: 1 to `most`, and now and then one of `rare`, which are longer."""
    # One choice, the shortest first: it shrinks better than a choice among strategies.
    return st.sampled_from((*range(1, most + 1),) * (1 if not rare else 3) + rare)


@cache
@st.composite
def shapes(draw: st.DrawFn, min_axes: int = 0, max_axes: int = MOST_AXES, most: int = 5, size: int = 600) -> Shape:
    """Shapes of up to `size` elements; axes of length 1 are frequent."""
    result: list[int] = []
    for _ in range(draw(st.sampled_from(range(min_axes, max_axes + 1)))):
        result.append(draw(lengths(max(1, min(most, size // math.prod(result))))))
    return tuple(result)


@cache
@st.composite
def activation_ranges(draw: st.DrawFn, zero_point: int) -> tuple[int, int]:
    """(act_min, act_max): none, ReLU, bounded above alone as by ReLU6, all but the ends, one value, or anything."""
    kind = draw(st.sampled_from(("none",) * 7 + ("relu", "relu", "upper", "edge", "single", "any")))
    if kind == "none":
        return -128, 127
    if kind == "relu":
        return zero_point, 127
    if kind == "edge":
        return draw(st.sampled_from(((-127, 127), (-128, 126), (-127, 126))))
    if kind == "upper":
        return -128, draw(st.integers(-128, 126))
    low = draw(st.integers(-128, 127))
    return low, low if kind == "single" else draw(st.integers(low, 127))


# ---- arrays ----


_PATTERNS = st.sampled_from(
    ("constant", "spelled out", "ends", "one differs", "every", "random ends", "narrow", *("random",) * 13)
)


@st.composite
def arrays(
    draw: st.DrawFn, shape: Shape, low: int, high: int, dtype: type[np.signedinteger[Any]] = np.int8
) -> NDArray[Any]:
    """Integers in [low, high]: mostly anything, and the patterns that saturate, tie or cancel."""
    size = math.prod(shape)
    value = elements(low, high)
    pattern = draw(_PATTERNS)
    if pattern == "constant":
        data = np.full(size, draw(value))
    elif pattern == "spelled out" and size <= SPELLED_OUT:
        data = np.array(draw(st.lists(value, min_size=size, max_size=size)))
    elif pattern == "ends":
        data = np.resize([low, high], size)
    elif pattern == "every":
        data = np.resize(np.arange(low, high + 1), size)
    elif pattern == "one differs":
        data = np.full(size, draw(value))
        data[draw(st.integers(0, size - 1))] = draw(value)
    else:
        random = np.random.default_rng(draw(st.integers(0, 2**16)))
        if pattern == "random ends":
            data = random.choice([low, high], size)
        elif pattern == "narrow":
            start = draw(value)
            data = random.integers(start, min(start + 7, high), size, endpoint=True)
        else:
            data = random.integers(low, high, size, endpoint=True)
    return data.astype(dtype).reshape(shape)


def activations(shape: Shape, near: int | None = None) -> st.SearchStrategy[Int8Array]:
    """One sample, int8 (1, *shape): any bytes, or such as are `NEAR` a zero point."""
    return arrays((1, *shape), *((-128, 127) if near is None else (max(near - NEAR, -128), min(near + NEAR, 127))))


@cache
def smallness() -> st.SearchStrategy[bool]:
    """Whether a case has small accumulators, of which the last step drops a bit or a few.

    Elsewhere it drops so many that one result in hundreds is a tie, or shows otherwise how it was rounded.
    """
    return st.sampled_from((False, False, True))


@st.composite
def spikes(draw: st.DrawFn, shape: Shape) -> Int8Array:
    """One sample, int8 (1, *shape): each row is constant but for one element, or a few neighbours."""
    rest, spike = draw(elements(-128, 127)), draw(elements(-128, 127))
    data = np.full((1, *shape), rest, np.int8)
    first, count = draw(st.integers(0, shape[-1] - 1)), draw(st.sampled_from((1, 4)))
    data[..., first : first + count] = spike
    return data


@st.composite
def biases(draw: st.DrawFn, room: Sequence[int], usual: Sequence[int]) -> Int32Array:
    """int32 (channels,): bias[o] is within room[o], which the weights leave of int32, and mostly within usual[o]."""
    kind = draw(st.sampled_from(("zero", "usual", "usual", "usual", "usual", "random", "largest")))
    most = np.minimum(room, usual) if kind == "usual" else np.array(room, np.int64)
    if kind == "zero":
        return np.zeros(len(room), np.int32)
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    size = most if kind == "largest" else random.integers(0, most, endpoint=True)
    signed: Int32Array = (size * random.choice([-1, 1], len(room))).astype(np.int32)
    return signed


# ---- requantisation ----


def largest_shift(bound: int, multiplier: int, rounding: Rounding, limit: int = INT32_MAX) -> int:
    """The largest shift with which |v| <= bound may be requantised without leaving `limit`; -32 where there is none."""

    def refused(shift: int) -> bool:
        try:
            return requantized_bound(bound, multiplier, shift, rounding, "") > limit
        except QuantizationError:
            return True

    return bisect_left(range(-31, 31), True, key=refused) - 32


@dataclass(frozen=True)
class Scaling:
    """How to choose a multiplier once the bound of what it scales is known.

    Attributes:
        multiplier: 0 or in [2^30, 2^31).
        aim: None for a shift relative to the largest legal one; else the bits that a usual accumulator is scaled to.
        offset: added to the shift that follows, which is then brought into the legal range.
    """

    multiplier: int
    aim: int | None
    offset: int

    def pick(self, bound: int, usual: int, rounding: Rounding, limit: int = INT32_MAX) -> Multiplier:
        """A legal multiplier and shift for accumulators of up to `bound`, but usually of up to `usual`."""
        if self.multiplier == 0:
            return Multiplier(0, 0)
        largest = largest_shift(bound, self.multiplier, rounding, limit)
        if self.aim is None:
            shift = largest + self.offset
        else:
            shift = self.aim - (usual * self.multiplier >> 31).bit_length() + self.offset
        return Multiplier(self.multiplier, min(max(shift, -31), largest))


@cache
def multipliers() -> st.SearchStrategy[int]:
    """Any multiplier; those with few bits, which tie, and both ends often."""
    anything = st.integers(2**30, 2**31 - 1)
    return st.one_of(anything, anything, st.sampled_from((2**30, 2**30 + 1, 2**31 - 1, 3 * 2**29, 0)))


@cache
@st.composite
def small_scalings(draw: st.DrawFn) -> Multiplier:
    """Drops one bit to six of a small accumulator; powers of two, after which ties are frequent, often."""
    return Multiplier(draw(often((2**30, 3 * 2**29), multipliers().filter(bool))), draw(st.integers(-5, -1)))


@cache
@st.composite
def scalings(draw: st.DrawFn) -> Scaling:
    """Mostly such that results use the range of int8; else at one end of the legal shifts, or anywhere."""
    multiplier = draw(multipliers())
    kind = draw(st.sampled_from(("useful",) * 7 + ("largest", "smallest", "any")))
    if kind == "useful":
        return Scaling(multiplier, 8, draw(st.integers(-2, 1)))
    offsets = {"largest": st.just(0), "smallest": st.just(-62), "any": st.integers(-62, 0)}
    return Scaling(multiplier, None, draw(offsets[kind]))


@cache
def roundings() -> st.SearchStrategy[Rounding]:
    """Both modes."""
    return st.sampled_from(Rounding)


@st.composite
def requantizations(
    draw: st.DrawFn, bounds: Sequence[int], usual: Sequence[int], per_channel: bool = False, small: bool = False
) -> Requantization:
    """A legal last step for accumulators of up to `bounds`.

    Args:
        draw: Hypothesis's.
        bounds: largest magnitude of each channel's accumulator, or one for all.
        usual: the magnitude that they have in practice.
        per_channel: allow a multiplier for each channel as well as one for all.
        small: the accumulators are, see `smallness`.
    """
    rounding = draw(roundings())
    zero_point = draw(zero_points())
    picks = draw(st.lists(scalings(), min_size=1, max_size=3))
    if small:
        count = len(bounds) if per_channel and draw(st.booleans()) else 1
        pairs = [draw(small_scalings()) for _ in range(count)]
    elif per_channel and draw(st.booleans()):
        pairs = [picks[o % len(picks)].pick(b, u, rounding) for o, (b, u) in enumerate(zip(bounds, usual, strict=True))]
    else:
        pairs = [picks[0].pick(max(bounds), max(usual), rounding)]
    return Requantization(
        np.array([p.multiplier for p in pairs], np.int32),
        np.array([p.shift for p in pairs], np.int32),
        zero_point,
        *draw(activation_ranges(zero_point)),
        rounding,
    )


@st.composite
def narrowed(draw: st.DrawFn, output: Requantization) -> Requantization:
    """Often with bounds beside the ends of int8: for kernels that clamp afterwards, where they think it is needed."""
    if draw(st.integers(0, 4)) < 3:
        return output
    low, high = draw(st.sampled_from(((-127, 127), (-128, 126))))
    return replace(output, act_min=low, act_max=high)


@st.composite
def block_masks(draw: st.DrawFn, shape: Shape) -> Int8Array:
    """Ones, mostly; else zeros in blocks along the last axis, from a few to all but a few, or one block of ones."""
    kind = draw(st.sampled_from(("ones", "ones", "blocks", "blocks", "one block")))
    mask = np.ones(shape, np.int8)
    if kind == "ones":
        return mask
    block = draw(st.sampled_from((1, 2, 3, 4, 8)))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    blocks = (*shape[:-1], -(-shape[-1] // block))
    if kind == "one block":
        keep = np.zeros(blocks, np.int8)
        keep.ravel()[random.integers(keep.size)] = 1
    else:
        keep = (random.random(blocks) >= draw(st.sampled_from((0.4, 0.7, 0.9, 0.99)))).astype(np.int8)
    return np.repeat(keep, block, axis=-1)[..., : shape[-1]]


@st.composite
def biases_at_steps(draw: st.DrawFn, channels: int) -> tuple[Int32Array, Requantization]:
    """Biases that alone are where the output changes, up to the largest that any last step brings down to int8.

    Of weighted sums hardly any is there; and what a last step does to one of more than 2^30 shows nowhere else.
    """
    rounding, multiplier = draw(roundings()), draw(st.integers(2**30, INT32_MAX))
    shift, zero_point = draw(often((-23,), st.integers(-23, -1))), draw(often((-128,), zero_points()))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    steps = random.integers(-128, 127, channels) - zero_point + 0.5
    bias = np.rint(steps / multiplier * 2.0 ** (31 - shift)) + random.integers(-1, 2, channels)
    limited: Int32Array = np.clip(bias, -INT32_MAX, INT32_MAX).astype(np.int32)
    last = np.array([multiplier], np.int32), np.array([shift], np.int32)
    return limited, Requantization(*last, zero_point, -128, 127, rounding)


@st.composite
def weighted(
    draw: st.DrawFn, shape: Shape, channel_axis: int, zero_point: int, small: bool = False
) -> tuple[Int8Array, Int32Array, Requantization]:
    """Weights, a bias that keeps the accumulators within int32, and a last step that fits both.

    Args:
        draw: Hypothesis's.
        shape: of the weights.
        channel_axis: their axis of output channels.
        zero_point: of the input.
        small: the accumulators of inputs near the zero point are, see `smallness`.
    """
    if draw(st.integers(0, 7)) == 7:
        return np.zeros(shape, np.int8), *draw(biases_at_steps(shape[channel_axis]))
    weight = draw(arrays(shape, *((-NEAR, NEAR) if small else (-128, 127)))) * draw(block_masks(shape))
    distance = max(127 - zero_point, 128 + zero_point)
    rows = np.moveaxis(weight, channel_axis, 0).astype(np.int64).reshape(shape[channel_axis], -1)
    products = [distance * int(total) for total in np.abs(rows).sum(axis=1)]
    typical = NEAR if small else distance
    usual = [typical * math.isqrt(int(total)) for total in (rows * rows).sum(axis=1)]  # random signs cancel
    bias = draw(biases(usual if small else [INT32_MAX - product for product in products], usual))
    bounds = [abs(int(b)) + product for b, product in zip(bias, products, strict=True)]
    usual = [abs(int(b)) + product for b, product in zip(bias, usual, strict=True)]
    return weight, bias, draw(requantizations(bounds, usual, per_channel=True, small=small))


# ---- windows ----


@dataclass(frozen=True)
class WindowAxis:
    """One axis of a sliding window that fits its image; all in elements."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int


@cache
@st.composite
def convolution_axes(draw: st.DrawFn) -> WindowAxis:
    """Any window that fits at least once, padding beyond the kernel included."""
    kernel, stride, dilation = draw(lengths(4, (7,))), draw(st.integers(1, 4)), draw(lengths(1, (2, 3)))
    before, after = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    span = dilation * (kernel - 1) + 1
    size = max(draw(lengths(7)), span - before - after)
    return WindowAxis(size, kernel, stride, dilation, before, after)


@cache
@st.composite
def pooling_axes(draw: st.DrawFn) -> WindowAxis:
    """Any window of which every position holds at least one element of the image."""
    size, kernel, stride = draw(lengths(8)), draw(lengths(4, (7,))), draw(st.integers(1, 4))
    before = draw(st.integers(0, kernel - 1))
    # The last window that may start is the one at last * stride - before; `after` must not admit another.
    last = (size - 1 + before) // stride
    most = (last + 1) * stride - 1 - size - before + kernel
    least = max(0, kernel - size - before)
    return WindowAxis(size, kernel, stride, 1, before, draw(st.integers(least, max(most, least))))


def paired(axes: tuple[WindowAxis, WindowAxis], attribute: Callable[[WindowAxis], int]) -> tuple[int, int]:
    """An attribute as (height, width)."""
    return attribute(axes[0]), attribute(axes[1])


def padding_of(axes: tuple[WindowAxis, WindowAxis]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right)."""
    return axes[0].before, axes[1].before, axes[0].after, axes[1].after


# ---- broadcasting ----


@cache
@st.composite
def broadcast_pairs(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """Two shapes that broadcast: equal, one a part of the other, or each repeating where the other does not."""
    if draw(st.integers(0, 15)) > 13:  # one element for a row, often longer than kernels repeat it at once
        rows, row = draw(lengths(3)), draw(st.integers(1, 140))
        return draw(st.sampled_from((((rows, row), (rows, 1)), ((rows, 1), (rows, row)))))
    result = draw(shapes())
    if draw(st.booleans()):
        return result, result
    pair = []
    for _ in range(2):
        kept = result[draw(st.integers(0, len(result))) :] if draw(st.booleans()) else result
        masks = draw(st.lists(st.booleans(), min_size=len(kept), max_size=len(kept))) if draw(st.booleans()) else []
        pair.append(tuple(1 if masks and masks[i] else n for i, n in enumerate(kept)))
    return pair[0], pair[1]


@st.composite
def pooling_cases(draw: st.DrawFn, operator: type[Pooling]) -> Case:
    """Cases of a pooling operator."""
    axes = (draw(pooling_axes()), draw(pooling_axes()))
    op = operator(
        paired(axes, lambda a: a.kernel),
        paired(axes, lambda a: a.stride),
        padding_of(axes),
        *draw(activation_ranges(draw(zero_points()))),
    )
    image = (*paired(axes, lambda a: a.size), draw(lengths(5, (9, 33))))
    return Case(op, (draw(activations(image)),))
