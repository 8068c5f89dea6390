"""Float weights that quantise better: clipped where finer steps are worth more, rounded so that sums err less.

Each function takes a weight and gives one that the quantiser stores as it is meant: clipped weights have a smaller
largest magnitude, hence a smaller scale; rounded ones lie on the grid of their scale, each on one of the two steps
beside its value. Zeros stay zero.
"""

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.layers import Layer

_PARTS = np.linspace(1.0, 0.5, 26)
"""Of the largest magnitude, tried as the limit."""

_SWEEPS = 4
"""Over all inputs; few weights still change in the last."""

LARGEST_GRAM = 4096
"""Inputs of one output, at most, for which rounding is chosen: the Gram matrix has the square of that."""


def clip_weight(weight: NDArray[np.float64], axis: int | None) -> NDArray[np.float64]:
    """The weight within the limits that leave the least squared error after rounding to [-127, 127].

    Args:
        weight: of any shape.
        axis: that counts output channels, each with a limit of its own; None for one limit.
    """
    rows = _rows(weight, axis)
    best, least = np.abs(rows).max(axis=1), np.full(len(rows), np.inf)
    largest = best.copy()
    for part in _PARTS:
        steps = np.where(largest > 0, largest * part / 127, 1.0)[:, None]
        error = np.square(np.clip(np.rint(rows / steps), -127, 127) * steps - rows).sum(axis=1)
        better = error < least
        best, least = np.where(better, largest * part, best), np.where(better, error, least)
    return _back(np.clip(rows, -best[:, None], best[:, None]), weight, axis)


def round_weight(
    weight: NDArray[np.float64], gram: NDArray[np.float64], axis: int, *, per_channel: bool
) -> NDArray[np.float64]:
    """The weight rounded up or down, each element so that the layer's sums have a smaller squared error.

    Coordinate descent from rounding to nearest on (q - w)' G (q - w), the error that calibration samples see; Nagel,
    Amjad, van Baalen, Louizos and Blankevoort, "Up or down? Adaptive rounding for post-training quantization", 2020,
    equation 13, state the problem. The result is never worse than the nearest by that measure.

    Args:
        weight: its output channels on `axis`.
        gram: mean of x x' over what a row of weights is multiplied with, (groups, inputs, inputs): output channels in
            order belong to the groups, equally many to each.
        axis: see above.
        per_channel: as for `quantize`.
    """
    rows = _rows(weight, axis)
    largest = np.abs(rows).max(axis=1) if per_channel else np.full(len(rows), np.abs(rows).max())
    steps = (np.where(largest > 0, largest, 1.0) / 127).astype(np.float32).astype(np.float64)[:, None]
    exact = rows / steps
    down = np.floor(exact + 1e-6)  # float noise on whole steps leaves no choice
    up = np.where((rows == 0) | (exact - down < 2e-6), down, down + 1)
    q = np.clip(np.floor(exact + 0.5), down, up)
    size = len(rows) // len(gram)
    for group, matrix in enumerate(gram):
        part = slice(group * size, (group + 1) * size)
        q[part] = _descend(q[part], exact[part], down[part], up[part], matrix)
    return _back(np.clip(q, -127, 127) * steps, weight, axis)


def _descend(
    q: NDArray[np.float64],
    exact: NDArray[np.float64],
    down: NDArray[np.float64],
    up: NDArray[np.float64],
    gram: NDArray[np.float64],
) -> NDArray[np.float64]:
    q = q.copy()
    gradient = (q - exact) @ gram
    for _ in range(_SWEEPS):
        changed = False
        for k in range(q.shape[1]):
            move = down[:, k] + up[:, k] - 2 * q[:, k]  # to the other of the two steps
            gain = 2 * move * gradient[:, k] + np.square(move) * gram[k, k]
            taken = np.where(gain < -1e-12 * gram[k, k], move, 0.0)
            if taken.any():
                q[:, k] += taken
                gradient += taken[:, None] * gram[k]
                changed = True
        if not changed:
            break
    return q


def add_gram(gram: NDArray[np.float64] | None, layer: Layer, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums of x x' over one more batch of a layer's inputs, in the file's layout; see `round_weight`."""
    rows = _inputs(layer, np.asarray(x, np.float64))
    found: NDArray[np.float64] = np.matmul(rows.transpose(0, 2, 1), rows)
    return found if gram is None else gram + found


def gram_inputs(layer: Layer) -> int:
    """Length of a Gram matrix's side."""
    return layer.weight.size // layer.channels


def _inputs(layer: Layer, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """What rows of weights are multiplied with: (groups, positions, inputs)."""
    if layer.op.kind == "Linear":
        return x.reshape(1, -1, x.shape[-1])
    attributes = layer.op.attributes
    kernel = layer.weight.shape[2:]
    rank, groups, pads = len(kernel), attributes["group"], attributes["pads"]
    x = np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))])
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel, attributes["dilations"], strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(x, span, axis=tuple(range(2, 2 + rank)))
    strided = (slice(None), slice(None), *(slice(None, None, s) for s in attributes["strides"]))
    windows = windows[(*strided, *(slice(None, None, d) for d in attributes["dilations"]))]
    # (N, C, *positions, *kernel) -> (groups, N * positions, C / groups * kernel)
    channels, places = x.shape[1] // groups, windows.shape[2 : 2 + rank]
    split = windows.reshape(len(x), groups, channels, *places, *kernel)
    order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    return np.ascontiguousarray(split.transpose(order)).reshape(groups, -1, gram_inputs(layer))


def _rows(weight: NDArray[np.float64], axis: int | None) -> NDArray[np.float64]:
    return weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def _back(rows: NDArray[np.float64], weight: NDArray[np.float64], axis: int | None) -> NDArray[np.float64]:
    if axis is None:
        return rows.reshape(weight.shape)
    moved = np.moveaxis(weight, axis, 0)
    return np.moveaxis(rows.reshape(moved.shape), 0, axis)
