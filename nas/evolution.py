"""Evolutionary sampling as an Optuna sampler (`EvolutionarySample` in the paper's Algorithms 2 and 3).

Each choice of a supernet or path is a categorical parameter of the study (`Genes`), so Optuna's dashboard shows what is
searched. A new trial descends from the best finished ones by the mutation and crossover of `nas.sampling`, as in single
path one-shot (Guo et al., 2020, section 3.4). What it gets depends on the seed, its number and the finished trials
alone: one worker repeats its search, and a search that was stopped and resumed goes on as if it had not been.
"""

# mypy: allow-subclassing-any
# (optuna is optional: where it is not installed its classes have no types)

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.sampling import crossover, mutate_path, mutate_super, random_path, random_super
from nas.space import Encoder, PathConfig, Pruning, Space, StageConfig, StagePath, SuperConfig

Config = TypeVar("Config", SuperConfig, PathConfig)
Label = str | int
"""How a parameter of Optuna spells a value."""

DRAW = "draw"
"""The attribute of trials that says which draw they are, set when they are begun."""

ATTEMPT = "attempt"
"""The attribute of trials that repeat another: which attempt they are; the user's stops do not count."""

_CONFIGS = (SuperConfig, StageConfig, PathConfig, StagePath)
_TRIES = 20
"""Attempts at a configuration that the study does not have yet; a small space may be used up."""


@dataclass(frozen=True)
class Evolution:
    """How descendants are made.

    Attributes:
        random: trials drawn at random before evolution begins.
        parents: how many of the best finished trials have descendants.
        mutation_rate: probability that a mutation draws a choice anew.
        crossover_share: share of the trials that come from two parents; the others are mutations of one.
    """

    random: int = 10
    parents: int = 10
    mutation_rate: float = 0.1
    crossover_share: float = 0.5


@dataclass(frozen=True)
class Genes(Generic[Config]):
    """The choices of a configuration as parameters of a study, and how configurations are made.

    Attributes:
        options: by the name of a choice (``stages.0.dim``) its values by label.
        random, mutate: a configuration anew, and a variation of one at a rate.
    """

    options: Mapping[str, Mapping[Label, Any]]
    random: Callable[[np.random.Generator], Config]
    mutate: Callable[[Config, float, np.random.Generator], Config]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """For `Study.ask`."""
        return {name: CategoricalDistribution(tuple(values)) for name, values in self.options.items()}

    def parameters(self, config: Config) -> dict[str, Label]:
        """The labels of a configuration's choices, by name."""
        found: dict[str, Label] = {}

        def walk(value: Any, name: str) -> None:
            if isinstance(value, _CONFIGS):
                for field in fields(value):
                    walk(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)
            elif isinstance(value, tuple):
                for index, item in enumerate(value):
                    walk(item, f"{name}.{index}")
            else:
                found[name] = _label(value)

        walk(config, "")
        return found

    def config(self, parameters: Mapping[str, Label]) -> Config:
        """The configuration whose `parameters` these are."""

        def fill(value: Any, name: str) -> Any:
            if isinstance(value, _CONFIGS):
                filled = {
                    f.name: fill(getattr(value, f.name), f"{name}.{f.name}" if name else f.name) for f in fields(value)
                }
                return type(value)(**filled)
            if isinstance(value, tuple):
                return tuple(fill(item, f"{name}.{index}") for index, item in enumerate(value))
            return self.options[name][parameters[name]]

        shape = self.random(np.random.default_rng(0))
        config: Config = fill(shape, "")
        return config


def super_genes(space: Space) -> Genes[SuperConfig]:
    """The choices of a supernet, S_super."""
    values: dict[str, tuple[Any, ...]] = {"heads": space.heads, "last_linear": space.last_linear}
    for index, stage in enumerate(space.stages):
        values[f"stages.{index}.dim"] = stage.dims
        values[f"stages.{index}.mobilenets"] = stage.mobilenets
        values[f"stages.{index}.transformers"] = stage.transformers
    return Genes(
        _labelled(values),
        lambda rng: random_super(space, rng),
        lambda config, rate, rng: mutate_super(space, config, rate, rng),
    )


def path_genes(space: Space, supernet: SuperConfig) -> Genes[PathConfig]:
    """The choices of a single path through a supernet, S_sparse."""
    prunings = tuple(Pruning(sparsity, block) for sparsity in space.sparsities for block in space.blocks)
    values: dict[str, tuple[Any, ...]] = {"pooling": space.poolings, "head_pruning": prunings}
    for index, (stage, config) in enumerate(zip(space.stages, supernet.stages, strict=True)):
        name = f"stages.{index}"
        values |= {f"{name}.downsample": stage.downsamples, f"{name}.downsample_pruning": prunings}
        for j in range(config.mobilenets):
            values |= {f"{name}.expansions.{j}": stage.expansions, f"{name}.mobilenet_pruning.{j}": prunings}
        for j in range(config.transformers):
            values |= {f"{name}.encoders.{j}": stage.encoders, f"{name}.transformer_pruning.{j}": prunings}
    return Genes(
        _labelled(values),
        lambda rng: random_path(space, supernet, rng),
        lambda config, rate, rng: mutate_path(space, supernet, config, rate, rng),
    )


class EvolutionarySampler(BaseSampler, Generic[Config]):
    """Configurations that descend from the best of a study's trials.

    Args:
        genes: of the configurations.
        evolution: how descendants are made.
        seed: of everything random.
    """

    def __init__(self, genes: Genes[Config], evolution: Evolution = Evolution(), *, seed: int = 0) -> None:
        self.genes: Genes[Config] = genes
        self.evolution, self.seed = evolution, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All choices are made together."""
        return self.genes.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The labels of a new configuration."""
        rng = np.random.default_rng((self.seed, draw_number(study, trial)))
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number and t.params]
        known = [t.params for t in others if t.state != TrialState.FAIL]
        parents: list[Config] = []
        if len(known) >= self.evolution.random:
            finished = [t for t in others if t.state == TrialState.COMPLETE]
            best = sorted(finished, key=lambda t: (-(t.value or 0), t.number))[: self.evolution.parents]
            parents = [self.genes.config(t.params) for t in best]
        for _ in range(_TRIES):
            labels = self.genes.parameters(self._offspring(parents, rng))
            if labels not in known:
                break
        return labels

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A choice that was left out of those made together."""
        return self.sample_relative(study, trial, {param_name: param_distribution})[param_name]

    def _offspring(self, parents: list[Config], rng: np.random.Generator) -> Config:
        if not parents:
            return self.genes.random(rng)
        first, second = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        if rng.random() < self.evolution.crossover_share:
            return crossover(first, second, rng)
        return self.genes.mutate(first, self.evolution.mutation_rate, rng)


def draw_number(study: Study, trial: FrozenTrial) -> int:
    """Which draw from the space a trial is, from 0.

    Trials that repeat another are none, nor are those that were lost before they were begun: losses change nothing.
    """

    def draws(other: FrozenTrial) -> bool:
        unbegun = other.state == TrialState.FAIL and DRAW not in other.user_attrs
        return other.number < trial.number and ATTEMPT not in other.user_attrs and not unbegun

    return sum(map(draws, study.get_trials(deepcopy=False)))


def _labelled(values: Mapping[str, tuple[Any, ...]]) -> dict[str, dict[Label, Any]]:
    return {name: {_label(value): value for value in some} for name, some in values.items()}


def _label(value: Any) -> Label:
    if isinstance(value, Pruning):
        return f"{value.sparsity:g} in blocks of {value.block}"
    if isinstance(value, Encoder):
        return value.name
    return int(value) if isinstance(value, int) else str(value)
