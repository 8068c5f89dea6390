"""Training on another device than the processor: torch's "meta", which has shapes but no numbers.

An operator refuses tensors of two devices there as on a GPU, so a tensor that was made on the processor and forgotten
is found without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

NEEDS = 'is not installed: pip install "tinyformer[nas]"'
torch = pytest.importorskip("torch", reason=f"torch {NEEDS}")

from rich.console import Console

from nas import training as loop
from nas.distillation import distillation
from nas.layers import describe
from nas.network import PathNetwork
from nas.pruning import KeepZeros, one_shot_prune
from nas.sampling import random_super
from nas.supernet import SinglePath, Supernet
from nas.training import Hardware, Hook, TrainingConfig, fast_schedule, paper_schedule, train
from tests.nas.tiny import SPACE, architecture, dark_and_bright

DATA = dark_and_bright(96)
META = Hardware(device="meta")
QUIET = Console(quiet=True)
SCHEDULE = paper_schedule(1, batch_size=32)
STEPS = 3


class Steps(Hook):
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def after_step(self, model: Any, step: int) -> None:
        assert {p.device.type for p in model.parameters()} == {"meta"}
        self.count += 1


class NoOptimiser:
    """In place of one whose kernels the device lacks."""

    param_groups: Sequence[dict[str, Any]] = ({"lr": 0.0},)

    def step(self) -> None:
        """Nothing: there are no numbers."""

    def zero_grad(self) -> None:
        """The same."""


@pytest.fixture(autouse=True)
def _what_meta_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: contextlib.nullcontext())
    monkeypatch.setattr(loop, "make_optimisers", lambda *_args: (NoOptimiser(),))


def network() -> PathNetwork:
    return PathNetwork(describe(architecture(0)))


def trained(config: TrainingConfig = SCHEDULE, **options: Any) -> None:
    train(network, DATA, None, config=config, hardware=META, console=QUIET, **options)


MASKS = one_shot_prune(network())

WAYS: dict[str, Callable[[Hook], object]] = {
    "paper": lambda hook: trained(hooks=[hook]),
    "fast": lambda hook: trained(fast_schedule(1, batch_size=32), hooks=[hook]),
    "distillation": lambda hook: trained(
        hooks=[hook], objective=distillation(network().to("meta"), direction="reverse", label_smoothing=0.1)
    ),
    "masks": lambda hook: trained(hooks=[KeepZeros(MASKS), hook]),
    "supernet": lambda hook: train(
        lambda: Supernet(SPACE, random_super(SPACE, np.random.default_rng(0))),
        DATA,
        None,
        config=SCHEDULE,
        hooks=[SinglePath(), hook],
        hardware=META,
        console=QUIET,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_tensor_stays_behind(way: str) -> None:
    steps = Steps()
    # the mean loss is the first number that is asked for, after the last step
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        WAYS[way](steps)
    assert steps.count == STEPS


def test_a_tensor_that_stays_behind_is_found() -> None:
    def forgetful(logits: Any, _labels: Any, _inputs: Any) -> Any:
        return (logits * torch.ones(logits.shape)).sum()

    steps = Steps()
    with pytest.raises(RuntimeError, match="device"):
        trained(hooks=[steps], objective=forgetful)
    assert steps.count == 0
