"""Supernets: paths drawn uniformly, trained one at a time, and taken out with their weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from nas.sampling import random_path, random_super
from nas.supernet import SinglePath, Supernet, path_network, train_supernet
from nas.training import TrainingConfig
from refsim.errors import ModelError
from tests.nas.tiny import SPACE, dark_and_bright

CONFIG = random_super(SPACE, np.random.default_rng(0))
SCHEDULE = TrainingConfig(epochs=2, batch_size=16, warmup_epochs=0.5, bfloat16=False)


def test_paths_are_drawn_uniformly_and_repeatably() -> None:
    supernet = Supernet(SPACE, CONFIG)
    generator = torch.Generator().manual_seed(0)
    drawn = [supernet.sample(generator) for _ in range(3000)]
    for module, candidates in enumerate(supernet.choices):
        counts = Counter(path[module] for path in drawn)
        assert sorted(counts) == list(range(len(candidates)))
        # Five standard deviations of a binomial distribution.
        share = 1 / len(candidates)
        assert all(abs(n - 3000 * share) <= 5 * (3000 * share * (1 - share)) ** 0.5 for n in counts.values())
    pairs = Counter((path[0], path[1]) for path in drawn)
    assert len(pairs) == len(supernet.choices[0]) * len(supernet.choices[1])
    assert min(pairs.values()) > 0.7 * 3000 / len(pairs)
    generator.manual_seed(0)
    assert [supernet.sample(generator) for _ in range(20)] == drawn[:20]


def indices(supernet: Supernet, network: object) -> list[int]:
    """Which candidate of each choice a path's description takes."""
    return [
        [candidate.description.candidate for candidate in candidates].index(module.candidate)
        for candidates, module in zip(supernet.choices, network.modules, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_path_computes_what_the_supernet_computes_along_it(seed: int) -> None:
    supernet = Supernet(SPACE, CONFIG)
    x = torch.rand(8, *SPACE.input_shape) * 2 - 1
    for _ in range(3):
        supernet.sample(torch.default_generator)
        supernet(x)  # statistics of batch normalisation that are not the initial ones
    model = path_network(supernet, random_path(SPACE, CONFIG, np.random.default_rng(seed)))
    supernet.choose(indices(supernet, model.network))
    supernet.eval()
    assert torch.equal(model.eval()(x), supernet(x))
    with torch.no_grad():
        model.get_parameter("head.last.weight").zero_()
    assert supernet.get_parameter("head.last.weight").abs().sum() > 0  # a copy, not the supernet's own


def test_only_the_drawn_path_is_trained(tmp_path: Path) -> None:
    data = dark_and_bright(16)
    torch.manual_seed(SCHEDULE.seed)
    before = Supernet(SPACE, CONFIG).state_dict()
    supernet, history = train_supernet(
        SPACE, CONFIG, data, schedule=TrainingConfig(epochs=1, batch_size=16, warmup_epochs=0)
    )
    changed = {name for name, tensor in supernet.named_parameters() if not torch.equal(tensor.detach(), before[name])}
    path = (candidates[index] for candidates, index in zip(supernet.choices, supernet.active, strict=True))
    taken = {candidate.prefix for candidate in path if list(candidate.parameters())}
    assert len(history) == 1
    assert history[0].validation_accuracy is None
    assert {next(prefix for prefix in taken if name.startswith(prefix + ".")) for name in changed} == taken


def test_resumed_training_goes_through_the_same_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dark_and_bright(64)
    straight, _ = train_supernet(SPACE, CONFIG, data, schedule=SCHEDULE, folder=tmp_path / "straight")
    before_epoch = SinglePath.before_epoch

    def interrupted(self: SinglePath, model: object, epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        before_epoch(self, model, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(SinglePath, "before_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_supernet(SPACE, CONFIG, data, schedule=SCHEDULE, folder=tmp_path / "resumed")
    resumed, _ = train_supernet(SPACE, CONFIG, data, schedule=SCHEDULE, folder=tmp_path / "resumed")
    for (name, expected), found in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, found), name


def test_no_such_path() -> None:
    supernet = Supernet(SPACE, CONFIG)
    with pytest.raises(ModelError, match=r"path \(9, .*\) is none of a supernet whose modules have \[3,"):
        supernet.choose([9, *supernet.active[1:]])
    with pytest.raises(ModelError, match=r"path \(0,\) is none"):
        supernet.choose([0])
