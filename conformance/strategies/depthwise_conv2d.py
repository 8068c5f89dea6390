"""Cases of depthwise_conv2d."""

from hypothesis import strategies as st

from conformance.strategies.base import (
    Case,
    activations,
    convolution_axes,
    lengths,
    padding_of,
    paired,
    weighted,
    zero_points,
)
from refsim.ops.depthwise_conv2d import DepthwiseConv2D


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Images up to 20 x 20, depth multipliers, both strides and dilations, any padding."""
    axes = (draw(convolution_axes()), draw(convolution_axes()))
    channels, multiplier = draw(lengths(6, (9, 16, 33))), draw(lengths(1, (2, 3, 8)))
    zero_point = draw(zero_points())
    weight, bias, output = draw(weighted((*paired(axes, lambda a: a.kernel), channels * multiplier), 2, zero_point))
    op = DepthwiseConv2D(
        weight,
        bias,
        zero_point,
        output,
        stride=paired(axes, lambda a: a.stride),
        padding=padding_of(axes),
        dilation=paired(axes, lambda a: a.dilation),
    )
    return Case(op, (draw(activations((*paired(axes, lambda a: a.size), channels))),))
