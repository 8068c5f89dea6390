from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

optuna = pytest.importorskip("optuna", reason='optuna is not installed: pip install "tinyformer[nas]"')

from nas.evolution import Evolution, EvolutionarySampler, path_genes, super_genes
from nas.sampling import random_path, random_super
from nas.space import Space, SuperConfig, load_space

SPACE = load_space("table1")


def study_of(space: Space, evolution: Evolution, seed: int = 0) -> "optuna.Study":
    return optuna.create_study(
        direction="maximize", sampler=EvolutionarySampler(super_genes(space), evolution, seed=seed)
    )


def ask(study: "optuna.Study", space: Space, values: Sequence[float]) -> list[SuperConfig]:
    genes = super_genes(space)
    asked = []
    for value in values:
        trial = study.ask(genes.distributions)
        asked.append(genes.config(trial.params))
        study.tell(trial, value)
    return asked


def test_a_supernets_parameters_are_its_choices() -> None:
    genes = super_genes(SPACE)
    supernet = genes.config(
        {
            "heads": 4,
            "last_linear": 768,
            "stages.0.dim": 44,
            "stages.0.mobilenets": 1,
            "stages.0.transformers": 2,
            "stages.1.dim": 96,
            "stages.1.mobilenets": 2,
            "stages.1.transformers": 1,
        }
    )
    assert [(s.dim, s.mobilenets, s.transformers) for s in supernet.stages] == [(44, 1, 2), (96, 2, 1)]
    assert (supernet.heads, supernet.last_linear) == (4, 768)


@pytest.mark.parametrize("seed", range(5))
def test_parameters_lead_back_to_the_configuration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    supernet = random_super(SPACE, rng)
    path = random_path(SPACE, supernet, rng)
    assert super_genes(SPACE).config(super_genes(SPACE).parameters(supernet)) == supernet
    genes = path_genes(SPACE, supernet)
    parameters = genes.parameters(path)
    assert parameters.keys() == genes.options.keys()
    assert genes.config(parameters) == path


def test_labels_name_what_is_chosen() -> None:
    supernet = random_super(SPACE, np.random.default_rng(0))
    options = path_genes(SPACE, supernet).options
    assert list(options["pooling"]) == ["seqpool", "average"]
    assert list(options["stages.0.encoders.0"]) == ["mlp2", "mlp1"]
    assert list(options["head_pruning"])[:3] == ["0 in blocks of 2", "0 in blocks of 4", "0.4 in blocks of 2"]


def test_first_trials_are_random_and_differ() -> None:
    asked = ask(study_of(SPACE, Evolution(random=10)), SPACE, [0.5] * 10)
    assert len(set(asked)) == 10


def test_mutations_without_a_rate_are_the_parent() -> None:
    """Evolution by mutation alone, at rate 0, of the one best trial: nothing but the best comes out."""
    evolution = Evolution(random=3, parents=1, mutation_rate=0, crossover_share=0)
    asked = ask(study_of(SPACE, evolution), SPACE, [0.2, 0.9, 0.4, 0.1])
    assert asked[3] == asked[1]


def test_a_child_takes_every_choice_from_its_parents() -> None:
    evolution = Evolution(random=4, parents=2, crossover_share=1)
    study = study_of(SPACE, evolution)
    asked = ask(study, SPACE, [0.2, 0.9, 0.4, 0.7, 0.0, 0.0, 0.0])
    parents = [study.trials[1].params, study.trials[3].params]
    for trial in study.trials[4:]:
        for name, value in trial.params.items():
            assert value in [parent[name] for parent in parents], name
    assert len(set(asked[4:])) == 3, "children are new as long as there are new ones"


def test_skipped_and_lost_trials_have_no_descendants() -> None:
    study = study_of(SPACE, Evolution(random=2, parents=2, mutation_rate=0, crossover_share=0))
    genes = super_genes(SPACE)
    states = optuna.trial.TrialState
    best = study.ask(genes.distributions)
    study.tell(study.ask(genes.distributions), state=states.PRUNED)
    study.tell(study.ask(genes.distributions), state=states.FAIL)
    study.tell(best, 0.1)
    assert study.ask(genes.distributions).params == best.params


def test_same_seed_and_results_give_the_same_trials() -> None:
    values = list(np.random.default_rng(1).random(15))
    first = ask(study_of(SPACE, Evolution(random=5), seed=3), SPACE, values)
    assert ask(study_of(SPACE, Evolution(random=5), seed=3), SPACE, values) == first
    assert ask(study_of(SPACE, Evolution(random=5), seed=4), SPACE, values) != first


def test_a_study_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    values = list(np.random.default_rng(1).random(14))
    whole = ask(study_of(SPACE, Evolution(random=5)), SPACE, values)
    url = f"sqlite:///{tmp_path / 'study.db'}"

    def opened() -> "optuna.Study":
        sampler = EvolutionarySampler(super_genes(SPACE), Evolution(random=5))
        return optuna.create_study(
            study_name="s", storage=url, load_if_exists=True, direction="maximize", sampler=sampler
        )

    parts = ask(opened(), SPACE, values[:8]) + ask(opened(), SPACE, values[8:])
    assert parts == whole


def test_evolution_beats_chance_where_choices_add_up() -> None:
    def value(config: SuperConfig) -> float:
        return config.last_linear / 1024 + config.heads / 4 + sum(s.dim / 256 + s.mobilenets for s in config.stages)

    def best(evolution: Evolution, seed: int) -> float:
        genes, study = super_genes(SPACE), study_of(SPACE, evolution, seed)
        for _ in range(40):
            trial = study.ask(genes.distributions)
            study.tell(trial, value(genes.config(trial.params)))
        return float(study.best_value)

    evolved = [best(Evolution(random=8, parents=4), seed) for seed in range(5)]
    drawn = [best(Evolution(random=1000), seed) for seed in range(5)]
    assert sum(evolved) > sum(drawn)
