"""docs/numerics.md written out in Python's unbounded integers: slow, obvious, independent of both implementations."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import isqrt, prod

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
SINGLE, DOUBLE = 0, 1

Shape = Sequence[int]
Values = list[int]


def clamp(v: int, lo: int, hi: int) -> int:
    return min(max(v, lo), hi)


def truncating(a: int, b: int) -> int:
    return a // b if (a >= 0) == (b > 0) else -(-a // b)


def srdhm(a: int, b: int) -> int:
    if a == b == INT32_MIN:
        return INT32_MAX
    ab = a * b
    return truncating(ab + (2**30 if ab >= 0 else 1 - 2**30), 2**31)


def nearest(v: int, d: int) -> int:
    """v / d rounded to nearest, ties away from zero."""
    magnitude = (2 * abs(v) + d) // (2 * d)
    return magnitude if v >= 0 else -magnitude


def rdbpot(v: int, n: int) -> int:
    return nearest(v, 2**n)


def requant(v: int, multiplier: int, shift: int, rounding: int) -> int:
    if rounding == DOUBLE:
        return rdbpot(srdhm(v << max(shift, 0), multiplier), max(-shift, 0))
    t = 31 - shift
    return (v * multiplier + 2 ** (t - 1)) >> t


def expneg(a: int) -> int:
    if a == 0:
        return INT32_MAX
    q = (a & (2**24 - 1)) - 2**24
    x = (q << 5) + 2**28
    x2 = srdhm(x, x)
    x3 = srdhm(x2, x)
    x4 = srdhm(x2, x2)
    u = rdbpot(srdhm(rdbpot(x4, 2) + x3, 715827883) + x2, 1)
    e = 1895147668 + srdhm(1895147668, x + u)
    rem = q - a
    constants = {24: 1672461947, 25: 1302514674, 26: 790015084, 27: 290630308, 28: 39332535, 29: 720401, 30: 242}
    for bit, c in constants.items():
        if rem & (1 << bit):
            e = srdhm(e, c)
    return e


def reciprocal(a: int) -> int:
    half = truncating(a + (2**31 - 1) + 1, 2)
    x = 1515870810 + srdhm(half, -1010580540)
    for _ in range(3):
        hx = srdhm(half, x)
        x += clamp(srdhm(x, 2**29 - hx) << 2, INT32_MIN, INT32_MAX)
    return clamp(x << 1, INT32_MIN, INT32_MAX)


def softmax_row(row: Values, multiplier: int, shift: int, diff_min: int) -> Values:
    d = [x - max(row) for x in row]
    e = [expneg(srdhm(v << shift, multiplier)) if v >= diff_min else 0 for v in d]
    total = sum(rdbpot(value, 12) for value, v in zip(e, d, strict=True) if v >= diff_min)
    h = 32 - total.bit_length()
    r = reciprocal((total << h) - 2**31)
    return [
        -128 if v < diff_min else clamp(rdbpot(srdhm(r, value), 12 - h + 23) - 128, -128, 127)
        for value, v in zip(e, d, strict=True)
    ]


def layernorm_row(row: Values, scale_bits: int, epsilon: int) -> Values:
    """The normalised h of one row, before gamma and beta."""
    c = len(row)
    s1, s2 = sum(row), sum(x * x for x in row)
    v = c * s2 - s1 * s1 + epsilon
    if v == 0:
        return [0] * c
    p = (61 - (v.bit_length() - 1)) // 2
    r = 2**61 // isqrt(v << 2 * p if p >= 0 else v >> -2 * p)
    t = 61 - scale_bits - p
    return [clamp(((c * x - s1) * r + 2 ** (t - 1)) >> t, -32768, 32767) for x in row]


def indices(shape: Shape) -> Iterator[tuple[int, ...]]:
    return product(*map(range, shape))


def strides(shape: Shape) -> Values:
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def at(values: Values, shape: Shape, index: Sequence[int]) -> int:
    return values[sum(i * s for i, s in zip(index, strides(shape), strict=True))]


def window_positions(p: dict[str, int], oh: int, ow: int) -> list[tuple[int, int, int, int]]:
    """(kh, kw, row, column) for the positions of one output's window that are inside the image."""
    found = []
    for kh, kw in indices((p["kernel_h"], p["kernel_w"])):
        row = oh * p["stride_h"] - p["pad_top"] + kh * p.get("dilation_h", 1)
        column = ow * p["stride_w"] - p["pad_left"] + kw * p.get("dilation_w", 1)
        if 0 <= row < p["input_h"] and 0 <= column < p["input_w"]:
            found.append((kh, kw, row, column))
    return found


def convolution_sums(p: dict[str, int], x: Values, weight: Values, bias: Values, depthwise: bool) -> Iterator[int]:
    """The accumulators of conv2d or depthwise_conv2d, in the order of the output's bytes."""
    image = (p["input_h"], p["input_w"], p["input_c"])
    outputs = p["output_c"]
    for oh, ow, o in indices((p["output_h"], p["output_w"], outputs)):
        acc = bias[o]
        for kh, kw, row, column in window_positions(p, oh, ow):
            if depthwise:
                w = at(weight, (p["kernel_h"], p["kernel_w"], outputs), (kh, kw, o))
                acc += (at(x, image, (row, column, o // (outputs // p["input_c"]))) - p["input_zero_point"]) * w
                continue
            group_in = p["input_c"] // p["groups"]
            group = o // (outputs // p["groups"])
            for i in range(group_in):
                w = at(weight, (outputs, p["kernel_h"], p["kernel_w"], group_in), (o, kh, kw, i))
                acc += (at(x, image, (row, column, group * group_in + i)) - p["input_zero_point"]) * w
        yield acc


def pool(p: dict[str, int], x: Values, reduce: Callable[[Values], int]) -> Values:
    image = (p["input_h"], p["input_w"], p["channels"])
    return [
        clamp(
            reduce([at(x, image, (row, column, c)) for _, _, row, column in window_positions(p, oh, ow)]),
            p["act_min"],
            p["act_max"],
        )
        for oh, ow, c in indices((p["output_h"], p["output_w"], p["channels"]))
    ]


def broadcast(values: Values, shape: Shape, to: Shape) -> Values:
    padded = [1] * (len(to) - len(shape)) + list(shape)
    return [at(values, padded, [i if n > 1 else 0 for i, n in zip(ix, padded, strict=True)]) for ix in indices(to)]
