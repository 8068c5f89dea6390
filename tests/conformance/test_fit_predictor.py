"""Fits of the predictor: the least squares, what the samples hold, and predictions beside fresh measurements."""

import itertools

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from codegen.predictor import BUILT_IN, METRICS, load_predictor, read_predictor
from conformance import fit_predictor, fit_predictor_cli
from conformance.fit_predictor import CHIPS, Meter, check_model, fit, measured_error, non_negative_least_squares
from conformance.places import CortexMPlace
from conformance.predictor_samples import COVERED, draw, draw_samples
from conformance.runner import example_models
from refsim.errors import TinyFormerError
from refsim.ops import OPERATORS

BAND_MEDIAN, BAND_WORST = 0.05, 0.15
MOST_MACS = 3_000_000


@pytest.fixture(scope="module")
def samples():
    return draw_samples(7, 4, 6, 3)


# ---- least squares ----


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(5, 9))
def test_least_squares_find_the_best_of_every_choice_of_terms(seed, terms, rows):
    random = np.random.default_rng(seed)
    matrix, values = random.normal(size=(rows, terms)), random.normal(size=rows)
    found = non_negative_least_squares(matrix, values)
    assert (found >= 0).all()

    def residual(x):
        return float(np.linalg.norm(matrix @ x - values))

    best = residual(np.zeros(terms))
    for size in range(1, terms + 1):
        for chosen in itertools.combinations(range(terms), size):
            part = np.linalg.lstsq(matrix[:, chosen], values, rcond=None)[0]
            if (part >= 0).all():
                x = np.zeros(terms)
                x[list(chosen)] = part
                best = min(best, residual(x))
    assert residual(found) == pytest.approx(best, abs=1e-9)


def test_a_fit_finds_what_costs_are_made_of():
    random = np.random.default_rng(3)
    costs = {"calls": 20.0, "rows": 7.5, "elements": 4.25, "free": 0.0}
    counts = [{"calls": 1.0, **{name: float(random.integers(0, 1000)) for name in list(costs)[1:]}} for _ in range(40)]
    found = fit(counts, [sum(costs[name] * times for name, times in count.items()) for count in counts])
    assert found == pytest.approx(costs, abs=1e-4)


def test_what_no_sample_does_has_no_cost():
    with pytest.raises(TinyFormerError, match="no sample has 'rows': draw more"):
        fit([{"calls": 1.0, "rows": 0.0}] * 3, [4.0, 4.0, 4.0])


def test_errors_are_relative():
    error = measured_error([99.0, 220.0, 50.0], [100.0, 200.0, 100.0])
    assert (error.samples, error.median, error.worst) == (3, 0.1, 0.5)
    assert error.median < error.percentile90 < error.worst


# ---- samples ----


def test_no_shape_of_an_operator_is_both_fitted_and_held_out(samples):
    for operator in OPERATORS:
        training = {s.shape for s in samples.training if s.operator == operator}
        held_out = {s.shape for s in samples.held_out if s.operator == operator}
        assert training and held_out and not training & held_out
    assert all(sample.in_search for sample in samples.held_out)
    assert samples.count == len(samples.training) + len(samples.held_out)


def test_samples_hold_everything_that_a_kernel_does(samples):
    for operator in OPERATORS:
        counts = [sample.counts for sample in samples.training if sample.operator == operator]
        for name in counts[0]:
            assert sum(count[name] > 0 for count in counts) >= min(COVERED, 3), (operator, name)


def test_the_same_seed_draws_the_same_samples(samples):
    again, other = draw_samples(7, 4, 6, 3), draw_samples(8, 4, 6, 3)
    keys = [[fit_predictor.sample_key(s) for s in drawn.training] for drawn in (samples, again, other)]
    assert keys[0] == keys[1] != keys[2]
    assert len(set(keys[0])) == len(keys[0])


def test_samples_are_as_large_as_table_i():
    random = np.random.default_rng(0)
    drawn = [sample for _ in range(60) if (sample := draw("conv2d", random, True)) is not None]
    assert max(sample.call.macs for sample in drawn) == 8 * 8 * 9 * 256 * 256


# ---- measuring ----


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing has been measured."""
    monkeypatch.setattr(fit_predictor, "cache_folder", lambda: tmp_path)
    return tmp_path


def test_what_was_measured_is_remembered(fresh, samples, monkeypatch):
    sample, other = samples.held_out[0], samples.held_out[1]
    meter = Meter("cortex-m7")
    measured = meter.measure(sample)
    assert measured is not None and set(measured) == set(METRICS)
    assert meter.measure(other) != measured
    (file,) = fresh.rglob("*.jsonl")
    text = file.read_text(encoding="utf-8")
    file.write_text(text[:-20], encoding="utf-8")  # the run ended while it wrote a line

    ran = []
    run = CortexMPlace.measure
    monkeypatch.setattr(CortexMPlace, "measure", lambda *a: ran.append(a) or run(*a))
    for runs in (1, 1):  # the one that is missing, and then none
        again = Meter("cortex-m7")
        assert again.measure(sample) == measured
        assert again.measure(other) == meter.measure(other)
        assert len(ran) == runs


def test_what_a_chip_cannot_hold_is_left_out(fresh):
    random = np.random.default_rng(0)
    drawn = (draw("matmul", random, True) for _ in range(200))
    large = next(s for s in drawn if s is not None and sum(x.size for x in s.inputs) + s.output_bytes > 250_000)
    assert Meter("cortex-m0plus").measure(large) is None


def test_a_core_without_a_chip_is_refused():
    with pytest.raises(TinyFormerError, match="no chip to measure 'cortex-m85' on; there is one for cortex-m7, "):
        Meter("cortex-m85")


# ---- predictions beside measurements ----


@pytest.mark.parametrize("core", CHIPS)
def test_fresh_measurements_are_within_the_band(core, fresh):
    """Shapes of Table I, drawn anew: fails once kernels or timing models have changed and the fits have not."""
    meter, fitted = Meter(core), load_predictor(core)
    random = np.random.default_rng(2026)
    errors = {metric: [] for metric in METRICS}
    for operator in OPERATORS:
        drawn = (draw(operator, random, True) for _ in range(100))
        found = ((s, meter.measure(s)) for s in drawn if s is not None and s.call.macs < MOST_MACS)
        for sample, measured in itertools.islice(((s, m) for s, m in found if m is not None), 2):
            predicted = fitted.predict_call(sample.call)
            for metric in METRICS:
                errors[metric].append(abs(getattr(predicted, metric) / measured[metric] - 1))
                assert errors[metric][-1] < BAND_WORST, (operator, metric, measured, predicted)
    for metric in METRICS:
        assert len(errors[metric]) == 2 * len(OPERATORS)
        assert np.median(errors[metric]) < BAND_MEDIAN


def test_a_whole_model_is_predicted():
    model, data = next(iter(example_models().items()))
    found = check_model(load_predictor("cortex-m7"), model, data)
    assert (found.model, found.core) == ("tinyformer_cifar10", "cortex-m7")
    for metric in METRICS:
        assert found.measured[metric] > 10_000_000
        assert abs(found.error(metric)) < 0.02


def test_the_command_fits_and_reports(tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(fit_predictor_cli, "_IN_SEARCH", 4)
    monkeypatch.setattr(fit_predictor_cli, "_AT_RANDOM", 30)
    monkeypatch.setattr(fit_predictor_cli, "_HELD_OUT", 3)
    before = {path: path.read_bytes() for path in BUILT_IN.iterdir()}
    app = typer.Typer()
    app.command()(fit_predictor_cli.fit_predictor)
    arguments = ["--core", "cortex-m4", "--seed", "3", "--output"]
    runner = CliRunner(env={"COLUMNS": "200"})
    first = runner.invoke(app, [*arguments, str(tmp_path / "a")], catch_exceptions=False)
    assert first.exit_code == 0
    for said in ("layernorm (3)", "Error of predicted cycles", "tinyformer_cifar10 on cortex-m4: instructions "):
        assert said in first.stdout
    fitted = read_predictor(tmp_path / "a" / "cortex-m4.json")
    assert (fitted.core, fitted.seed) == ("cortex-m4", 3)
    runner.invoke(app, [*arguments, str(tmp_path / "b")], catch_exceptions=False)
    assert (tmp_path / "a" / "cortex-m4.json").read_bytes() == (tmp_path / "b" / "cortex-m4.json").read_bytes()
    assert before == {path: path.read_bytes() for path in BUILT_IN.iterdir()}
