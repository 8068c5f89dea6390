"""Fits of the predictor: the least squares, what the samples hold, and predictions beside fresh measurements."""

import itertools

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from codegen.encoding import BLOCKS, WIDTH_BLOCK
from codegen.predictor import BUILT_IN, load_predictor, read_fit
from codegen.target import CORES, load_target
from conformance import fit_predictor, fit_predictor_cli
from conformance.fit_predictor import (
    CHIPS,
    Meter,
    check_model,
    chip,
    fit_core,
    fit_costs,
    held_out_error,
    non_negative_least_squares,
)
from conformance.models import example_models
from conformance.places import CortexMPlace
from conformance.predictor_samples import COVERED, SPARSITIES, Samples, draw, draw_samples, kernels
from conformance.timing.cycles import Timing
from refsim.errors import TinyFormerError

BAND_MEDIAN, BAND_WORST = 0.05, 0.15
MOST_MACS = 3_000_000
KERNELS = [f"tnf_{operator}{variant}" for operator, variant in kernels()]
TARGETS = sorted(path.stem for path in BUILT_IN.glob("*.json") if path.stem not in CORES)
ZERO_WAIT = Timing.ZERO_WAIT


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
    values = [sum(costs[name] * times for name, times in count.items()) for count in counts]
    assert fit_costs(counts, values, values) == pytest.approx(costs, abs=1e-4)


def test_an_error_counts_by_its_scale():
    counts, values = [{"calls": 1.0}, {"calls": 1.0}], [10.0, 20.0]
    assert fit_costs(counts, values, [1e3, 1e3]) == {"calls": 15.0}
    assert fit_costs(counts, values, [1.0, 1e6]) == {"calls": 10.0}
    assert fit_costs([{"calls": 1.0, "none": 0.0}], [3.0], [3.0]) == {"calls": 3.0, "none": 0.0}


def test_one_sample_unlike_the_others_does_not_bend_the_fit():
    counts = [{"calls": 1.0, "elements": float(n)} for n in range(1, 30)]
    values = [5.0 + 3.0 * count["elements"] for count in counts]
    values[20] *= 4
    assert fit_costs(counts, values, values) == pytest.approx({"calls": 5.0, "elements": 3.0}, rel=0.02)


def test_what_no_sample_does_has_no_cost(samples, fresh):
    of_one = tuple(s for s in samples.training if s.operator == "lookup" and s.in_search)
    with pytest.raises(TinyFormerError, match="tnf_lookup: in no sample there is elements: short, .*another seed"):
        fit_core("cortex-m7", Samples(of_one, of_one), 0)


def test_errors_are_relative():
    error = held_out_error([99.0, 220.0, 50.0], [100.0, 200.0, 100.0])
    assert (error.samples, error.median, error.worst) == (3, 0.1, 0.5)
    assert error.median < error.percentile90 < error.worst


# ---- samples ----


def test_no_shape_of_an_operator_is_both_fitted_and_held_out(samples):
    for kernel in KERNELS:
        training = {s.shape for s in samples.training if s.call.kernel == kernel}
        held_out = {s.shape for s in samples.held_out if s.call.kernel == kernel}
        assert training and held_out and not training & held_out
    assert all(sample.in_search for sample in samples.held_out)
    assert samples.count == len(samples.training) + len(samples.held_out)


def test_samples_hold_everything_that_a_kernel_does(samples):
    for kernel in KERNELS:
        counts = [sample.counts for sample in samples.training if sample.call.kernel == kernel]
        for name in counts[0]:
            assert sum(count[name] > 0 for count in counts) >= min(COVERED, 3), (kernel, name)


def test_weights_are_as_sparse_as_told(samples):
    assert {s.call.sparse_block for s in samples.training} == {0, *BLOCKS, WIDTH_BLOCK}
    random = np.random.default_rng(1)
    drawn = [s for _ in range(60) if (s := draw("linear", random, True, variant="_sparse")) is not None]
    shares = [s.call.work / s.call.macs for s in drawn if s.call.params["rows"] % 8 == 0]
    assert min(shares) < 1.2 * (1 - max(SPARSITIES)) and max(shares) > 0.9


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
    meter = Meter(chip("cortex-m7"), ZERO_WAIT)
    measured = meter.measure(sample)
    assert measured is not None and set(measured) == {"instructions", "cycles", "waits"}
    assert measured["waits"] == 0
    assert meter.measure(other) != measured
    (file,) = fresh.rglob("*.jsonl")
    text = file.read_text(encoding="utf-8")
    file.write_text(text[:-20], encoding="utf-8")  # the run ended while it wrote a line

    ran = []
    run = CortexMPlace.measure
    monkeypatch.setattr(CortexMPlace, "measure", lambda *a: ran.append(a) or run(*a))
    for runs in (1, 1):  # the one that is missing, and then none
        again = Meter(chip("cortex-m7"), ZERO_WAIT)
        assert again.measure(sample) == measured
        assert again.measure(other) == meter.measure(other)
        assert len(ran) == runs


def test_what_a_chip_cannot_hold_is_left_out(fresh):
    random = np.random.default_rng(0)
    drawn = (draw("matmul", random, True) for _ in range(200))
    large = next(s for s in drawn if s is not None and sum(x.size for x in s.inputs) + s.output_bytes > 250_000)
    assert Meter(chip("cortex-m0plus"), ZERO_WAIT).measure(large) is None


def test_a_core_without_a_chip_is_refused():
    with pytest.raises(TinyFormerError, match="no chip to measure 'cortex-m85' on; there is one for cortex-m7, "):
        chip("cortex-m85")


def test_memory_adds_waits_and_nothing_else(fresh, samples):
    sample = next(s for s in samples.held_out if s.operator == "linear")
    core = Meter(load_target("stm32f746"), ZERO_WAIT).measure(sample)
    with_memory = Meter(load_target("stm32f746"), Timing.MEMORY).measure(sample)
    assert core is not None and with_memory is not None
    assert with_memory["waits"] > core["waits"] == 0
    assert with_memory["cycles"] == core["cycles"]
    assert with_memory["instructions"] == core["instructions"]


# ---- predictions beside measurements ----


@pytest.mark.parametrize("name", [*CHIPS, *TARGETS])
def test_fresh_measurements_are_within_the_band(name, fresh):
    """Shapes of Table I, drawn anew: fails once kernels or timing models have changed and the fits have not."""
    target = load_target(name) if name in TARGETS else chip(name)
    meter = Meter(target, Timing.MEMORY if name in TARGETS else ZERO_WAIT)
    predictor = load_predictor(target if name in TARGETS else name)
    random = np.random.default_rng(2026)
    errors = []
    for operator, variant in (kernel for kernel in kernels() if target.dsp or kernel[1] != "_dsp"):
        drawn = (draw(operator, random, True, variant=variant) for _ in range(100))
        found = ((s, meter.measure(s)) for s in drawn if s is not None and s.call.macs < MOST_MACS)
        for sample, measured in itertools.islice(((s, m) for s, m in found if m is not None), 2):
            predicted = predictor.predict_call(sample.call, sample.activation_bytes)
            cycles = predicted.cycles + (predicted.waits or 0.0)
            errors.append(abs(cycles / (measured["cycles"] + measured["waits"]) - 1))
            assert errors[-1] < BAND_WORST, (operator, variant, measured, predicted)
            assert abs(predicted.instructions / measured["instructions"] - 1) < BAND_WORST, (
                operator,
                variant,
                measured,
            )
    assert len(errors) == 2 * len([kernel for kernel in KERNELS if target.dsp or not kernel.endswith("_dsp")])
    assert np.median(errors) < BAND_MEDIAN


@pytest.mark.parametrize("name", ["cortex-m7", "stm32f746"])
def test_a_whole_model_is_predicted(name):
    model, data = next(iter(example_models().items()))
    found = check_model(load_predictor(load_target(name) if name in TARGETS else name), model, data)
    assert (found.model, found.chip) == ("tinyformer_cifar10", name)
    assert found.measured > 1_000_000
    assert abs(found.error) < (0.05 if name in TARGETS else 0.02)


def test_the_command_fits_and_reports(tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(fit_predictor_cli, "_IN_SEARCH", 4)
    monkeypatch.setattr(fit_predictor_cli, "_AT_RANDOM", 30)
    monkeypatch.setattr(fit_predictor_cli, "_HELD_OUT", 3)
    before = {path: path.read_bytes() for path in BUILT_IN.iterdir()}
    app = typer.Typer()
    app.command()(fit_predictor_cli.fit_predictor)
    arguments = ["--target", "stm32f407", "--seed", "3", "--output"]
    runner = CliRunner(env={"COLUMNS": "200"})
    first = runner.invoke(app, [*arguments, str(tmp_path / "a")], catch_exceptions=False)
    assert first.exit_code == 0
    for said in ("layernorm (3)", "Error of predicted cycles", "cifar10 on stm32f407: ", "cifar10 on cortex-m4: "):
        assert said in first.stdout
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["cortex-m4.json", "stm32f407.json"]
    for name in ("cortex-m4", "stm32f407"):
        fitted = read_fit(tmp_path / "a" / f"{name}.json")
        assert (fitted.name, fitted.seed) == (name, 3)
    runner.invoke(app, [*arguments, str(tmp_path / "b")], catch_exceptions=False)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert before == {path: path.read_bytes() for path in BUILT_IN.iterdir()}
