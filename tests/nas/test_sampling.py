"""Draws from a space, and the steps of evolution."""

from collections import Counter

import numpy as np
import pytest

from nas.sampling import crossover, mutate_path, mutate_super, random_architecture, random_path, random_super
from nas.space import Pruning, StageConfig, SuperConfig, load_space

SPACE = load_space("table1")
FIRST = SuperConfig((StageConfig(32, 1, 1), StageConfig(96, 1, 1)), 1, 512)
SECOND = SuperConfig((StageConfig(44, 2, 2), StageConfig(256, 2, 2)), 4, 1024)


def test_supernets_take_every_choice_equally_often() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_super(SPACE, rng) for _ in range(600)]
    for choices, values in (
        (SPACE.heads, [s.heads for s in drawn]),
        (SPACE.last_linear, [s.last_linear for s in drawn]),
        (SPACE.stages[0].dims, [s.stages[0].dim for s in drawn]),
        (SPACE.stages[1].dims, [s.stages[1].dim for s in drawn]),
        (SPACE.stages[1].transformers, [s.stages[1].transformers for s in drawn]),
    ):
        counts = Counter(values)
        assert set(counts) == set(choices)
        expected = 600 / len(choices)
        assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_paths_have_a_candidate_and_a_pruning_for_each_module() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        supernet = random_super(SPACE, rng)
        path = random_path(SPACE, supernet, rng)
        for config, stage in zip(supernet.stages, path.stages, strict=True):
            assert len(stage.expansions) == len(stage.mobilenet_pruning) == config.mobilenets
            assert len(stage.encoders) == len(stage.transformer_pruning) == config.transformers
            prunings = (stage.downsample_pruning, *stage.mobilenet_pruning, *stage.transformer_pruning)
            assert {p.sparsity for p in prunings} <= set(SPACE.sparsities)
            assert {p.block for p in prunings} <= set(SPACE.blocks)


def test_the_same_seed_draws_the_same() -> None:
    first, second = (random_architecture(SPACE, np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert first != random_architecture(SPACE, np.random.default_rng(4))


@pytest.mark.parametrize(("rate", "changed"), [(0.0, False), (1.0, True)])
def test_mutation_at_the_ends_of_the_rate(rate: float, changed: bool) -> None:
    fresh = random_super(SPACE, np.random.default_rng(5))
    assert mutate_super(SPACE, FIRST, rate, np.random.default_rng(5)) == (fresh if changed else FIRST)
    path = random_path(SPACE, FIRST, np.random.default_rng(6))
    fresh_path = random_path(SPACE, FIRST, np.random.default_rng(7))
    found = mutate_path(SPACE, FIRST, path, rate, np.random.default_rng(7))
    assert found == (fresh_path if changed else path)


def test_mutation_under_a_fixed_seed_step_by_step() -> None:
    """`mutate_super` draws a whole supernet, then one number for each choice in the order of the fields."""
    rng = np.random.default_rng(8)
    fresh = random_super(SPACE, rng)
    anew = iter(rng.random(8) < 0.3)
    stages = tuple(
        StageConfig(*(new if next(anew) else old for old, new in zip(_values(a), _values(b), strict=True)))
        for a, b in zip(FIRST.stages, fresh.stages, strict=True)
    )
    expected = SuperConfig(
        stages, fresh.heads if next(anew) else FIRST.heads, fresh.last_linear if next(anew) else FIRST.last_linear
    )
    assert mutate_super(SPACE, FIRST, 0.3, np.random.default_rng(8)) == expected
    assert expected not in (FIRST, fresh)


def test_crossover_takes_each_choice_from_one_parent() -> None:
    rng = np.random.default_rng(9)
    children = {crossover(FIRST, SECOND, rng) for _ in range(200)}
    assert len(children) > 80
    for child in children:
        assert child.heads in (1, 4)
        assert child.last_linear in (512, 1024)
        for index, stage in enumerate(child.stages):
            pairs = zip(_values(stage), _values(FIRST.stages[index]), _values(SECOND.stages[index]), strict=True)
            assert all(value in parents for value, *parents in pairs)


def test_crossover_of_paths_keeps_prunings_whole() -> None:
    rng = np.random.default_rng(10)
    first, second = (random_path(SPACE, SECOND, rng) for _ in range(2))
    for _ in range(20):
        child = crossover(first, second, rng)
        assert child.head_pruning in (first.head_pruning, second.head_pruning)
        assert isinstance(child.stages[0].mobilenet_pruning[1], Pruning)
        for index in range(2):
            parents = [path.stages[1].mobilenet_pruning[index] for path in (first, second)]
            assert child.stages[1].mobilenet_pruning[index] in parents


def _values(stage: StageConfig) -> tuple[int, int, int]:
    return stage.dim, stage.mobilenets, stage.transformers
