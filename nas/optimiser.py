"""Optimisers: AdamW for all parameters, or Muon for the large matrices and AdamW for the rest.

Muon (Jordan et al., 2024) makes the momentum of a matrix orthogonal before it is applied, so that all its directions
learn at the same speed: a network reaches an accuracy in fewer epochs. A kernel counts as the matrix (outputs, inputs x
positions).
"""

# mypy: allow-subclassing-any
# mypy: disable-error-code="no-untyped-call,untyped-decorator,misc"
# (torch is optional: where it is not installed its classes have no types)

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

OptimiserName = Literal["adamw", "muon"]

_MOMENTUM = 0.95
_ADAMW_RMS = 0.2
"""Root mean square of an AdamW update in learning rates: Muon's are scaled to it, so that one rate suits both."""

_LEAST_SIDE = 16
"""Matrices with a shorter side (depthwise kernels, classifiers) have few directions to balance: they stay AdamW's."""

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


def make_optimisers(model: nn.Module, kind: OptimiserName, weight_decay: float) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers of all parameters that learn; weight decay on matrices and kernels, none on biases and norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if kind == "muon" and p.ndim >= 2 and min(_matrix(p).shape) >= _LEAST_SIDE]
    taken = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, fused=True)
    return (adamw, Muon(matrices, weight_decay)) if matrices else (adamw,)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal, with decoupled weight decay.

    Args:
        parameters: of two dimensions or more.
        weight_decay: in units of the learning rate.
    """

    def __init__(self, parameters: Iterable[Tensor], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": 1e-3, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Change the parameters once."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - _MOMENTUM)
                matrix = _matrix(gradient.lerp(momentum, _MOMENTUM))
                update = orthogonal(matrix).view_as(parameter)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * _ADAMW_RMS * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The orthogonal matrix next to `matrix` (rows, columns), about: its singular values become 0.7 to 1.2.

    Newton-Schulz steps in bfloat16 with Jordan's coefficients.
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix.dtype)


def _matrix(weight: Tensor) -> Tensor:
    return weight.flatten(1)
