"""Knowledge distillation: a student learns from a teacher's logits as well as from the labels (Hinton et al., 2015)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nas.training import Objective, cross_entropy
from refsim.errors import DataError

Direction = Literal["forward", "reverse"]
"""Forward: KL(teacher || student), the student covers all that the teacher holds possible. Reverse: KL(student ||
teacher), the student keeps to what the teacher holds likely, which suits a much smaller student."""


def divergence(student: Tensor, teacher: Tensor, direction: Direction, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence between the classes' probabilities, mean over the batch, times temperature^2.

    Args:
        student: logits (batch, classes).
        teacher: likewise.
        direction: which is the reference.
        temperature: both logits are divided by it; its square keeps the gradients' size.
    """
    p = torch.log_softmax(teacher / temperature, dim=1)
    q = torch.log_softmax(student / temperature, dim=1)
    reference, other = (p, q) if direction == "forward" else (q, p)
    return (reference.exp() * (reference - other)).sum(dim=1).mean() * temperature**2


def distillation(
    teacher: nn.Module,
    *,
    direction: Direction = "forward",
    temperature: float = 2.0,
    share: float = 0.5,
    label_smoothing: float = 0.1,
) -> Objective:
    """(1 - share) * cross entropy with the labels + share * divergence from the teacher.

    Args:
        teacher: network with the student's classes, on the device of the training; it is switched to evaluation.
        direction: which is the reference of the divergence.
        temperature: of the divergence.
        share: of the divergence, in [0, 1].
        label_smoothing: of the cross entropy.

    Raises:
        DataError: direction, temperature or share is none of the above.
    """
    if direction not in ("forward", "reverse"):
        raise DataError(f"distillation direction {direction!r} is not known: forward or reverse")
    if not (temperature > 0 and 0 <= share <= 1):
        raise DataError(f"distillation: temperature {temperature} must be above 0, share {share} in [0, 1]")
    supervised = cross_entropy(label_smoothing)
    teacher.eval()

    def objective(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(inputs).float()
        taught = divergence(logits, wanted, direction, temperature)
        return (1 - share) * supervised(logits, labels, inputs) + share * taught

    return objective
