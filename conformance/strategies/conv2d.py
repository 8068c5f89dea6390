"""Cases of conv2d."""

from hypothesis import strategies as st

from conformance.strategies.base import (
    Case,
    activations,
    convolution_axes,
    lengths,
    padding_of,
    paired,
    smallness,
    weighted,
    zero_points,
)
from refsim.ops.conv2d import Conv2D


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Images up to 20 x 20, groups, both strides and dilations, any padding."""
    axes = (draw(convolution_axes()), draw(convolution_axes()))
    groups = draw(lengths(1, (2, 3)))
    inputs, outputs = draw(lengths(5, (8, 17, 33))), draw(lengths(6, (9, 15)))
    kernel = paired(axes, lambda a: a.kernel)
    zero_point, small = draw(zero_points()), draw(smallness())
    weight, bias, output = draw(weighted((groups * outputs, *kernel, inputs), 0, zero_point, small))
    op = Conv2D(
        weight,
        bias,
        zero_point,
        output,
        stride=paired(axes, lambda a: a.stride),
        padding=padding_of(axes),
        dilation=paired(axes, lambda a: a.dilation),
        groups=groups,
    )
    shape = (*paired(axes, lambda a: a.size), groups * inputs)
    return Case(op, (draw(activations(shape, zero_point if small else None)),))
