"""Sliding windows over an image: the geometry that convolutions and pooling share (docs/numerics.md, conv2d)."""

from dataclasses import dataclass

from refsim.compiled import compiled
from refsim.errors import ShapeError
from refsim.tensor import MOST_ELEMENTS, Shape

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Kernel size and how it moves.

    Attributes:
        kernel: (height, width).
        stride: (height, width).
        padding: (top, left, bottom, right).
        dilation: (height, width).

    Raises:
        ShapeError: a size, stride or dilation below 1, or a negative padding.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        if min(*self.kernel, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise ShapeError(
                f"window needs kernel, stride and dilation of at least 1 and padding of at least 0, found {self}"
            )

    def output_size(self, height: int, width: int) -> Pair:
        """Output (height, width) for an image of the given size.

        Raises:
            ShapeError: the window does not fit even once.
        """
        top, left, bottom, right = self.padding
        sizes = []
        for size, before, after, axis in ((height, top, bottom, 0), (width, left, right, 1)):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            if size + before + after < span:
                raise ShapeError(f"a window of {span} does not fit an axis of {size} padded by {before} and {after}")
            sizes.append((size + before + after - span) // self.stride[axis] + 1)
        return sizes[0], sizes[1]

    def check_indices(self, height: int, width: int, channels: int) -> None:
        """Check that kernels reach every position with int32 (docs/numerics.md, section 4).

        Raises:
            ShapeError: the padded image, stride or dilation are too large for so many channels.
        """
        top, left, bottom, right = self.padding
        reach_h = max(height + top + bottom, self.stride[0], self.dilation[0])
        reach_w = max(width + left + right, self.stride[1], self.dilation[1])
        if reach_h * reach_w * channels > MOST_ELEMENTS:
            raise ShapeError(
                f"padded image, stride and dilation reach over {reach_h} x {reach_w} positions of {channels} channels, "
                f"more than {MOST_ELEMENTS} elements"
            )

    def check_covers_image(self, height: int, width: int) -> None:
        """Check that every window holds at least one position inside the image (pooling needs one).

        Raises:
            ShapeError: one does not.
        """
        out_h, out_w = self.output_size(height, width)
        top, left, _, _ = self.padding
        for size, before, kernel, stride, count in (
            (height, top, self.kernel[0], self.stride[0], out_h),
            (width, left, self.kernel[1], self.stride[1], out_w),
        ):
            if before >= kernel or (count - 1) * stride - before >= size:
                raise ShapeError(f"a pooling window lies wholly in the padding (size {size}, {self})")


def image_shape(shape: Shape, what: str) -> tuple[int, int, int]:
    """The shape as (height, width, channels).

    Raises:
        ShapeError: it has another rank.
    """
    if len(shape) != 3:
        raise ShapeError(f"{what} takes an image (height, width, channels), found shape {shape}")
    return shape[0], shape[1], shape[2]


@compiled(inline=True)
def inside(position: int, size: int) -> bool:
    """Whether a coordinate lies in the image and not in its padding."""
    return bool(0 <= position < size)
