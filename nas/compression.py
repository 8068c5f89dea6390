"""A trained network made small: gradual pruning, then training of what is left, each technique a switch.

The compression stage of SparseNAS (paper, section III-C) is pruning by magnitude and fine-tuning. Other scores, a
teacher and quantisation-aware training may stand beside or in place of them; `ablate` says what each brings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from nas.data import LabelledImages, draw
from nas.distillation import Direction, distillation
from nas.evaluate import CALIBRATION_IMAGES, integer_accuracy
from nas.network import PathNetwork, weights
from nas.pruning import Criterion, fine_tune, iterative_prune, magnitude
from nas.quantisation_aware import train_quantised
from nas.scores import fisher, units_first, wanda
from nas.training import ANY_HARDWARE, Hardware, Objective, TrainingConfig
from refsim.errors import DataError

CRITERIA: dict[str, Callable[[LabelledImages], Criterion]] = {
    "magnitude": lambda _: magnitude,
    "wanda": lambda data: wanda(data.images),
    "fisher": fisher,
    "units": units_first,
}
"""Scores for pruning by name, made from calibration images."""


@dataclass(frozen=True)
class Compression:
    """Which techniques are used.

    Attributes:
        criterion: one of `CRITERIA`.
        distillation: the divergence from the teacher; None for none.
        quantisation_aware: whether training after pruning knows of the quantisation.
        prune: settings of the training with gradual pruning.
        tune: settings of the training after it.
    """

    criterion: str = "magnitude"
    distillation: Direction | None = None
    quantisation_aware: bool = False
    prune: TrainingConfig = field(default_factory=TrainingConfig)
    tune: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise DataError(f"pruning criterion {self.criterion!r} is not known; known are {', '.join(CRITERIA)}")

    @property
    def name(self) -> str:
        """What is used, in short: ``wanda, forward, aware``."""
        return f"{self.criterion}, {self.distillation or 'no teacher'}, {'aware' if self.quantisation_aware else 'PTQ'}"


def compress(
    model: PathNetwork,
    training: LabelledImages,
    validation: LabelledImages | None = None,
    *,
    settings: Compression,
    teacher: nn.Module | None = None,
    folder: Path | None = None,
    hardware: Hardware = ANY_HARDWARE,
    console: Console | None = None,
) -> PathNetwork:
    """Prune a trained network to its description's sparsity and train what is left.

    Args:
        model: trained; it stays as it is.
        training: images; scores are measured on some of them.
        validation: more, which only show how it is doing.
        settings: which techniques.
        teacher: to distil from.
        folder: of the checkpoints; an interrupted compression goes on from them.
        hardware: where to compute.
        console: of the progress bars.

    Returns:
        The network in evaluation mode, pruned zeros exactly zero.

    Raises:
        DataError: distillation is asked for without a teacher, or see `nas.training.train`.
    """
    objectives: list[Objective | None] = [None, None]
    if settings.distillation is not None:
        if teacher is None:
            raise DataError("distillation needs a teacher")
        teacher.to(hardware.torch_device)
        objectives = [
            distillation(teacher, direction=settings.distillation, label_smoothing=config.label_smoothing)
            for config in (settings.prune, settings.tune)
        ]
    calibration = draw(training, CALIBRATION_IMAGES, settings.prune.seed)
    pruned, _ = iterative_prune(
        model,
        training,
        validation,
        config=settings.prune,
        criterion=CRITERIA[settings.criterion](calibration),
        objective=objectives[0],
        folder=folder and folder / "prune",
        hardware=hardware,
        console=console,
    )
    finish = train_quantised if settings.quantisation_aware else fine_tune
    tuned, _ = finish(
        pruned,
        training,
        validation,
        config=settings.tune,
        objective=objectives[1],
        folder=folder and folder / "tune",
        hardware=hardware,
        console=console,
    )
    return tuned


@dataclass(frozen=True)
class AblationRow:
    """Accuracy of one way to compress; shares in [0, 1], of the integer model."""

    settings: Compression
    accuracy: float


def variants(base: Compression) -> list[Compression]:
    """`base`, then `base` with one technique exchanged at a time, and last with several together."""
    changes: tuple[dict[str, Any], ...] = (
        {},
        *({"criterion": name} for name in CRITERIA if name != base.criterion),
        {"distillation": "forward"},
        {"distillation": "reverse"},
        {"quantisation_aware": True},
        {"criterion": "wanda", "distillation": "forward", "quantisation_aware": True},
    )
    return [replace(base, **change) for change in changes]


def ablate(
    model: PathNetwork,
    teacher: nn.Module,
    training: LabelledImages,
    test: LabelledImages,
    *,
    settings: Sequence[Compression],
    hardware: Hardware = ANY_HARDWARE,
    console: Console | None = None,
) -> Iterator[AblationRow]:
    """Compress one network in several ways, each from the same weights with the same budget.

    Args:
        model: trained, with the pruning to reach in its description.
        teacher: trained, for those that distil.
        training: images.
        test: other images, for the accuracy.
        settings: the ways.
        hardware: where to compute.
        console: of the progress bars.

    Yields:
        Each way's accuracy, when it is known.
    """
    for way in settings:
        small = compress(model, training, settings=way, teacher=teacher, hardware=hardware, console=console)
        calibration = draw(training, CALIBRATION_IMAGES, way.tune.seed).images
        yield AblationRow(way, integer_accuracy(small.network, weights(small), calibration, test))
