"""What the depthwise kernel for cores with the DSP extension is given, and what it leaves to the portable one."""

import numpy as np
import pytest

from codegen.emit import KernelCall, kernel_call
from codegen.emit.depthwise_conv2d import MOST_SCRATCH
from refsim.ops.base import Requantization
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.tensor import Shape


def call(shape: Shape, kernel: tuple[int, int] = (3, 3), multiplier: int = 1, **window: tuple[int, ...]) -> KernelCall:
    channels = shape[2] * multiplier
    weight = np.arange(kernel[0] * kernel[1] * channels).reshape(*kernel, channels).astype(np.int8)
    output = Requantization.from_real(0.01, 3)
    op = DepthwiseConv2D(weight, np.arange(channels, dtype=np.int32), -128, output, **window)
    return kernel_call(op, (shape,), dsp=True)


@pytest.mark.parametrize(
    "left",
    [
        call((9, 9, 3)),
        call((9, 9, 4), multiplier=2),
        call((9, 9, 4), kernel=(3, 4)),
        call((9, 9, 4), stride=(1, 2)),
        call((9, 9, 4), stride=(3, 3)),
        call((9, 9, 4), dilation=(1, 2)),
    ],
)
def test_what_is_left_to_the_portable_kernel(left: KernelCall) -> None:
    assert left.kernel == "tnf_depthwise_conv2d"
    assert left.scratch_bytes == 0


@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (3, 1)])
def test_weights_are_rows_of_the_kernel_filled_up_with_zeros(kernel: tuple[int, int]) -> None:
    params = call((9, 9, 5), kernel).params
    words = params["weight"]
    assert isinstance(words, np.ndarray)
    found = words.astype("<i4").view(np.int8).reshape(5, 3, 4)
    expected = np.zeros((5, 3, 4), np.int8)
    for channel in range(5):
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                expected[channel, row, column] = (row * kernel[1] + column) * 5 + channel
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(params["bias"], np.arange(5) + 128 * expected.sum(axis=(1, 2), dtype=np.int64))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 5, 8, 16, 31, 64, 200])
def test_strips_are_even_of_one_size_and_fit_the_scratch(side: int, stride: int) -> None:
    found = call((side, side, 4), padding=(1, 1, 1, 1), stride=(stride, stride))
    strip, output = found.params["strip"], found.params["output_h"]
    assert isinstance(strip, int) and isinstance(output, int)
    row = 32 * (-(-output // 2) if stride == 1 else output)
    assert strip >= 2 and strip % 2 == 0
    assert found.scratch_bytes == row * ((strip - 1) * stride + 3)
    assert found.scratch_bytes <= MOST_SCRATCH or strip == 2
    # No strip could be left out by a larger one that fits, and a smaller one would need more strips.
    larger = strip + 2
    if -(-output // larger) < -(-output // strip):
        assert row * ((larger - 1) * stride + 3) > MOST_SCRATCH
    assert strip == 2 or -(-output // (strip - 2)) > -(-output // strip)
