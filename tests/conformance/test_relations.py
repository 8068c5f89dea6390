"""Metamorphic relations: they hold, and each notices a fault of what it is about."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import conformance.random_models
import refsim
from codegen.placement import Buffer
from codegen.planner import check_plan, plan_arena
from conformance import vectors
from conformance.cli import register
from conformance.exploration import for_each
from conformance.models import ModelOutcome
from conformance.places import HostPlace, Library
from conformance.random_models import NAME, compare_random_models
from conformance.relations import GRAPHS, RELATIONS, GoldenModel, Kernels, Relation
from conformance.relations.programs import random_calls, random_plan, run_program
from conformance.relations.random_graphs import MOST_ELEMENTS, graphs
from conformance.relations.runner import check, run_relations
from conformance.replay import replay
from conformance.runner import choose_relations
from conformance.strategies import Case, cases
from refsim import Graph
from refsim.errors import TinyFormerError
from refsim.numerics import Int8Array
from refsim.ops import OPERATORS, Operator
from refsim.ops.softmax import Softmax
from tests.conformance.test_seeded_faults import FAULTS, patched

CASES = 6


def about(subject: str) -> list[Relation]:
    return [relation for relation in RELATIONS.values() if subject in relation.subjects]


@pytest.fixture(scope="module")
def some_graphs() -> list[Graph]:
    found: list[Graph] = []
    for_each(graphs(), lambda graph, _: found.append(graph), count=60, seed=1)
    return found


@pytest.fixture(scope="module")
def host() -> Iterator[Kernels]:
    place = HostPlace("host", Library())
    yield Kernels(place)
    place.close()


# ---- operators ----


@pytest.mark.parametrize("subject", OPERATORS)
def test_relations_hold_by_the_golden_model_and_by_kernels(subject: str, host: Kernels) -> None:
    outcomes = run_relations(
        subject, about(subject), [GoldenModel(), host], count=CASES, seed=3, failures=Path("never written")
    )
    assert [o.message for o in outcomes if o.broken] == []
    assert {o.cases for o in outcomes} == {CASES}
    assert sum(o.pairs for o in outcomes) > CASES


class Leaking(GoldenModel):
    """A model whose first byte hangs on the order and the place of everything it reads: no relation may hold."""

    def run(self, op: Operator, *inputs: Int8Array) -> Int8Array:
        y = super().run(op, *inputs).copy()
        y.flat[0] ^= zlib.crc32(op.name.encode() + repr(op).encode() + b"".join(x.tobytes() for x in inputs)) & 1
        return y

    def every_kernel(self, op: Operator, *inputs: Int8Array) -> Iterator[Int8Array]:
        yield super().run(op, *inputs)
        yield self.run(op, *inputs)


def test_each_relation_of_operators_notices_what_leaks() -> None:
    noticed = set()
    for subject in OPERATORS:

        def body(case: Case, _: int, relations: list[Relation] = about(subject)) -> None:  # noqa: B008 - of this subject
            left = [relation for relation in relations if relation.name not in noticed]
            noticed.update(relation.name for relation in left if check(relation, case, Leaking()))

        for_each(cases(subject), body, count=4 * CASES, seed=5)
    assert {name for name, relation in RELATIONS.items() if GRAPHS not in relation.subjects} == noticed


SEEDED = (
    ("rows-in-parts", "linear", "a tile of one row keeps the rest of four"),
    ("every-kernel", "linear", "sparse channels begin too late"),
    ("rows-for-columns", "conv2d", "conv2d pads one row too many"),
    ("permuted-mean", "mean", "mean takes bytes for unsigned"),
    ("mirrored-images", "depthwise_conv2d", "depthwise ignores the dilation of rows"),
    ("products-permuted", "matmul", "matmul corrects by the wrong zero point"),
    ("shifted-zero-points", "matmul", "matmul ignores b's zero point"),
    ("clamped-afterwards", "requantize", "the clamp ignores act_max"),
    ("permuted-scores", "softmax", "softmax keeps a stale maximum"),
)
"""Relations that hold by the golden model and not by kernels with a fault: no golden model is needed to see it."""


@pytest.mark.parametrize(("name", "operator", "fault"), SEEDED, ids=str)
def test_relations_notice_wrong_kernels(name: str, operator: str, fault: str, tmp_path: Path) -> None:
    (seeded,) = (one for one in FAULTS if one.name == fault)
    place = HostPlace("host", patched(seeded, operator, tmp_path))
    broken = []

    def body(case: Case, _: int) -> None:
        if not broken and (breach := check(RELATIONS[name], case, Kernels(place))):
            broken.append((case, breach))

    for_each(cases(operator), body, count=200, seed=0)
    place.close()
    assert broken
    assert check(RELATIONS[name], broken[0][0], GoldenModel()) is None


# ---- graphs ----


def test_random_graphs_are_of_every_operator(some_graphs: list[Graph]) -> None:
    assert {node.op.name for graph in some_graphs for node in graph.nodes} == set(OPERATORS)
    for graph in some_graphs:
        assert all(kind.size <= 4 * MOST_ELEMENTS for kind in graph.tensors.values())
        plan_arena(graph, random_calls(graph, True, Random(0)))  # refuses outputs that are constants
    assert any(len(graph.inputs) > 1 for graph in some_graphs)
    assert any(port.permutation for graph in some_graphs for port in graph.inputs)


def test_relations_of_graphs_hold(host: Kernels, some_graphs: list[Graph]) -> None:
    for graph in some_graphs[::6]:
        for relation in about(GRAPHS):
            for engine in (GoldenModel(), host):
                assert check(relation, graph, engine) is None, relation.name


def test_each_relation_of_graphs_notices_what_leaks(
    some_graphs: list[Graph], host: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A golden model whose outputs hang on the operators' order and on the batch."""
    run = refsim.run

    def leaking(graph: Graph, inputs: dict[str, Int8Array], **options: Any) -> dict[str, Int8Array]:
        found = {name: y.copy() for name, y in run(graph, inputs, **options).items()}
        samples = len(next(iter(inputs.values())))
        for y in found.values():
            y.flat[0] ^= zlib.crc32(f"{samples}{[node.op.name for node in graph.nodes]}".encode()) & 1
        return found

    monkeypatch.setattr(refsim, "run", leaking)
    names = {relation.name for relation in about(GRAPHS)} - {"any-kernels-and-plan"}
    for graph in some_graphs:
        for name in list(names):
            if check(RELATIONS[name], graph, host if name == "every-tensor" else GoldenModel()):
                names.remove(name)
    assert not names


PASS_FAULTS = (
    ("pass-absorb-input-transposes", "codegen.passes.ports._normal", lambda permutation: ()),
    ("pass-drop-identities", "codegen.passes.identities._moves_ones_only", lambda *_: True),
    ("pass-sink-transposes", "codegen.passes.transposes._identity", lambda rank: tuple(range(rank))[::-1]),
    ("pass-optimize", "codegen.passes.transposes._unpermute", lambda values, permutation: tuple(values)),
)


@pytest.mark.parametrize(("name", "function", "fault"), PASS_FAULTS, ids=[name for name, *_ in PASS_FAULTS])
def test_relations_notice_wrong_passes(
    name: str,
    function: str,
    fault: Callable[..., Any],
    some_graphs: list[Graph],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(function, fault)
    assert any(check(RELATIONS[name], graph, GoldenModel()) for graph in some_graphs)


def test_relations_notice_buffers_that_overlap(
    some_graphs: list[Graph], host: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a planner would make them that takes a tensor for dead one step too early."""
    monkeypatch.setattr(Buffer, "meets", lambda self, other: self.first < other.last and other.first < self.last)
    monkeypatch.setattr("conformance.relations.programs.check_plan", lambda *_: None)
    assert any(check(RELATIONS["any-kernels-and-plan"], graph, host) for graph in some_graphs)
    monkeypatch.setattr("conformance.relations.programs.check_plan", check_plan)
    breaches = [check(RELATIONS["every-tensor"], graph, host) for graph in some_graphs]
    assert any(breach and "overwritten" in breach.message for breach in breaches)


def test_random_plans_are_legal_and_differ(some_graphs: list[Graph], host: Kernels) -> None:
    graph = max(some_graphs, key=lambda graph: len(graph.nodes))
    calls = random_calls(graph, False, Random(0))
    plans = [random_plan(graph, calls, Random(seed)) for seed in range(3)]
    assert len({tuple(sorted(plan.tensor_offsets.items())) for plan in plans}) == 3
    sample = {port.tensor: np.zeros(graph.tensors[port.tensor].shape, np.int8) for port in graph.inputs}
    found = [run_program(host.place, graph, calls, plan, sample) for plan in plans]
    golden = refsim.run(graph, {name: x[None] for name, x in sample.items()}, trace=True)
    for name, y in found[0].items():
        np.testing.assert_array_equal(y, golden[name][0])
        np.testing.assert_array_equal(y, found[1][name])


# ---- the command ----


def invoke(*options: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command("other")(lambda: None)  # so that commands keep their names
    register(app)
    result = CliRunner().invoke(app, ["conformance", *map(str, options)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_broken_relation_is_shown_saved_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Softmax.run

    def stale(self: Softmax, *inputs: Int8Array) -> Int8Array:
        y = run(self, *inputs)
        y[..., -1] = y[..., 0]
        return y

    options = ["--relation", "permuted-scores", "--relation", "pass-merge-tables", "--cases", 30, "--place", "host"]
    with monkeypatch.context() as patch:
        patch.setattr(Softmax, "run", stale)
        code, output = invoke(*options, "--failures", tmp_path)
        assert code == 1
        said = "permuted-scores by refsim: Softmax of permuted elements is softmax, permuted. But"
        assert said in " ".join(output.split())
        (folder,) = tmp_path.iterdir()
        vector = vectors.load(folder)
        assert (vector.place, vector.descriptor["relation"]) == ("refsim", "permuted-scores")
        assert vector.case.inputs[0].size <= 4
        assert invoke("--replay", folder)[0] == 1
    assert invoke("--replay", folder) == (0, "softmax at refsim: relation permuted-scores holds\n")
    assert invoke("--replay", folder, "--place", "host") == (0, "softmax at host: relation permuted-scores holds\n")
    code, output = invoke(*options, "--operator", "softmax", "--failures", tmp_path)
    assert code == 0
    assert "0 of 30" in output


def test_relations_are_chosen_by_name_and_operator() -> None:
    assert list(choose_relations([], ["softmax"])) == ["softmax"]
    assert set(choose_relations([], [])) == {*OPERATORS, GRAPHS}
    assert list(choose_relations(["any-order"], [])) == [GRAPHS]
    with pytest.raises(TinyFormerError, match="there is no relation 'sideways'; there are "):
        choose_relations(["sideways"], [])
    with pytest.raises(TinyFormerError, match="relation 'any-order' says nothing about softmax"):
        choose_relations(["any-order"], ["softmax"])
    with pytest.raises(TinyFormerError, match="kernels or by the golden model, not at 'definition'"):
        with_place = vectors.Vector(Case(OPERATORS["reshape"]((1,)), (np.zeros((1, 1), np.int8),)), np.zeros(1), "", {})
        replay(replace(with_place, descriptor={"relation": "reshaped-back"}), "definition")


def test_random_networks_report_the_smallest_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs them is `compare_model`, whose own tests show that it compares; here a graph with a softmax differs."""

    def compared(model: Any, place: object, name: str, count: int) -> ModelOutcome:
        wrong = any(node.op.name == "softmax" for node in model.graph.nodes)
        return ModelOutcome("random", name, count, len(model.graph.nodes), count * wrong, 0.1, "differs" * wrong)

    monkeypatch.setattr(conformance.random_models, "open_place", lambda *_: None)
    monkeypatch.setattr(conformance.random_models, "compare_model", compared)
    seen: list[None] = []
    outcome = compare_random_models("host", "host", count=20, seed=1, progress=lambda: seen.append(None))
    assert (outcome.model, outcome.place, outcome.samples, len(seen)) == (NAME, "host", 80, 20)
    assert 0 < outcome.mismatches < 80
    assert outcome.message.startswith("differs, in the graph of input0")
    assert outcome.message.count(" of ") <= 5


def test_a_random_network_runs_as_generated_code() -> None:
    outcome = compare_random_models("host", "host", count=2, seed=4)
    assert (outcome.samples, outcome.mismatches, outcome.message) == (8, 0, "")
