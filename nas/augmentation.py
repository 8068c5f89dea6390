"""Images as a network takes them, and random variants of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MARGIN = 4
"""Pixels by which an image is shifted at most, unless told otherwise."""

_PIXEL_ZERO = 128
"""The pixel value that becomes 0 at the network's input; the border of a shifted crop is filled with it."""


def normalise(images: Tensor) -> Tensor:
    """uint8 NHWC -> float32 NCHW, (pixel - 128) / 128 (the tensor form of `nas.data.to_input`).

    The memory stays NHWC (torch's channels_last), 1.5 times as fast for small convolutions on a CPU.
    """
    return images.permute(0, 3, 1, 2).float().div(128).sub(1)


def random_mirror(count: int, generator: torch.Generator) -> Tensor:
    """Which of `count` images to mirror: each at even odds; bool (count,)."""
    return torch.randint(0, 2, (count,), generator=generator).bool()


def alternating_mirror(indices: Tensor, epoch: int) -> Tensor:
    """Which images to mirror in an epoch: half of all, and in the next epoch the others; bool, the shape of `indices`.

    Which half begins depends on the images' numbers in the data set alone.
    """
    return (indices * _KNUTH // 2**16 + epoch) % 2 == 1


_KNUTH = 2_654_435_761
"""Multiplying by it scatters neighbouring numbers (Knuth's multiplicative hash)."""


def random_crop_flip(images: Tensor, mirrored: Tensor, generator: torch.Generator, margin: int = MARGIN) -> Tensor:
    """Shift each image by up to `margin` pixels in both directions and mirror those of `mirrored`; uint8 NHWC.

    A signal, which is an image of height 1, is shifted in time only.

    The generator is the CPU's wherever the images are, so that a run's numbers do not depend on the device.
    """
    batch, height, width, _ = images.shape
    device, signal = images.device, height == 1
    above = 0 if signal else margin
    padded = nn.functional.pad(images, (0, 0, margin, margin, above, above), value=_PIXEL_ZERO)
    top = torch.randint(0, 2 * above + 1, (batch, 1), generator=generator).to(device)
    left = torch.randint(0, 2 * margin + 1, (batch, 1), generator=generator).to(device)
    across = torch.arange(width, device=device)
    rows = top + torch.arange(height, device=device)
    turned = mirrored.to(device)[:, None] & (not signal)
    columns = left + torch.where(turned, across.flip(0), across)
    return padded[torch.arange(batch, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
