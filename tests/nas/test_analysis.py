"""Algorithm 1 and Eq. 1-3 against numbers worked out by hand, and the command."""

import dataclasses
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nas.analysis import (
    PRINTED,
    Acceptance,
    Among,
    Bound,
    Count,
    Reading,
    Sample,
    acceptance,
    adjust,
    adjusted,
    draw_samples,
)
from nas.cli import register
from nas.layers import describe
from nas.resources import Limits, Resources
from nas.sampling import random_architecture
from nas.space import Architecture, Space, StageSpace, load_space
from refsim.errors import DataError

LIMITS = Limits(flash_bytes=1000, ram_bytes=300)
TINY = load_space("tiny")


def sample(parameters: int, kept: int, fits: bool = True) -> Sample:
    return Sample(parameters, kept, fits, None)


SAMPLES = (
    sample(200, 100),
    sample(700, 240),
    sample(800, 300),
    sample(1500, 840),
    sample(2800, 841, fits=False),
    sample(2801, 1000, fits=False),
)


@pytest.mark.parametrize(
    ("reading", "accepted", "evaluated"),
    [
        (Reading(), 3, 6),  # 800 <= N <= 2800 of all
        (Reading(among=Among.FITTING), 2, 4),
        (PRINTED, 2, 4),  # 240 <= N <= 840 of those that fit: 700, 800
        (Reading(Bound.MEMORY, Count.EFFECTIVE, Among.FITTING), 3, 4),
        (Reading(Bound.MEMORY, Count.EFFECTIVE, Among.SAMPLED), 3, 6),
        (Reading(Bound.STORAGE, Count.EFFECTIVE, Among.SAMPLED), 3, 6),
    ],
)
def test_acceptance_by_hand(reading: Reading, accepted: int, evaluated: int) -> None:
    found = acceptance(SAMPLES, LIMITS, reading)
    assert (found.accepted, found.evaluated) == (accepted, evaluated)
    assert found.probability == accepted / evaluated


def test_other_ratios_move_the_bounds() -> None:
    assert acceptance(SAMPLES, LIMITS, Reading(), (0.2, 0.7)).accepted == 2


def test_where_nothing_fits_the_probability_is_zero() -> None:
    found = acceptance([sample(900, 900, fits=False)], LIMITS, PRINTED)
    assert found == Acceptance(0, 0)
    assert found.probability == 0


def test_adjustment_by_hand() -> None:
    """Eq. 1-3: k = 0.5 + 0.1; N is 1000, 2000, 6000, so b divides the range by (3000 - 1000) / 5000 = 0.4.

    For 96, 128, 256: mean 160, b = 96 + 0.4 * 160 = 160; y = 0.6 (x - 160) + 160 = 121.6, 140.8, 217.6, in fours
    120, 140, 216. For 32, 44: b = 36.8; y = 33.2, 40.4: 32, 40. For 512, 768, 1024: b = 716.8; y = 563.2, 716.8, 870.4:
    564, 716, 872. The number of heads stays.
    """
    space = load_space("table1")
    samples = [sample(size, 1) for size in (1000, 2000, 6000)]
    found = adjusted(space, samples, Acceptance(1, 2))
    assert [stage.dims for stage in found.stages] == [(32, 40), (120, 140, 216)]
    assert found.last_linear == (564, 716, 872)
    same = dataclasses.replace(
        found,
        last_linear=space.last_linear,
        stages=tuple(dataclasses.replace(a, dims=b.dims) for a, b in zip(found.stages, space.stages, strict=True)),
    )
    assert same == space


def test_equal_choices_become_one_and_stay_multiples_of_the_grain() -> None:
    space = Space("x", (3, 8, 8), 2, (StageSpace((24, 36)),), heads=(1, 3), last_linear=(16,))
    samples = [sample(size, 1) for size in (1000, 2000)]
    found = adjusted(space, samples, Acceptance(0, 2))  # k = 0.1, b = 30: 29.4, 30.6 in twelves
    assert found.stages[0].dims == (24, 36)
    found = adjusted(space, [sample(1000, 1)], Acceptance(0, 1))  # b = 24: 23.4, 24.6
    assert found.stages[0].dims == (24,)
    assert found.last_linear == (16,)


def test_effective_parameters_adjust_where_they_count() -> None:
    space = load_space("table1")
    reading = Reading(Bound.MEMORY, Count.EFFECTIVE, Among.FITTING)
    samples = [sample(1, 1000), sample(1, 2000), sample(1, 6000), sample(1, 9000, fits=False)]
    assert adjusted(space, samples, Acceptance(1, 2), reading).stages[1].dims == (120, 140, 216)


def test_a_space_of_which_nothing_fits_cannot_be_adjusted() -> None:
    with pytest.raises(DataError, match="none of 1 models fits"):
        adjusted(TINY, [sample(1, 1, fits=False)], Acceptance(0, 0), PRINTED)


def evaluate(architecture: Architecture) -> Resources:
    """As if every parameter that is left took a byte of flash, and nothing any RAM."""
    network = describe(architecture)
    kept = network.kept_parameter_count
    return Resources(network.parameter_count, kept, kept, 0, 0, 0, 0, 0, None, None)


def test_samples_are_the_spaces_models() -> None:
    rng = np.random.default_rng(3)
    networks = [describe(random_architecture(TINY, rng)) for _ in range(20)]
    limit = sorted(network.kept_parameter_count for network in networks)[10]
    advanced = []
    samples = draw_samples(TINY, evaluate, Limits(limit, 100), 20, 3, lambda: advanced.append(1))
    assert [one.parameters for one in samples] == [network.parameter_count for network in networks]
    assert [one.kept_parameters for one in samples] == [network.kept_parameter_count for network in networks]
    assert sum(one.fits for one in samples) == 11
    assert all((one.resources is not None) == one.fits for one in samples)
    assert len(advanced) == 20


def test_a_model_that_is_surely_too_large_is_not_evaluated() -> None:
    def fail(architecture: Architecture) -> Resources:
        raise AssertionError("evaluated")

    assert not any(one.fits for one in draw_samples(TINY, fail, Limits(100, 100), 5))


def test_adjustment_ends_with_an_accepted_space() -> None:
    """Networks of the tiny space have 4 to 20 thousand parameters; most larger ones are wanted."""
    sizes = [one.parameters for one in draw_samples(TINY, evaluate, Limits(10**6, 1), 100)]
    limits = Limits(int(np.percentile(sizes, 40) / 0.8), 10**6)
    rounds = adjust(TINY, evaluate, limits, 60, rounds=6)
    assert rounds[0].space == TINY
    assert all(step.space.heads == TINY.heads for step in rounds)
    for before, after in pairwise(rounds):
        assert before.acceptance.probability <= 0.9
        assert after.space == adjusted(before.space, before.samples, before.acceptance)
    easy = Limits(int(np.percentile(sizes, 1) / 0.8), 10**6)
    assert len(adjust(TINY, evaluate, easy, 60)) == 1


def test_adjustment_asks_what_fits_only_where_that_counts() -> None:
    def fail(architecture: Architecture) -> Resources:
        raise AssertionError("evaluated")

    wide = Limits(10**9, 10**9)
    (first, *_) = adjust(TINY, fail, wide, 5, rounds=2)
    assert {one.fits for one in first.samples} == {None}
    with pytest.raises(AssertionError, match="evaluated"):
        adjust(TINY, fail, wide, 5, rounds=2, reading=PRINTED)


def test_adjustment_stops_where_dimensions_settle() -> None:
    space = dataclasses.replace(
        TINY, stages=tuple(dataclasses.replace(stage, dims=(8,)) for stage in TINY.stages), last_linear=(16,)
    )
    assert len(adjust(space, evaluate, Limits(10, 10), 5)) == 1


def application() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    return app


def test_the_command_shows_every_reading_and_draws(tmp_path: Path) -> None:
    picture = tmp_path / "sizes.svg"
    arguments = ["analyse-space", "tiny", "--samples", "2", "--svg", str(picture), "--bound", "L_m"]
    result = CliRunner().invoke(application(), arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    assert result.output.count("sampled") == result.output.count("fitting") == 4
    assert "0% (0/2)" in result.output  # 20 thousand parameters are less than 0.8 times 320 KB
    circles = ET.fromstring(picture.read_text()).findall(".//{*}circle")
    assert len(circles) == 2


def test_the_command_adjusts() -> None:
    arguments = ["analyse-space", "tiny", "--samples", "10", "--adjust"]
    result = CliRunner().invoke(application(), arguments, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if "tiny" in line]
    assert len(rows) > 1
    assert "8 12; 16 24" in rows[0]
    assert "8 12; 16 24" not in rows[1]


def test_the_command_refuses_an_unknown_space() -> None:
    result = CliRunner().invoke(application(), ["analyse-space", "huge"])
    assert isinstance(result.exception, DataError)
