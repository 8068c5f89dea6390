"""The benchmark measures what it says, on the example."""

import json

import pytest

from conformance import bench
from conformance.models import example_models
from refsim.errors import DataError


@pytest.fixture(scope="module")
def report():
    model, data = next(iter(example_models().items()))
    return bench.measure(model, data, targets=["stm32f746"], batches=[3], rounds=2, samples=1)


def test_the_ratio_is_that_of_each_turn(report):
    (rate,) = report.throughput
    assert (rate.batch, rate.threads, rate.rounds) == (3, 2, 2)
    assert len(rate.ratios) == 2 and min(rate.ratios) <= rate.ratio <= max(rate.ratios)
    assert rate.refsim > 0 and rate.onnxruntime > 0


def test_instructions_are_exact(report):
    (chip,) = report.emulated
    assert chip.macs == 5_585_376
    assert chip.instructions == int(chip.instructions) > chip.macs
    model, data = next(iter(example_models().items()))
    assert bench.emulated(model, data, "stm32f746", 1).instructions == chip.instructions


def test_the_report_is_json_and_tables(report):
    written = json.loads(bench.as_json(report))
    assert written["throughput"][0]["batch"] == 3 and written["versions"]["numba"]
    assert bench.bench_table(report).row_count == bench.emulated_table(report).row_count == 1
    assert bench.speed_table(report).row_count == 1


def test_emulation_is_timed_with_and_without_cycles(report):
    (chip,) = report.emulated
    assert list(chip.speed) == ["counting", "zero-wait", "memory"]
    assert all(rate > 0 for rate in chip.speed.values())


def test_samples_of_another_model_are_refused(tmp_path):
    model, _ = next(iter(example_models().items()))
    with pytest.raises(DataError):
        bench.throughput(model, tmp_path / "none.npz", batch=1)
