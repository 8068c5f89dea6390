"""The training loop: warm-up, then a falling learning rate, and checkpoints that resume (paper, section IV-A).

Everything random in epoch n is drawn from a generator seeded with (seed, n), so a run that was interrupted and resumed
goes through exactly the numbers of one that was not. What a run is for beyond that comes from outside: the objective
(`nas.distillation`) and hooks (`nas.supernet`, `nas.pruning`, `nas.quantisation_aware`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from nas import checkpoint, parallel
from nas.augmentation import MARGIN, alternating_mirror, normalise, random_crop_flip, random_mirror
from nas.data import LabelledImages, draw
from nas.optimiser import OptimiserName, make_optimisers
from refsim.errors import DataError


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one run that decide its numbers; learning rates are per step, times in epochs.

    The defaults are a schedule for little CPU time; `paper_schedule` gives the paper's, and `fast_schedule` what learns
    most in a few tens of epochs.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of a step.
        start_lr, peak_lr, final_lr: learning rate at the first step, after the warm-up and at the last step.
        warmup_epochs: in which it rises.
        decay: how it falls from then on: half a cosine, or a line.
        optimiser: see `nas.optimiser`.
        weight_decay: of matrices and kernels, in units of the learning rate.
        label_smoothing: share of each label that is spread over all classes.
        seed: of all that is random.
        bfloat16: mixed precision.
        augment: shift and mirror the training images.
        margin: pixels by which they are shifted at most.
        mirror: "random", each image half of the times; "alternating", each image every other epoch, so that any two
            epochs show all that there is (Jordan, 2024).
    """

    epochs: int = 120
    batch_size: int = 128
    start_lr: float = 1e-6
    peak_lr: float = 3e-3
    final_lr: float = 1e-5
    warmup_epochs: float = 5
    decay: Literal["cosine", "line"] = "cosine"
    optimiser: OptimiserName = "adamw"
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    seed: int = 0
    bfloat16: bool = True
    augment: bool = True
    margin: int = MARGIN
    mirror: Literal["random", "alternating"] = "random"


def paper_schedule(epochs: int = 300, **others: Any) -> TrainingConfig:
    """The paper's settings: 10 epochs from 1e-6 to 5.5e-4, cosine to 1e-5.

    Of fewer than 100 epochs a tenth is the warm-up.
    """
    return TrainingConfig(**{"epochs": epochs, "peak_lr": 5.5e-4, "warmup_epochs": min(10, epochs / 10), **others})


def fast_schedule(epochs: int = 30, **others: Any) -> TrainingConfig:
    """What learns most in few epochs: Muon, large batches, a line down to zero, small shifts, alternating mirrors."""
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": 256,
        "peak_lr": 5e-3,
        "final_lr": 0.0,
        "warmup_epochs": epochs / 10,
        "decay": "line",
        "optimiser": "muon",
        "margin": 2,
        "mirror": "alternating",
    }
    return TrainingConfig(**settings | others)


@dataclass(frozen=True)
class Hardware:
    """Where and how a run computes, as far as it changes no more than rounding.

    Attributes:
        device: "auto" takes the GPU if there is one; else as torch names it.
        channels_last: keep the weights of convolutions as images are kept, channels last.
        compile: let `torch.compile` compile the network: minutes that pay on a GPU and in long runs.
    """

    device: str = "auto"
    channels_last: bool = True
    compile: bool = False

    @property
    def torch_device(self) -> torch.device:
        """The device.

        Raises:
            DataError: torch knows none of that name here.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise DataError(f"device {self.device!r} is not available: {str(error).splitlines()[0]}") from error
        return torch.device(self.device)


ANY_HARDWARE = Hardware()


@dataclass(frozen=True)
class EpochResult:
    """One line of the history.

    Attributes:
        epoch: from 1.
        loss: mean over the training steps.
        validation_accuracy: in [0, 1], of the float network; None without validation images.
        learning_rate: of the last step.
        seconds: wall time, validation included.
        images_per_second: of training alone.
    """

    epoch: int
    loss: float
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (batch, classes), labels (batch,), the network's input) -> the loss, a scalar."""


class Hook:
    """What a run does beside its steps: nothing unless a subclass says so. Steps count from 0 over all epochs."""

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Before epoch `epoch`, from 0."""

    def before_step(self, model: nn.Module, step: int, generator: torch.Generator) -> None:
        """Before the network is called; what is random comes from `generator`."""

    def after_step(self, model: nn.Module, step: int) -> None:
        """After the optimiser changed the weights."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""


def learning_rate(step: int, steps_per_epoch: int, config: TrainingConfig) -> float:
    """Learning rate of optimiser step `step`, counted from 0.

    Linear from `start_lr` to `peak_lr` over the warm-up epochs, then by half a cosine or a line down to `final_lr` at
    the last step.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.start_lr + (config.peak_lr - config.start_lr) * step / warmup
    last = config.epochs * steps_per_epoch - 1
    progress = (step - warmup) / max(last - warmup, 1)
    left = 1 - progress if config.decay == "line" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_lr + (config.peak_lr - config.final_lr) * left


def accuracy(model: nn.Module, data: LabelledImages, batch_size: int = 500) -> float:
    """Share of `data` that `model` (switched to evaluation) classifies correctly, in float32.

    All processes of a group (`nas.parallel`) call it, and each takes its part.
    """
    model.eval()
    device = next(model.parameters()).device
    correct = torch.zeros(1, device=device)
    with torch.no_grad():
        for start in range(parallel.rank() * batch_size, len(data), parallel.size() * batch_size):
            images = torch.from_numpy(data.images[start : start + batch_size]).to(device)
            labels = torch.from_numpy(data.labels[start : start + batch_size]).to(device)
            correct += (model(normalise(images)).argmax(dim=1) == labels).sum()
    parallel.average([correct])
    return float(correct) * parallel.size() / len(data)


def batches(data: LabelledImages, count: int, seed: int, batch_size: int = 64) -> Iterator[Tensor]:
    """Network inputs: at most `count` images of `data` after a shuffle with `seed`."""
    drawn = draw(data, count, seed)
    for start in range(0, len(drawn), batch_size):
        yield normalise(torch.from_numpy(drawn.images[start : start + batch_size]))


def cross_entropy(label_smoothing: float) -> Objective:
    """The objective without a teacher."""

    def objective(logits: Tensor, labels: Tensor, _inputs: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    return objective


def train(
    build: Callable[[], nn.Module],
    training: LabelledImages,
    validation: LabelledImages | None,
    *,
    config: TrainingConfig,
    folder: Path | None = None,
    objective: Objective | None = None,
    hooks: Sequence[Hook] = (),
    hardware: Hardware = ANY_HARDWARE,
    console: Console | None = None,
) -> tuple[nn.Module, list[EpochResult]]:
    """Train the network that `build` makes and return it, in evaluation mode, with its history.

    The network of the last epoch is the result: the validation images choose nothing here, they only show how the run
    is doing.

    Args:
        build: makes the network, with what is random seeded; a network that has weights goes on from them.
        training: the images.
        validation: more, which choose nothing; None for none.
        config: what decides the numbers.
        folder: receives ``checkpoint.pt`` and ``history.json`` after every epoch, both written whole or not at all;
            a checkpoint already there is resumed. None keeps nothing.
        objective: by default cross entropy with the config's label smoothing.
        hooks: called in this order.
        hardware: where to compute.
        console: of the progress bar.

    Raises:
        DataError: a checkpoint in `folder` is damaged or belongs to a run with other settings, or fewer images than one
            batch are given.
    """
    if len(training) < config.batch_size:
        raise DataError(f"{len(training)} training images do not fill one batch of {config.batch_size}")
    console = (console or Console()) if parallel.rank() == 0 else Console(quiet=True)
    device = hardware.torch_device
    torch.manual_seed(config.seed)
    model = build().to(device)
    if hardware.channels_last:
        cast(Any, model).to(memory_format=torch.channels_last)
    optimisers = make_optimisers(model, config.optimiser, config.weight_decay)
    parts: dict[str, checkpoint.Stateful] = {
        "model": model,
        **{f"optimiser{i}": optimiser for i, optimiser in enumerate(optimisers)},
        **{f"hook{i}": hook for i, hook in enumerate(hooks)},
    }
    history: list[EpochResult] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        history = [EpochResult(**line) for line in checkpoint.resume(folder, parts, asdict(config))]
    if history:
        console.print(f"resuming after epoch {len(history)} of {config.epochs}")

    run = _Run(
        model=model,
        call=torch.compile(model) if hardware.compile else model,
        optimisers=optimisers,
        images=torch.from_numpy(training.images).to(device),
        labels=torch.from_numpy(training.labels).to(device),
        config=config,
        objective=objective or cross_entropy(config.label_smoothing),
        hooks=hooks,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=config.epochs * run.steps_per_epoch)
        progress.update(task, completed=len(history) * run.steps_per_epoch)
        for epoch in range(len(history), config.epochs):
            began = time.monotonic()
            loss = _train_epoch(run, epoch=epoch, advance=lambda: progress.advance(task))
            trained = time.monotonic() - began
            result = EpochResult(
                epoch=epoch + 1,
                loss=loss,
                validation_accuracy=None if validation is None else accuracy(model, validation),
                learning_rate=float(optimisers[0].param_groups[0]["lr"]),
                seconds=time.monotonic() - began,
                images_per_second=run.steps_per_epoch * config.batch_size / max(trained, 1e-9),
            )
            history.append(result)
            if folder is not None and parallel.rank() == 0:
                checkpoint.save(folder, parts, asdict(config), [asdict(line) for line in history])
            progress.console.print(_line(result, config.epochs))
    model.eval()
    return model, history


def _line(result: EpochResult, epochs: int) -> str:
    validation = "" if result.validation_accuracy is None else f"validation {result.validation_accuracy:.2%}  "
    return (
        f"epoch {result.epoch:3d}/{epochs}  loss {result.loss:.4f}  {validation}lr {result.learning_rate:.2e}  "
        f"{result.seconds:.1f} s  {result.images_per_second:.0f} images/s"
    )


@dataclass(frozen=True)
class _Run:
    """What the steps of a run need; `call` is `model`, compiled or not."""

    model: nn.Module
    call: Callable[[Tensor], Tensor]
    optimisers: Sequence[torch.optim.Optimizer]
    images: Tensor
    labels: Tensor
    config: TrainingConfig
    objective: Objective
    hooks: Sequence[Hook]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.images) // self.config.batch_size


def _train_epoch(run: _Run, *, epoch: int, advance: Callable[[], None]) -> float:
    """One pass over the shuffled images, the last incomplete batch left out; returns the mean loss."""
    config, steps = run.config, run.steps_per_epoch
    for hook in run.hooks:
        hook.before_epoch(run.model, epoch)
    run.model.train()
    device = run.images.device
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(run.images), generator=generator)
    total = torch.zeros((), device=device)
    for i in range(steps):
        step = epoch * steps + i
        chosen = order[i * config.batch_size : (i + 1) * config.batch_size].to(device)
        images = run.images[chosen]
        if config.augment:
            alternating = config.mirror == "alternating"
            mirrored = alternating_mirror(chosen, epoch) if alternating else random_mirror(len(chosen), generator)
            images = random_crop_flip(images, mirrored, generator, config.margin)
        share = slice(parallel.rank(), None, parallel.size())
        inputs, labels = normalise(images[share]), run.labels[chosen[share]]
        for hook in run.hooks:
            hook.before_step(run.model, step, generator)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bfloat16):
            loss = run.objective(run.call(inputs).float(), labels, inputs)
        run.model.zero_grad()
        torch.autograd.backward(loss)
        parallel.average(p.grad for p in run.model.parameters() if p.grad is not None)
        for optimiser in run.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, steps, config)
            optimiser.step()
        for hook in run.hooks:
            hook.after_step(run.model, step)
        total += loss.detach()
        advance()
    parallel.average([total, *(b for b in run.model.buffers() if b.is_floating_point())])
    return float(total) / steps
