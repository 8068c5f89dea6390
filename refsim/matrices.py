"""The product of two integer matrices and the steps around it, as loop nests over long rows.

Activations lie channels last, but the product is fastest where its inner loop runs over many positions of one channel.
So the operators turn channels into rows on the way in and back on the way out. That goes by words: eight channels of a
position are neighbours in memory and travel together as one integer of 64 bits, and the loops that take words apart
or build them run over positions, which compiles to vector code.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.compiled import compiled
from refsim.numerics import Int8Array, Int16Array, Int32Array, Int64Array, Integer, Stage, finish

WordArray = NDArray[np.uint64]

BLOCK = 4
"""Rows and terms that `accumulate` takes together, so that each number it loads serves several sums."""
LANES = 512
"""Columns that are computed together: enough for long vector loops, few enough to stay in a core's cache."""
WORD = 8
"""Channels of a position that travel together."""


@compiled(inline=True)
def padded_length(length: int, block: int) -> int:
    """`length` rounded up to a multiple of `block`."""
    return (length + block - 1) // block * block


def pad_blocks(matrix: Int8Array) -> Int16Array:
    """A matrix as int16, with zeros up to whole blocks of rows and columns, as `accumulate` takes it."""
    rows, columns = matrix.shape
    padded = np.zeros((padded_length(rows, BLOCK), padded_length(columns, BLOCK)), np.int16)
    padded[:rows, :columns] = matrix
    return padded


@compiled()
def accumulate(left: Int16Array, right: Int32Array, offsets: Int64Array, acc: Int32Array) -> None:
    """acc[r, i] += sum over k of left[r, k] * right[offsets[k] + i]: the product of two matrices.

    Args:
        left: int16 (R, K); R and K are multiples of BLOCK.
        right: int32, the rows of the right matrix, each somewhere in it; they may overlap.
        offsets: int64 (K,): where each row begins.
        acc: int32 (R, I) to add to.
    """
    columns = acc.shape[1]
    for r in range(0, left.shape[0], 4):
        acc0, acc1, acc2, acc3 = acc[r], acc[r + 1], acc[r + 2], acc[r + 3]
        for k in range(0, left.shape[1], 4):
            a0, a1, a2, a3 = _four(left, r, k)
            b0, b1, b2, b3 = _four(left, r + 1, k)
            c0, c1, c2, c3 = _four(left, r + 2, k)
            d0, d1, d2, d3 = _four(left, r + 3, k)
            right0, right1 = right[offsets[k] :][:columns], right[offsets[k + 1] :][:columns]
            right2, right3 = right[offsets[k + 2] :][:columns], right[offsets[k + 3] :][:columns]
            for i in range(columns):
                x0, x1, x2, x3 = right0[i], right1[i], right2[i], right3[i]
                acc0[i] += np.int32(np.int32(a0 * x0 + a1 * x1) + np.int32(a2 * x2 + a3 * x3))
                acc1[i] += np.int32(np.int32(b0 * x0 + b1 * x1) + np.int32(b2 * x2 + b3 * x3))
                acc2[i] += np.int32(np.int32(c0 * x0 + c1 * x1) + np.int32(c2 * x2 + c3 * x3))
                acc3[i] += np.int32(np.int32(d0 * x0 + d1 * x1) + np.int32(d2 * x2 + d3 * x3))


@compiled(inline=True)
def _four(matrix: Int16Array, r: int, k: int) -> tuple[np.int32, np.int32, np.int32, np.int32]:
    return np.int32(matrix[r, k]), np.int32(matrix[r, k + 1]), np.int32(matrix[r, k + 2]), np.int32(matrix[r, k + 3])


@compiled()
def remove_zero_point(x: Int8Array, zero_point: int, centred: Int16Array | Int32Array) -> None:
    """centred[j, i] = x[j, i] - zero_point over x; centred may be larger."""
    for j in range(x.shape[0]):
        for i in range(x.shape[1]):
            centred[j, i] = np.int16(np.int16(x[j, i]) - np.int16(zero_point))


@compiled()
def remove_zero_point_transposed(x: Int8Array, zero_point: int, words: WordArray, centred: NDArray[Any]) -> None:
    """centred[i, j] = x[j, i] - zero_point over x; centred, int16 or int32, may be larger.

    Args:
        x: int8 (J, I).
        zero_point: of x.
        words: scratch of at least J.
        centred: to fill.
    """
    some = words[: x.shape[0]]
    for first in range(0, x.shape[1], WORD):
        read_words(x, 0, 1, first, x.shape[1], some)
        count, columns = min(WORD, x.shape[1] - first), centred.shape[1]
        spread_words(some, count, zero_point, centred.ravel()[first * columns :], columns)


@compiled(inline=True)
def _byte(value: Integer, shift: int) -> np.uint64:
    """A byte at its place in a word."""
    return np.uint64(np.uint8(value)) << np.uint64(shift)


@compiled(inline=True)
def read_words(x: Int8Array, start: int, step: int, first: int, end: int, words: WordArray) -> None:
    """words[j] = the bytes x[start + j * step, first : min(first + 8, end)], the first of them lowest."""
    if end - first >= 8:
        for j in range((x.shape[0] - start + step - 1) // step):
            b = x[start + j * step][first : first + 8]  # the compiler makes one load of the eight
            low = _byte(b[0], 0) | _byte(b[1], 8) | _byte(b[2], 16) | _byte(b[3], 24)
            words[j] = low | _byte(b[4], 32) | _byte(b[5], 40) | _byte(b[6], 48) | _byte(b[7], 56)
    else:
        for j in range((x.shape[0] - start + step - 1) // step):
            word = np.uint64(0)
            for c in range(first, end):
                word |= np.uint64(np.uint8(x[start + j * step, c])) << np.uint64(8 * (c - first))
            words[j] = word


@compiled()
def spread_words(words: WordArray, count: int, zero_point: int, centred: NDArray[Any], distance: int) -> None:
    """centred[c * distance + j] = byte c of words[j], an int8, minus zero_point, for c < count; int16 or int32."""
    for c in range(count):
        row, shift = centred[c * distance :][: words.size], np.uint64(8 * c)
        for j in range(words.size):
            row[j] = np.int32(np.int32(np.int8(words[j] >> shift)) - np.int32(zero_point))


@compiled()
def join_words(rows: Int8Array, first: int, words: WordArray) -> None:
    """words[i] = the bytes rows[first : first + 8, i] as far as there are such rows, the first of them lowest."""
    if rows.shape[0] - first >= 8:
        a, b, c, d = rows[first], rows[first + 1], rows[first + 2], rows[first + 3]
        e, f, g, h = rows[first + 4], rows[first + 5], rows[first + 6], rows[first + 7]
        for i in range(words.size):
            low = _byte(a[i], 0) | _byte(b[i], 8) | _byte(c[i], 16) | _byte(d[i], 24)
            words[i] = low | _byte(e[i], 32) | _byte(f[i], 40) | _byte(g[i], 48) | _byte(h[i], 56)
    else:
        words[:] = np.uint64(0)
        for c in range(first, rows.shape[0]):
            row, shift = rows[c], np.uint64(8 * (c - first))
            for i in range(words.size):
                words[i] |= np.uint64(np.uint8(row[i])) << shift


@compiled(inline=True)
def write_words(words: WordArray, first: int, end: int, y: Int8Array) -> None:
    """y[i, first : min(first + 8, end)] = the bytes of words[i]."""
    if end - first >= 8:
        for i in range(y.shape[0]):
            b, word = y[i, first : first + 8], words[i]  # the compiler makes one store of the eight
            b[0], b[1] = np.int8(word), np.int8(word >> np.uint64(8))
            b[2], b[3] = np.int8(word >> np.uint64(16)), np.int8(word >> np.uint64(24))
            b[4], b[5] = np.int8(word >> np.uint64(32)), np.int8(word >> np.uint64(40))
            b[6], b[7] = np.int8(word >> np.uint64(48)), np.int8(word >> np.uint64(56))
    else:
        for i in range(y.shape[0]):
            for c in range(first, end):
                y[i, c] = np.int8(words[i] >> np.uint64(8 * (c - first)))


@compiled()
def write_transposed(rows: Int8Array, words: WordArray, y: Int8Array) -> None:
    """y[i, c] = rows[c, i] over y; rows may be longer.

    Args:
        rows: int8 (C, I).
        words: scratch of at least I.
        y: int8 (I, C) to fill.
    """
    some = words[: y.shape[0]]
    for first in range(0, y.shape[1], WORD):
        join_words(rows, first, some)
        write_words(some, first, y.shape[1], y)


@compiled()
def finish_columns(acc: Int32Array, first: int, stage: Stage, y: Int8Array) -> None:
    """Requantise columns: y[c, i] from acc[c, i] with the multiplier of channel first + c; acc may be larger than y."""
    for c in range(y.shape[0]):
        multiplier, shift = stage.multiplier[first + c], stage.shift[first + c]
        if stage.rounding == 0:
            for i in range(y.shape[1]):
                y[c, i] = finish(acc[c, i], multiplier, shift, 0, stage)
        else:
            for i in range(y.shape[1]):
                y[c, i] = finish(acc[c, i], multiplier, shift, 1, stage)


@compiled()
def finish_rows(acc: Int32Array, stage: Stage, y: Int8Array) -> None:
    """Requantise rows: y[j, c] from acc[j, c] with the multiplier of channel c; acc may be larger than y."""
    for j in range(y.shape[0]):
        if stage.rounding == 0:
            for c in range(y.shape[1]):
                y[j, c] = finish(acc[j, c], stage.multiplier[c], stage.shift[c], 0, stage)
        else:
            for c in range(y.shape[1]):
                y[j, c] = finish(acc[j, c], stage.multiplier[c], stage.shift[c], 1, stage)
