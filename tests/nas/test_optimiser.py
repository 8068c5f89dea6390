"""Muon: its updates are orthogonal and of AdamW's size, and it takes the parameters that are matrices."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from torch import nn

from nas.optimiser import Muon, make_optimisers, orthogonal


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)])
def test_orthogonal_keeps_the_directions_and_evens_their_lengths(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, lengths, v = torch.linalg.svd(matrix, full_matrices=False)
    result = u.T @ orthogonal(matrix) @ v.T
    assert float(lengths.max() / lengths.min()) > 3 or shape[0] != shape[1]
    assert 0.6 < float(result.diag().min()) <= float(result.diag().max()) < 1.3
    assert float((result - result.diag().diag()).abs().max()) < 0.1


def test_muon_step_by_hand() -> None:
    weight = nn.Parameter(torch.eye(16))
    weight.grad = torch.diag(torch.linspace(1, 2, 16))
    optimiser = Muon([weight], weight_decay=0.5)
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    # Decay by 0.1 x 0.5, then 0.1 x 0.2 x sqrt(16) times the orthogonal matrix next to a positive diagonal one: 1.
    found = weight.detach().diag()
    assert float((found - 0.95 + 0.08).abs().max()) < 0.08 * 0.4
    assert torch.equal(weight.detach(), found.diag())


def test_matrices_are_muons_and_the_rest_adamws() -> None:
    layers = {
        "conv": nn.Conv2d(16, 32, 3),
        "depthwise": nn.Conv2d(32, 32, 3, groups=32),
        "norm": nn.BatchNorm2d(32),
        "linear": nn.Linear(32, 64),
        "classifier": nn.Linear(64, 10),
    }
    model = nn.ModuleDict(layers)
    adamw, muon = make_optimisers(model, "muon", 0.05)
    taken = [p for group in muon.param_groups for p in group["params"]]
    assert [id(p) for p in taken] == [id(layers["conv"].weight), id(layers["linear"].weight)]
    decayed, free = (group["params"] for group in adamw.param_groups)
    assert [id(p) for p in decayed] == [id(layers["depthwise"].weight), id(layers["classifier"].weight)]
    assert all(p.ndim == 1 for p in free)
    assert len(taken) + len(decayed) + len(free) == len(list(model.parameters()))


def test_adamw_takes_all() -> None:
    model = nn.Linear(32, 32)
    (adamw,) = make_optimisers(model, "adamw", 0.05)
    assert [(len(group["params"]), group["weight_decay"]) for group in adamw.param_groups] == [(1, 0.05), (1, 0.0)]
