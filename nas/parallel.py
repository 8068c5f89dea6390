"""Data-parallel training: processes that `torchrun` started train one network, each on its share of every batch.

A process alone is a group of one. All hold the same weights: they begin with the same seed and take the same steps, for
gradients are averaged before each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed

_WORLD = "WORLD_SIZE"
"""Variable in which `torchrun` tells how many processes there are."""


def join() -> None:
    """Meet the other processes, if `torchrun` started some; once for each process."""
    if _WORLD in os.environ and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def size() -> int:
    """How many processes train."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the processes; floating-point tensors of the same shapes in all of them."""
    if size() == 1:
        return
    chosen = list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in chosen])
    distributed.all_reduce(flat)
    flat /= size()
    start = 0
    for tensor in chosen:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()
