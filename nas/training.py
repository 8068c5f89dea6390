"""The training loop: AdamW, warm-up then cosine, checkpoints that resume (paper, section IV-A).

Everything random in epoch n is drawn from a generator seeded with (seed, n), so a run that was interrupted and resumed
goes through exactly the numbers of one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from nas.data import LabelledImages
from refsim.errors import DataError

CROP_PADDING = 4
CHECKPOINT = "checkpoint.pt"
HISTORY = "history.json"

_PIXEL_ZERO = 128
"""The pixel value that becomes 0 at the network's input; the border of a shifted crop is filled with it."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one run; learning rates are per step, times in epochs.

    The paper trains 300 epochs with a peak of 5.5e-4; the defaults are a schedule for little CPU time.
    """

    epochs: int = 120
    batch_size: int = 128
    start_lr: float = 1e-6
    peak_lr: float = 3e-3
    final_lr: float = 1e-5
    warmup_epochs: int = 5
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    seed: int = 0
    bfloat16: bool = True


@dataclass(frozen=True)
class EpochResult:
    """One line of the history: mean training loss, validation accuracy in [0, 1], wall time."""

    epoch: int
    loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


def learning_rate(step: int, steps_per_epoch: int, config: TrainingConfig) -> float:
    """Learning rate of optimiser step `step`, counted from 0.

    Linear from `start_lr` to `peak_lr` over the warm-up epochs, then half a cosine down to `final_lr` at the last step.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.start_lr + (config.peak_lr - config.start_lr) * step / warmup
    last = config.epochs * steps_per_epoch - 1
    progress = (step - warmup) / max(last - warmup, 1)
    return config.final_lr + (config.peak_lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def normalise(images: Tensor) -> Tensor:
    """uint8 NHWC -> float32 NCHW, (pixel - 128) / 128 (the tensor form of `nas.data.to_input`).

    The memory stays NHWC (torch's channels_last), 1.5 times as fast for small convolutions on a CPU.
    """
    return images.permute(0, 3, 1, 2).float().div(128).sub(1)


def random_crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to 4 pixels in both directions and mirror half of them; uint8 NHWC in and out."""
    batch, height, width, _ = images.shape
    pad = CROP_PADDING
    padded = nn.functional.pad(images, (0, 0, pad, pad, pad, pad), value=_PIXEL_ZERO)
    top = torch.randint(0, 2 * pad + 1, (batch, 1), generator=generator)
    left = torch.randint(0, 2 * pad + 1, (batch, 1), generator=generator)
    mirrored = torch.randint(0, 2, (batch, 1), generator=generator).bool()
    across = torch.arange(width)
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, across.flip(0), across)
    return padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def accuracy(model: nn.Module, data: LabelledImages, batch_size: int = 500) -> float:
    """Share of `data` that `model` (switched to evaluation) classifies correctly, in float32."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(data), batch_size):
            images = torch.from_numpy(data.images[start : start + batch_size])
            labels = torch.from_numpy(data.labels[start : start + batch_size])
            correct += int((model(normalise(images)).argmax(dim=1) == labels).sum())
    return correct / len(data)


def train(
    build: Callable[[], nn.Module],
    training: LabelledImages,
    validation: LabelledImages,
    *,
    config: TrainingConfig,
    folder: Path,
    console: Console | None = None,
) -> tuple[nn.Module, list[EpochResult]]:
    """Train the network that `build` makes and return it, in evaluation mode, with its history.

    After every epoch `folder` receives ``checkpoint.pt`` and ``history.json``, both written whole or not at all. A
    checkpoint already there is resumed. The network of the last epoch is the result: the validation images choose
    nothing here, they only show how the run is doing.

    Raises DataError when a checkpoint in `folder` is damaged or belongs to a run with other settings, or when fewer
    images than one batch are given.
    """
    if len(training) < config.batch_size:
        raise DataError(f"{len(training)} training images do not fill one batch of {config.batch_size}")
    console = console or Console()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    model = build()
    optimiser = torch.optim.AdamW(_parameter_groups(model, config.weight_decay), lr=config.start_lr)
    history = _resume(folder / CHECKPOINT, model, optimiser, config)
    if history:
        console.print(f"resuming after epoch {len(history)} of {config.epochs}")

    images, labels = torch.from_numpy(training.images), torch.from_numpy(training.labels)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    steps_per_epoch = len(training) // config.batch_size
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=config.epochs * steps_per_epoch)
        progress.update(task, completed=len(history) * steps_per_epoch)
        for epoch in range(len(history), config.epochs):
            began = time.monotonic()
            loss = _train_epoch(
                model, optimiser, images, labels, epoch=epoch, config=config, advance=lambda: progress.advance(task)
            )
            result = EpochResult(
                epoch=epoch + 1,
                loss=loss,
                validation_accuracy=accuracy(model, validation),
                learning_rate=float(optimiser.param_groups[0]["lr"]),
                seconds=time.monotonic() - began,
            )
            history.append(result)
            _save(folder, model, optimiser, config, history)
            progress.console.print(
                f"epoch {result.epoch:3d}/{config.epochs}  loss {result.loss:.4f}  "
                f"validation {result.validation_accuracy:.2%}  lr {result.learning_rate:.2e}  {result.seconds:.1f} s"
            )
    model.eval()
    return model, history


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels; none on biases and normalisation parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    epoch: int,
    config: TrainingConfig,
    advance: Callable[[], None],
) -> float:
    """One pass over the shuffled images, the last incomplete batch left out; returns the mean loss."""
    model.train()
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator)
    steps = len(images) // config.batch_size
    total = 0.0
    for step in range(steps):
        chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
        inputs = normalise(random_crop_flip(images[chosen], generator))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
            logits = model(inputs)
        loss = nn.functional.cross_entropy(logits.float(), labels[chosen], label_smoothing=config.label_smoothing)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(epoch * steps + step, steps, config)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        total += float(loss.detach())
        advance()
    return total / steps


def _save(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    config: TrainingConfig,
    history: list[EpochResult],
) -> None:
    results = [asdict(result) for result in history]
    state = {
        "config": asdict(config),
        "history": results,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    _write_whole(folder / CHECKPOINT, lambda path: torch.save(state, path))
    _write_whole(folder / HISTORY, lambda path: path.write_text(json.dumps(results, indent=1) + "\n"))


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write next to `path` and rename, so that an interruption leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def _resume(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, config: TrainingConfig
) -> list[EpochResult]:
    """Load the checkpoint at `path`, if there is one, into `model` and `optimiser`; returns its history."""
    if not path.exists():
        return []
    remedy = "continue with the same settings, or choose an empty output folder"
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        saved = state["config"]
        if saved != asdict(config):
            changed = ", ".join(
                f"{name} {saved.get(name)} -> {value}"
                for name, value in asdict(config).items()
                if saved.get(name) != value
            )
            raise DataError(f"{path} belongs to a run with other settings ({changed}); {remedy}")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        return [EpochResult(**result) for result in state["history"]]
    except DataError:
        raise
    except Exception as error:  # torch.load raises whatever the damaged bytes provoke
        raise DataError(f"{path} cannot be resumed ({error}); {remedy}") from error
