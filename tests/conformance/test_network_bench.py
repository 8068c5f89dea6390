"""The network's benchmark measures what it says, on a network of the same kind that is smaller."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper

from codegen.onnx import load, quantize
from conformance import chip_cost
from conformance.network_bench import as_json, measure, peer_cycles, plot, table
from conformance.networks import STAGES, Stage, tinyformer
from refsim.errors import ConformanceError

SMALL = (Stage(8, 2, 2, 8), Stage(12, 2, 2, 16))
TARGETS = ["stm32f746", "rp2040"]


@pytest.fixture(scope="module")
def report():
    return measure(TARGETS, [0, 75], stages=SMALL)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    (folder / "float.onnx").write_bytes(tinyformer().SerializeToString())
    samples = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    (folder / "model.onnx").write_bytes(quantize(folder / "float.onnx", samples).SerializeToString())
    return load(folder / "model.onnx")


def test_the_network_computes_and_has_the_papers_token_shapes(graph):
    session = onnxruntime.InferenceSession(tinyformer(0.6).SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": np.ones((2, 3, 32, 32), np.float32)})
    assert logits.shape == (2, 10) and np.isfinite(logits).all() and logits.std() > 0
    norms = [graph.tensors[node.output].shape for node in graph.nodes if node.op.name == "layernorm"]
    assert norms == [(256, 44)] * 2 + [(64, 192)] * 2


@pytest.mark.parametrize("block", [2, 4])
def test_blocks_along_the_input_channels_are_zero(block):
    kept = zeros = 0
    for tensor in tinyformer(0.7, block, stages=SMALL).graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim < 2 or not (weight == 0).any():
            continue
        ordered = weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight.T
        blocks = (ordered.reshape(-1, block) == 0).sum(axis=1)
        assert set(blocks) == {0, block}
        zeros, kept = zeros + (blocks == block).sum(), kept + (blocks == 0).sum()
    assert zeros / (zeros + kept) == pytest.approx(0.7, abs=0.01)


def test_every_sparsity_is_measured_on_every_chip(report):
    assert [(c.sparsity, c.target) for c in report.costs] == [(s, t) for s in (0, 75) for t in TARGETS]
    dense, _, sparse, _ = report.costs
    assert sparse.constant_bytes < dense.constant_bytes and sparse.instructions < dense.instructions
    assert dense.macs == sparse.macs and dense.memory_cycles >= dense.cycles
    assert dense.milliseconds == pytest.approx(dense.memory_cycles / 216e3)
    assert dense.speedup > 1 and report.costs[1].peer_cycles is None


def test_what_does_not_fit_says_so():
    (cost,) = measure(["stm32f103"], [0], stages=(Stage(128, 2, 2, 128),)).costs
    assert cost.cycles is None and cost.constant_bytes > 0 and "stm32f103" in cost.why_not


def test_the_peers_cycles_are_sums_over_the_nearest_cases(graph):
    products = {"conv2d": 1.09, "linear": 1.09, "matmul": 2.11, "depthwise_conv2d": 5.94}
    assert peer_cycles(graph, "cortex-m0plus") is None
    macs = sum(
        graph.tensors[node.output].size * node.op.weight.size / len(node.op.bias)
        for node in graph.nodes
        if node.op.name in ("conv2d", "linear")
    )
    softmax = 378 * (4 * 256 * 256 + 4 * 64 * 64)
    assert macs * products["linear"] + softmax < peer_cycles(graph, "cortex-m7") < 2.2 * macs + 1.2 * softmax
    assert peer_cycles(graph, "cortex-m4") > peer_cycles(graph, "cortex-m7")


def test_the_report_is_json_a_table_and_a_plot(report):
    written = json.loads(as_json(report))
    assert written["costs"][0]["target"] == "stm32f746" and written["block"] == 4 and "-O2" in written["compiler"]
    assert table(report).row_count == len(report.costs)
    svg = plot(report)
    ElementTree.fromstring(svg)
    assert ">stm32f746, peer, dense</text>" in svg and ">Storage</text>" in svg


def test_a_byte_that_differs_is_refused(monkeypatch):
    compare = chip_cost.compare_model

    def wrong(under_test, *args):
        samples = {name: x ^ np.int8(0) for name, x in under_test.samples.items()}
        outcome = compare(chip_cost.ModelUnderTest(under_test.graph, samples), *args)
        return replace(outcome, mismatches=1, message="differs")

    monkeypatch.setattr(chip_cost, "compare_model", wrong)
    with pytest.raises(ConformanceError, match="0 % on stm32f746: differs"):
        measure(TARGETS[:1], [0], stages=SMALL)


def test_the_default_stages_are_those_of_table_iv():
    assert [(stage.dim, stage.heads) for stage in STAGES] == [(44, 4), (192, 4)]
