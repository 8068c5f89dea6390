"""Search-space analysis: the acceptance probability and the adjustment of dimensions (paper, Algorithm 1, Eq. 1-3).

The paper's text leaves open what exactly is counted; `Reading` names the possibilities, and docs/nas.md says which of
them gives the paper's Fig. 9a.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import numpy as np

from nas.layers import describe
from nas.resources import Limits, Resources
from nas.sampling import random_architecture
from nas.space import GRAIN, Architecture, Space
from refsim.errors import DataError

LAMBDA_LO = 0.8
LAMBDA_UP = 2.8

ACCEPTED = 0.9
"""A space is accepted where the probability is higher."""

Evaluate = Callable[[Architecture], Resources]


class Bound(StrEnum):
    """Which limit the number of parameters is held against, a byte for each."""

    STORAGE = "L_s"
    MEMORY = "L_m"


class Count(StrEnum):
    """Which parameters are counted."""

    DENSE = "all"
    EFFECTIVE = "effective"
    """Those that pruning leaves."""


class Among(StrEnum):
    """Which models the accepted ones are a share of."""

    SAMPLED = "sampled"
    """All that were drawn; whether a model fits is not asked."""
    FITTING = "fitting"
    """Those that fit, as Algorithm 1 is printed."""


@dataclass(frozen=True)
class Reading:
    """What the acceptance probability is taken to mean. The default gives the paper's Fig. 9a."""

    bound: Bound = Bound.STORAGE
    count: Count = Count.DENSE
    among: Among = Among.SAMPLED


PRINTED = Reading(Bound.MEMORY, Count.DENSE, Among.FITTING)
"""Algorithm 1 to the letter."""

READINGS = tuple(Reading(bound, count, among) for bound in Bound for count in Count for among in Among)


@dataclass(frozen=True)
class Sample:
    """A model drawn from a space.

    Attributes:
        parameters: numbers in all weights and biases.
        kept_parameters: those that pruning leaves.
        fits: within the limits; None where that was not asked.
        resources: None where that was not asked, or where the weights alone exceed the flash.
    """

    parameters: int
    kept_parameters: int
    fits: bool | None
    resources: Resources | None

    def counted(self, reading: Reading) -> int:
        """N_param."""
        return self.parameters if reading.count is Count.DENSE else self.kept_parameters


@dataclass(frozen=True)
class Acceptance:
    """n_accept and n_eval of Algorithm 1."""

    accepted: int
    evaluated: int

    @property
    def probability(self) -> float:
        """Share of the evaluated models that are accepted; 0 where there is none."""
        return self.accepted / self.evaluated if self.evaluated else 0.0


@dataclass(frozen=True)
class Round:
    """One space on the way of the adjustment, with what was found of it."""

    space: Space
    acceptance: Acceptance
    samples: tuple[Sample, ...]


def draw_samples(
    space: Space,
    evaluate: Evaluate | None,
    limits: Limits,
    count: int,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Sample, ...]:
    """Draw models and evaluate their resources: lines 4 to 10 of Algorithm 1.

    Args:
        space: to draw from.
        evaluate: what a model takes, `nas.resources.ResourceEval`; None where whether it fits is not asked.
        limits: L_s and L_m.
        count: T_sup, how many models.
        seed: of the drawing.
        advance: called after each model.
    """
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        architecture = random_architecture(space, rng)
        network = describe(architecture)
        resources = None if evaluate is None or limits.surely_exceeded(network) else evaluate(architecture)
        fits = None if evaluate is None else resources is not None and not limits.exceeded(resources)
        samples.append(Sample(network.parameter_count, network.kept_parameter_count, fits, resources))
        advance()
    return tuple(samples)


def acceptance(
    samples: Sequence[Sample],
    limits: Limits,
    reading: Reading | None = None,
    ratios: tuple[float, float] = (LAMBDA_LO, LAMBDA_UP),
) -> Acceptance:
    """How many of the models are accepted: lines 8 to 16 of Algorithm 1.

    Args:
        samples: from `draw_samples`.
        limits: L_s and L_m.
        reading: what is counted.
        ratios: lambda_lo, lambda_up.
    """
    reading = reading or Reading()
    evaluated = _evaluated(samples, reading)
    limit = limits.flash_bytes if reading.bound is Bound.STORAGE else limits.ram_bytes
    low, high = (ratio * limit for ratio in ratios)
    return Acceptance(sum(low <= sample.counted(reading) <= high for sample in evaluated), len(evaluated))


def adjusted(space: Space, samples: Sequence[Sample], found: Acceptance, reading: Reading | None = None) -> Space:
    """The space with its dimensions moved and drawn together: y = k (x - mean(x)) + b (Eq. 1-3).

    k is the acceptance probability + 0.1; b divides the range of x as the mean of N_param divides its own. The
    dimensions of each DoT and of the last linear layer are adjusted, to multiples of 4
    (the former of the number of heads as well); choices that become equal are one.

    Raises:
        DataError: no model was evaluated.
    """
    reading = reading or Reading()
    counts = [sample.counted(reading) for sample in _evaluated(samples, reading)]
    if not counts:
        raise DataError(f"space {space.name!r}: none of {len(samples)} models fits, so there is nothing to adjust by")
    low, high = min(counts), max(counts)
    share = (sum(counts) / len(counts) - low) / (high - low) if high > low else 0.0
    slope = found.probability + 0.1

    def move(choices: tuple[int, ...], grain: int) -> tuple[int, ...]:
        mean, least, most = sum(choices) / len(choices), min(choices), max(choices)
        offset = least + share * (most - least)
        moved = (slope * (x - mean) + offset for x in choices)
        return tuple(dict.fromkeys(max(grain, round(y / grain) * grain) for y in moved))

    stages = tuple(replace(stage, dims=move(stage.dims, space.grain)) for stage in space.stages)
    return replace(space, stages=stages, last_linear=move(space.last_linear, GRAIN))


def adjust(
    space: Space,
    evaluate: Evaluate,
    limits: Limits,
    count: int,
    *,
    seed: int = 0,
    reading: Reading | None = None,
    rounds: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Round, ...]:
    """Analyse a space and adjust it until it is accepted, its dimensions settle, or the rounds are over.

    Args:
        space: to begin with.
        evaluate: see `draw_samples`; called where the reading asks which models fit.
        limits: L_s and L_m.
        count: models for each analysis, which draws anew.
        seed: of the first one.
        reading: see `acceptance`.
        rounds: analyses, at most.
        advance: called after each model.

    Returns:
        Every round, the given space first.

    Raises:
        DataError: of some space no model fits.
    """
    found: list[Round] = []
    asked = None if (reading or Reading()).among is Among.SAMPLED else evaluate
    for index in range(rounds):
        samples = draw_samples(space, asked, limits, count, seed + index, advance)
        result = acceptance(samples, limits, reading)
        found.append(Round(space, result, samples))
        if result.probability > ACCEPTED:
            break
        following = adjusted(space, samples, result, reading)
        if following in [earlier.space for earlier in found]:
            break
        space = following
    return tuple(found)


def as_json(rounds: Sequence[Round], limits: Limits, seed: int) -> str:
    """Everything that was drawn, as JSON: spaces with their acceptance probabilities and models."""
    spaces = [
        {
            "space": step.space.name,
            "probability": step.acceptance.probability,
            "samples": [asdict(sample) for sample in step.samples],
        }
        for step in rounds
    ]
    return json.dumps({"limits": asdict(limits), "seed": seed, "spaces": spaces}, indent=1) + "\n"


def _evaluated(samples: Sequence[Sample], reading: Reading) -> list[Sample]:
    return [sample for sample in samples if sample.fits or reading.among is Among.SAMPLED]
