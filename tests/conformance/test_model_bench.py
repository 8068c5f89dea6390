"""The benchmark of whole models measures what it says, beside baselines that it finds by name."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from codegen.onnx import quantize
from conformance import chip_cost
from conformance.model_bench import BASELINES, as_json, baseline_of, measure, tables
from refsim.errors import ConformanceError, ModelError, TinyFormerError
from tests.codegen.onnx_models import Net
from tinyformer import app

TARGETS = ["stm32h7a3", "stm32l4r5", "rp2040"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    net = Net(3, 8, 8)
    onnx.save(net.proto(net.add("Relu", net.conv("x", 3, 8, 3, pads=[1] * 4))), folder / "float.onnx")
    onnx.save(quantize(folder / "float.onnx", net.samples(4)), folder / "Tiny-ResNet_8.onnx")
    return folder / "Tiny-ResNet_8.onnx"


@pytest.fixture(scope="module")
def report(model):
    return measure([model, model], TARGETS, baselines=["resnet8", "none"])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/resnet8_cifar10_int8.tflite", "resnet8"),
        ("DS-CNN_S.tflite", "dscnn"),
        ("resnet8/model.onnx", "resnet8"),
        ("resnet50.onnx", "none"),
    ],
)
def test_a_files_name_tells_its_baseline(path, name):
    assert baseline_of(Path(path)) == name


def test_every_model_is_measured_on_every_chip(report):
    assert [cost.target for cost in report.costs] == TARGETS * 2
    for cost in report.costs:
        assert cost.macs == 8 * 8 * 8 * 27 and cost.instructions > 0 and cost.cycles > 0
    m7, m4, m0 = report.costs[:3]
    assert m7.memory_cycles > m7.cycles and m7.milliseconds == pytest.approx(m7.memory_cycles / 280e3)
    assert m7.cycles < m4.cycles < m0.cycles


def test_baselines_are_those_of_the_network_and_core(report):
    m7, m4, m0, *unnamed = report.costs
    for cost, core in ((m7, "cortex-m7"), (m4, "cortex-m4")):
        known = BASELINES["resnet8"][core]
        assert (cost.goal, cost.peer_cycles, cost.board_cycles) == (known.goal, known.peer, known.board)
    assert all(cost.goal is cost.peer_cycles is cost.board_cycles is None for cost in (m0, *unnamed))


def test_peers_are_held_against_the_timing_that_they_were_measured_in(report):
    ideal, waiting = tables(report)
    cost = report.costs[0]
    assert ideal.row_count == waiting.row_count == len(report.costs)
    assert next(iter(ideal.columns[-1].cells)) == f"{cost.peer_cycles / cost.cycles:.2f}"
    assert next(iter(waiting.columns[-1].cells)) == f"{cost.board_cycles / cost.memory_cycles:.2f}"
    assert list(ideal.columns[-3].cells)[::3] == ["[green]14.00[/]", "-"]
    assert json.loads(as_json(report))["costs"][0]["peer_cycles"] == 22.6e6


def test_baselines_that_do_not_match_are_refused(model):
    with pytest.raises(TinyFormerError, match="2 baselines for 1 models"):
        measure([model], TARGETS, baselines=["resnet8", "none"])
    with pytest.raises(TinyFormerError, match="'mobilenet' is unknown; there are resnet8, dscnn, and none"):
        measure([model], TARGETS, baselines=["mobilenet"])
    with pytest.raises(ModelError):
        measure([model.with_name("missing.onnx")], TARGETS)


def test_a_byte_that_differs_is_refused(model, monkeypatch):
    compare = chip_cost.compare_model
    monkeypatch.setattr(
        chip_cost, "compare_model", lambda *args: replace(compare(*args), mismatches=1, message="differs")
    )
    with pytest.raises(ConformanceError, match="Tiny-ResNet_8.onnx on stm32h7a3: differs"):
        measure([model], TARGETS[:1])


def test_the_command_prints_both_tables_and_writes_json(model, tmp_path):
    out = tmp_path / "out.json"
    done = CliRunner().invoke(app, ["bench-models", str(model), "--target", "stm32h7a3", "--json", str(out)])
    assert done.exit_code == 0 and "never waits" in done.output and "flash and caches" in done.output
    assert json.loads(out.read_text())["costs"][0]["baseline"] == "resnet8"
