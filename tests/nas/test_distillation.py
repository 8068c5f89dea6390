"""Both divergences and their gradients against the closed forms."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from nas.distillation import Direction, distillation, divergence
from nas.layers import describe
from nas.network import PathNetwork
from nas.training import TrainingConfig, cross_entropy, train
from refsim.errors import DataError
from tests.nas.tiny import architecture, dark_and_bright

STUDENT = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.3, -0.2]], dtype=torch.float64)
TEACHER = torch.tensor([[1.5, 0.0, -1.0], [0.1, 2.0, 0.4]], dtype=torch.float64)


def test_two_classes_by_hand() -> None:
    """Odds of 3 : 1 taught to a student of 1 : 1: 3/4 log(3/2) + 1/4 log(1/2), and backwards log(2) - log(3) / 2."""
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2)
    forward = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    backward = torch.tensor(2.0).log() - torch.tensor(3.0).log() / 2
    torch.testing.assert_close(divergence(student, teacher, "forward"), forward)
    torch.testing.assert_close(divergence(student, teacher, "reverse"), backward)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gradients(direction: Direction, temperature: float) -> None:
    """Forward: T (q - p) / N. Reverse: T q (log(q / p) - KL) / N."""
    student = STUDENT.clone().requires_grad_()
    divergence(student, TEACHER, direction, temperature).backward()
    p, q = (torch.softmax(logits / temperature, dim=1) for logits in (TEACHER, STUDENT))
    if direction == "forward":
        expected = q - p
    else:
        ratio = (q / p).log()
        expected = q * (ratio - (q * ratio).sum(dim=1, keepdim=True))
    torch.testing.assert_close(student.grad, temperature * expected / len(STUDENT))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_no_divergence_from_oneself(direction: Direction) -> None:
    student = TEACHER.clone().requires_grad_()
    loss = divergence(student, TEACHER + 7, direction, 2.0)
    loss.backward()
    torch.testing.assert_close(loss, torch.zeros_like(loss))
    torch.testing.assert_close(student.grad, torch.zeros_like(TEACHER))


def test_objective_mixes_labels_and_teacher() -> None:
    teacher = torch.nn.Linear(4, 3)
    inputs, labels = torch.rand(5, 4), torch.tensor([0, 1, 2, 1, 0])
    logits = torch.rand(5, 3)
    objective = distillation(teacher, direction="reverse", temperature=3.0, share=0.25, label_smoothing=0.2)
    supervised = cross_entropy(0.2)(logits, labels, inputs)
    taught = divergence(logits, teacher(inputs), "reverse", 3.0)
    torch.testing.assert_close(objective(logits, labels, inputs), 0.75 * supervised + 0.25 * taught)


def test_student_learns_from_the_teacher_alone() -> None:
    """A teacher that knows one answer only; the labels count nothing."""

    class Stubborn(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[4.0, 0.0]]).expand(len(x), 2)

    data = dark_and_bright(64)
    student, _ = train(
        lambda: PathNetwork(describe(architecture(0))),
        data,
        data,
        config=TrainingConfig(epochs=6, batch_size=16, warmup_epochs=0, bfloat16=False),
        objective=distillation(Stubborn(), share=1.0),
    )
    answers = student((torch.from_numpy(data.images).permute(0, 3, 1, 2) - 128.0) / 128).argmax(dim=1)
    assert (answers == 0).float().mean() > 0.95
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_settings_out_of_range() -> None:
    teacher = torch.nn.Linear(1, 1)
    with pytest.raises(DataError, match="'sideways' is not known: forward or reverse"):
        distillation(teacher, direction="sideways")
    with pytest.raises(DataError, match=r"share 2 in \[0, 1\]"):
        distillation(teacher, share=2)
