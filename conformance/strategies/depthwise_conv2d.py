"""Cases of depthwise_conv2d."""

from functools import cache

from hypothesis import strategies as st

from conformance.strategies.base import (
    Case,
    WindowAxis,
    activations,
    convolution_axes,
    lengths,
    narrowed,
    padding_of,
    paired,
    smallness,
    weighted,
    zero_points,
)
from refsim.ops.depthwise_conv2d import DepthwiseConv2D


@cache
@st.composite
def _common_axes(draw: st.DrawFn, stride: int) -> WindowAxis:
    """Windows of up to three without dilation, for which there are kernels of their own."""
    kernel, before, after = draw(st.sampled_from((3, 3, 2, 1))), draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return WindowAxis(max(draw(lengths(9, (15, 20))), kernel - before - after), kernel, stride, 1, before, after)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Images up to 20 x 20, depth multipliers, both strides and dilations, any padding; half are of the common kind.

    A few are so wide that they are computed in several strips.
    """
    kind = draw(st.sampled_from((*("any",) * 12, *("common",) * 12, "wide")))
    if kind == "wide":
        stride = draw(st.sampled_from((1, 2)))
        width = draw(st.sampled_from((200, 420)))  # 420: strips of two rows with sparse weights too
        height = draw(st.integers(9, 12) if width == 200 else st.integers(3, 5))
        # With a padding of 4 a strip has nothing of the image.
        above, below = draw(st.sampled_from((0, 1, 4, 4))), draw(st.sampled_from((0, 1, 4, 4)))
        axes = (WindowAxis(height, 3, stride, 1, above, below), WindowAxis(width, 3, stride, 1, 1, 1))
        channels, multiplier = draw(st.sampled_from((4, 5))), 1
    elif kind == "any":
        axes = (draw(convolution_axes()), draw(convolution_axes()))
        channels, multiplier = draw(lengths(6, (9, 16, 33))), draw(lengths(1, (2, 3, 8)))
    else:
        strides = draw(st.sampled_from(((1, 1), (2, 2), (1, 2))))
        axes = (draw(_common_axes(strides[0])), draw(_common_axes(strides[1])))
        channels, multiplier = draw(st.sampled_from((4, 5, 7, 8, 10, 16))), 1
    zero_point, small = draw(zero_points()), draw(smallness())
    kernel = paired(axes, lambda a: a.kernel)
    weight, bias, output = draw(weighted((*kernel, channels * multiplier), 2, zero_point, small))
    if kind == "common":
        output = draw(narrowed(output))
    op = DepthwiseConv2D(
        weight,
        bias,
        zero_point,
        output,
        stride=paired(axes, lambda a: a.stride),
        padding=padding_of(axes),
        dilation=paired(axes, lambda a: a.dilation),
    )
    shape = (*paired(axes, lambda a: a.size), channels)
    return Case(op, (draw(activations(shape, zero_point if small else None)),))
