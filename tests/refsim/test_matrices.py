"""The steps around the integer product: channels to rows and back, for whole and partial words."""

import numpy as np
import pytest

from refsim.matrices import remove_zero_point_transposed, write_transposed
from refsim.planes import fill_planes, plane_size


@pytest.mark.parametrize("channels", [1, 3, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_channels_become_rows_and_return(channels: int, dtype: type[np.signedinteger]) -> None:
    x = np.random.default_rng(channels).integers(-128, 128, (37, channels)).astype(np.int8)
    words, rows = np.empty(40, np.uint64), np.full((channels + 1, 40), 5, dtype)
    remove_zero_point_transposed(x, -128, words, rows)
    np.testing.assert_array_equal(rows[:channels, :37], x.T.astype(np.int32) + 128)
    assert (rows[channels] == 5).all() and (rows[:, 37:] == 5).all()

    y = np.empty_like(x)
    write_transposed(np.ascontiguousarray(x.T), words, y)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("channels", [(0, 3), (2, 13), (8, 16)])
def test_planes_hold_the_padded_image(stride: tuple[int, int], channels: tuple[int, int]) -> None:
    padding, zero_point, (first, end) = (1, 2, 3, 0), -7, channels
    x = np.random.default_rng(end).integers(-128, 128, (2, 6, 9, 16)).astype(np.int8)
    height, width = plane_size((6, 9), (4, 5), stride, padding)
    shape = (*stride, end - first, 2, height, width)
    pixels = np.full(np.prod(shape), 999, np.int32)
    words = np.empty(height * width, np.uint64)
    fill_planes(x, zero_point, stride, padding, first, end, words, width, 2 * height * width, end - first, pixels)

    padded = np.zeros((2, height * stride[0], width * stride[1], end - first), np.int32)
    padded[:, 1 : 1 + 6, 2 : 2 + 9] = x[..., first:end].astype(np.int32) - zero_point
    by_remainder = padded.reshape(2, height, stride[0], width, stride[1], end - first).transpose(2, 4, 5, 0, 1, 3)
    np.testing.assert_array_equal(pixels.reshape(shape), by_remainder)
