"""What kernels compute in terms of their parameters, upon the definitions of docs/numerics.md in unbounded integers."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod

from conformance.opinion.definitions import clamp

Shape = Sequence[int]
Values = list[int]


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
