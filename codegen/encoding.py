"""Blockwise run-length coding of sparse weights (docs/encoding.md; TinyFormer, section III-D.1).

Each output channel is a row of the weight matrix. Its weights are taken in blocks along the input channels, or along
the kernel's width where a channel has no others; a block that is not all zero is stored as its distance from the block
before, one byte, and its weights.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refsim.numerics import Int8Array, Int32Array

BLOCKS = (4, 2, 1)
"""Weights of a block along the input channels: the sizes for which there are kernels."""

WIDTH_BLOCK = 3
"""Weights of a block along the kernel's width: with its distance, a word."""

GROUP = 4
"""Blocks of `BLOCKS` whose weights and distances lie together."""

MAX_DISTANCE = 255
"""A distance is one byte. Where the next block is further away, a block of zeros is put in between."""


@dataclass(frozen=True, eq=False)
class SparseWeight:
    """Weights as the sparse kernels read them.

    Attributes:
        block: weights of a block.
        blocks: int32 (rows,), blocks stored of each row, those of zeros included.
        words: int32, the rows' streams one after the other; at least one word, since C knows no empty array.
    """

    block: int
    blocks: Int32Array
    words: Int32Array

    @property
    def weights(self) -> int:
        """Weights stored, zeros within blocks included: what the kernels multiply by."""
        return self.block * int(self.blocks.sum())


def encode(weight: Int8Array, block: int) -> SparseWeight:
    """Encode weights, any at all.

    Args:
        weight: int8 (rows, taps, input channels), or (rows, kernel height, kernel width) for blocks along the width;
            the last axis is filled up to whole blocks with 0.
        block: weights of a block, one of `BLOCKS` or `WIDTH_BLOCK`.
    """
    rows, taps, channels = weight.shape
    grid = np.zeros((rows, taps, math.ceil(channels / block) * block), np.int8)
    grid[..., :channels] = weight
    grid = grid.reshape(rows, -1, block)
    row, at = np.nonzero(grid.any(axis=2))
    gap = np.diff(at, prepend=0)
    starts = np.diff(row, prepend=-1) > 0  # a row's first distance is from its beginning
    gap[starts] = at[starts]
    # Blocks of zeros keep distances in a byte; they come before the block that is far away.
    bridges = np.maximum(gap - 1, 0) // MAX_DISTANCE
    last = np.cumsum(bridges + 1) - 1
    row = np.repeat(row, bridges + 1)
    weights = np.zeros((row.size, block), np.int8)
    weights[last] = grid[row[last], at]
    distances = np.full(row.size, MAX_DISTANCE, np.uint8)
    distances[last] = gap - MAX_DISTANCE * bridges
    blocks = np.bincount(row, minlength=rows)
    words = _words(weights, distances, row, blocks)
    return SparseWeight(block, blocks.astype(np.int32), words if words.size else np.zeros(1, np.int32))


def decode(encoded: SparseWeight, shape: tuple[int, int, int]) -> Int8Array:
    """The weights again; `shape` as in `encode`."""
    rows, taps, channels = shape
    block = encoded.block
    grid = np.zeros((rows, taps * math.ceil(channels / block), block), np.int8)
    at = 0
    if block == WIDTH_BLOCK:
        stored = encoded.words[: encoded.blocks.sum()].astype("<i4").view(np.int8).reshape(-1, block + 1)
        for row, words in zip(grid, np.split(stored, np.cumsum(encoded.blocks)[:-1]), strict=True):
            row[np.cumsum(words[:, block].view(np.uint8), dtype=np.int64)] = words[:, :block]
        return np.ascontiguousarray(grid.reshape(rows, taps, -1)[..., :channels])
    for row, count in zip(grid, encoded.blocks.tolist(), strict=True):
        absent = -count % GROUP
        skipped = absent * block // GROUP
        groups = math.ceil(count / GROUP)
        size = groups * (block + 1) - skipped
        words = np.zeros((groups, block + 1), "<i4")
        words.ravel()[skipped:] = encoded.words[at : at + size]
        at += size
        weights = np.ascontiguousarray(words[:, :block]).view(np.int8).reshape(groups, block, block, GROUP // block)
        distances = np.ascontiguousarray(words[:, block]).view(np.uint8)[absent:]
        row[np.cumsum(distances, dtype=np.int64)] = weights.transpose(0, 1, 3, 2).reshape(-1, block)[absent:]
    return np.ascontiguousarray(grid.reshape(rows, taps, -1)[..., :channels])


def _words(
    weights: Int8Array, distances: NDArray[np.uint8], row: NDArray[np.int64], blocks: NDArray[np.int64]
) -> Int32Array:
    """The rows' streams: groups of four blocks, weights and then distances; absent blocks are at a row's start.

    A block along the width is a word by itself.

    Args:
        weights: int8 (blocks, block), of all rows.
        distances: uint8 (blocks,).
        row: (blocks,), in ascending order.
        blocks: (rows,), how many of each row.
    """
    count, block = weights.shape
    words: Int32Array
    if block == WIDTH_BLOCK:
        words = np.hstack([weights, distances[:, np.newaxis].view(np.int8)]).view("<i4").astype(np.int32).ravel()
        return words
    absent = -blocks % GROUP
    places = np.arange(count) + np.cumsum(absent)[row]
    groups = (count + int(absent.sum())) // GROUP
    padded = np.zeros((groups * GROUP, block), np.int8)
    padded[places] = weights
    streams = np.zeros((groups, (block + 1) * GROUP), np.int8)
    interleaved = padded.reshape(groups, block, GROUP // block, block).transpose(0, 1, 3, 2)
    streams[:, : block * GROUP] = interleaved.reshape(groups, block * GROUP)
    last = np.zeros(groups * GROUP, np.uint8)
    last[places] = distances
    streams[:, block * GROUP :] = last.reshape(groups, GROUP).view(np.int8)
    # Words that hold absent blocks alone are left out.
    stored = np.ones((groups, block + 1), np.bool_)
    size = (blocks + absent) // GROUP
    first = (np.cumsum(size) - size)[blocks > 0]
    stored[first] = np.arange(block + 1) >= (absent * block // GROUP)[blocks > 0, np.newaxis]
    words = streams.view("<i4")[stored].astype(np.int32)
    return words
