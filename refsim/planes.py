"""Images as planes: each channel by itself and padded, so that what a tap of a kernel sees lies in long rows.

A tap moves over the padded image as the window does: what it sees at all positions is a plane from the tap's own offset
on. With a stride, the positions a tap meets are those of one remainder by the stride: each remainder has its own plane.
So sums over a window are sums of rows that need not be copied together. The rows run over whole rows of the plane, and
over several samples where one is short; sums where the window juts out are computed and left.
"""

import numpy as np

from refsim.compiled import compiled
from refsim.matrices import LANES, WORD, WordArray, join_words, read_words, spread_words, write_words
from refsim.numerics import Int8Array, Int32Array, Int64Array
from refsim.windows import Pair

Padding = tuple[int, int, int, int]


@compiled(inline=True)
def plane_size(image: Pair, output: Pair, stride: Pair, padding: Padding) -> Pair:
    """(height, width) of a plane for an image and an output of the given sizes.

    Without a stride, the zeros on the right of a row are those on the left of the next one, and the zeros under a
    sample or channel those above the next one.
    """
    if stride[0] == 1 and stride[1] == 1:
        return (
            max(output[0], image[0] + max(padding[0], padding[2])),
            max(output[1], image[1] + max(padding[1], padding[3])),
        )
    return (
        (padding[0] + image[0] + padding[2] + stride[0] - 1) // stride[0],
        (padding[1] + image[1] + padding[3] + stride[1] - 1) // stride[1],
    )


@compiled(inline=True)
def row_blocks(samples: int, out_h: int, size: Pair) -> tuple[int, int]:
    """Rows where a window may start in the planes of some samples, and how many of them are computed together."""
    rows = (samples - 1) * size[0] + out_h
    blocks = max(1, (rows * size[1] + LANES // 2) // LANES)
    return rows, (rows + blocks - 1) // blocks


@compiled()
def tap_offsets(kernel: Pair, dilation: Pair, stride: Pair, plane: int, width: int, count: int) -> Int64Array:
    """Where the rows of each tap (kh, kw) begin in planes [p, q, plane]; zeros up to `count` taps.

    Args:
        kernel: (height, width).
        dilation: (height, width).
        stride: (height, width).
        plane: elements between remainders.
        width: of a plane.
        count: length of the result.
    """
    offsets = np.zeros(count, np.int64)
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            i, p = divmod(kh * dilation[0], stride[0])
            j, q = divmod(kw * dilation[1], stride[1])
            offsets[kh * kernel[1] + kw] = (p * stride[1] + q) * plane + i * width + j
    return offsets


@compiled()
def fill_planes(
    x: Int8Array,
    input_zero_point: int,
    stride: Pair,
    padding: Padding,
    first: int,
    end: int,
    words: WordArray,
    width: int,
    plane: int,
    depth: int,
    pixels: Int32Array,
) -> None:
    """planes[p, q, c, n, i, j] = x[n, i * stride + p - top, j * stride + q - left, first + c] - z_x, first + c < end.

    Outside the image 0.

    Args:
        x: int8 (N, H, W, C).
        input_zero_point: z_x.
        stride: (height, width).
        padding: (top, left, bottom, right).
        first: channel to begin with.
        end: channel to stop before.
        words: scratch of one plane of one sample.
        width: of a plane.
        plane: elements of a plane, which holds N samples or more.
        depth: planes of each remainder.
        pixels: int32, to fill: `planes`, (stride, stride, depth, plane / (height * width), height, width).
    """
    padding_word = np.uint64(np.uint8(input_zero_point)) * np.uint64(0x0101010101010101)
    for p in range(stride[0]):
        for q in range(stride[1]):
            top, left = (p - padding[0]) % stride[0], (q - padding[1]) % stride[1]
            words[:] = padding_word  # what the image leaves is its padding
            for n in range(x.shape[0]):
                for c in range(first, end, WORD):
                    for h in range(top, x.shape[1], stride[0]):
                        start = (padding[0] + h) // stride[0] * width + (padding[1] + left) // stride[1]
                        read_words(x[n, h], left, stride[1], c, end, words[start:])
                    row = pixels[((p * stride[1] + q) * depth + c - first) * plane + n * words.size :]
                    spread_words(words, min(WORD, end - c), input_zero_point, row, plane)


@compiled()
def write_planes(
    finished: Int8Array, words: WordArray, size: Pair, first_row: int, samples: int, first: int, y: Int8Array
) -> None:
    """Write finished rows where they belong: y[n, oh, ow, first + c] from finished[c, row of (n, oh) + ow].

    Args:
        finished: int8 (C, columns), the sums at whole rows of planes from `first_row` on.
        words: scratch of as many columns.
        size: (height, width) of a plane.
        first_row: row of the planes where `finished` begins.
        samples: in the planes.
        first: channel of y where those of `finished` begin.
        y: int8 (samples, OH, OW, O) to fill.
    """
    height, width = size
    for c in range(0, finished.shape[0], WORD):
        join_words(finished, c, words)
        for row in range(words.size // width):
            n, oh = divmod(first_row + row, height)
            if n < samples and oh < y.shape[1]:
                write_words(words[row * width :], first + c, min(first + finished.shape[0], first + c + WORD), y[n, oh])
