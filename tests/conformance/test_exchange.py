"""Vectors for other engines: suites are whole, valid and rebuild their operators; engines are told right from wrong."""

import json
import shutil
import stat
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import ckernels
from conformance.cli import register
from conformance.exchange.description import Description, build, describe
from conformance.exchange.engine import REFUSED, UNSUPPORTED, Verdict, read_index, run
from conformance.exchange.export import DESCRIPTOR, SCHEMA, export
from conformance.models import ModelUnderTest, random_samples
from conformance.suite import for_each_case
from refsim.errors import DataError, QuantizationError, ShapeError
from refsim.ops import OPERATORS
from tests.ckernels.compilers import ZIG
from tests.codegen.graphs import hybrid_graph

APP = typer.Typer()
register(APP)
ADAPTER = Path(__file__).parent.parent.parent / "examples" / "engine_adapter" / "adapter.c"
CONNECTED = ("conv2d", "linear", "lookup", "requantize", "softmax")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchange") / "suite"
    graph = hybrid_graph()
    export(folder, list(OPERATORS), [ModelUnderTest(graph, random_samples(graph, 2))], count=8, samples=2, seed=3)
    return folder


def descriptors(suite: Path) -> dict[str, dict]:
    return {name: json.loads((suite / name / DESCRIPTOR).read_text()) for name in read_index(suite)}


def rebuilt(folder: Path, part: dict) -> object:
    arrays = {name: np.load(folder / entry["file"]) for name, entry in part["arrays"].items()}
    return build(Description(part["operator"], part["parameters"], arrays))


def test_every_descriptor_is_what_the_schema_says(suite: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name, descriptor in descriptors(suite).items():
        validator.validate(descriptor)
        assert descriptor["name"] == name
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**descriptor, "kind": "riddle"})
    assert (suite / SCHEMA.name).read_bytes() == SCHEMA.read_bytes()


def test_a_suite_has_every_operator_a_model_and_something_to_refuse_of_each(suite: Path) -> None:
    found = descriptors(suite)
    for operator in OPERATORS:
        kinds = [d["kind"] for d in found.values() if d.get("operator") == operator]
        assert kinds.count("operator") == 8
        assert kinds.count("refusal") >= 1
    assert [d["kind"] for d in found.values()].count("model") == 2


def test_descriptors_alone_give_the_outputs(suite: Path) -> None:
    for name, descriptor in descriptors(suite).items():
        folder = suite / name
        if descriptor["kind"] == "operator":
            op = rebuilt(folder, descriptor)
            inputs = [np.load(folder / entry["file"])[np.newaxis] for entry in descriptor["inputs"]]
            np.testing.assert_array_equal(op.run(*inputs)[0], np.load(folder / descriptor["output"]["file"]))
        elif descriptor["kind"] == "refusal":
            with pytest.raises((ShapeError, QuantizationError)):
                rebuilt(folder, descriptor).output_shape(*(tuple(entry["shape"]) for entry in descriptor["inputs"]))


def test_a_model_can_be_run_node_by_node(suite: Path) -> None:
    name, descriptor = next((n, d) for n, d in descriptors(suite).items() if d["kind"] == "model")
    folder = suite / name
    golden = {t: np.load(folder / entry["file"]) for t, entry in descriptor["tensors"].items()}
    values = {t: golden[t] for t in (*descriptor["inputs"], *descriptor["constants"])}
    for node in descriptor["nodes"]:
        op = rebuilt(folder, node)
        values[node["output"]] = op.run(*(values[t][np.newaxis] for t in node["inputs"]))[0]
        np.testing.assert_array_equal(values[node["output"]], golden[node["output"]])
    assert set(descriptor["outputs"]) <= set(values)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_description_is_the_operator(operator: str) -> None:
    def check(case, _) -> None:
        again = build(describe(case.op))
        np.testing.assert_array_equal(again.run(*case.inputs), case.op.run(*case.inputs))
        assert describe(again).parameters == describe(case.op).parameters

    for_each_case(operator, check, count=8, seed=1)


def test_the_example_adapter_passes(suite: Path, tmp_path: Path) -> None:
    engine = tmp_path / "adapter"
    ZIG.run("-std=c99", "-O1", ADAPTER, *(ckernels.source(name) for name in CONNECTED), "-o", engine)
    trial = run(suite, [str(engine)], timeout=20)
    assert trial.passed, [r for r in trial.results if r.verdict is Verdict.DIFFERS]
    for result in trial.results:
        operator, _, case = result.case.partition("/")
        if operator not in CONNECTED:
            assert result.verdict is Verdict.UNSUPPORTED
        else:
            assert result.verdict is (Verdict.REFUSED if case.startswith("refused") else Verdict.EQUAL), result


def small_suite(suite: Path, to: Path, *names: str) -> Path:
    """The named cases of a suite alone."""
    index = json.loads((suite / "suite.json").read_text())
    to.mkdir()
    (to / "suite.json").write_text(json.dumps({**index, "cases": list(names)}))
    for name in names:
        shutil.copytree(suite / name, to / name)
    return to


def script(folder: Path, body: str) -> list[str]:
    """An engine in Python."""
    path = folder / "engine.py"
    path.write_text(f"import sys, json, shutil, pathlib\ncase, out = map(pathlib.Path, sys.argv[1:])\n{body}\n")
    return [sys.executable, str(path)]


@pytest.mark.parametrize(
    ("body", "verdict", "message"),
    [
        ("shutil.copy(case / 'output.npy', out)", Verdict.EQUAL, ""),
        ("shutil.copy(case / 'input0.npy', out / 'output.npy')", Verdict.DIFFERS, "differ"),
        ("pass", Verdict.DIFFERS, "output.npy was not written"),
        ("(out / 'output.npy').write_text('hello')", Verdict.DIFFERS, "no .npy file"),
        ("sys.exit('out of coffee')", Verdict.DIFFERS, "ended with code 1: out of coffee"),
        (f"sys.exit({REFUSED})", Verdict.DIFFERS, "refused, but it is legal"),
        (f"sys.exit({UNSUPPORTED})", Verdict.UNSUPPORTED, ""),
        ("import time; time.sleep(60)", Verdict.DIFFERS, "no end within 1 s"),
    ],
)
def test_verdicts_on_a_legal_case(suite: Path, tmp_path: Path, body: str, verdict: Verdict, message: str) -> None:
    one = small_suite(suite, tmp_path / "one", "lookup/0007")
    (result,) = run(one, script(tmp_path, body), timeout=1 if "sleep" in body else 30).results
    assert result.verdict is verdict
    assert message in result.message


def test_a_refusal_must_be_refused(suite: Path, tmp_path: Path) -> None:
    one = small_suite(suite, tmp_path / "one", "softmax/refused-00")
    (result,) = run(one, script(tmp_path, "pass"), timeout=30).results
    assert (result.verdict, "must be refused" in result.message) == (Verdict.DIFFERS, True)
    trial = run(one, script(tmp_path, f"sys.exit({REFUSED})"), timeout=30)
    assert trial.results[0].verdict is Verdict.REFUSED
    assert not trial.passed  # nothing was computed


def test_the_first_node_that_differs_is_named(suite: Path, tmp_path: Path) -> None:
    name = next(name for name in read_index(suite) if name.startswith("model-"))
    one = small_suite(suite, tmp_path / "one", name)
    descriptor = descriptors(one)[name]
    node = descriptor["nodes"][3]
    file = descriptor["tensors"][node["output"]]["file"]
    body = (
        "import numpy\nfor p in case.glob('tensor*.npy'): shutil.copy(p, out)\n"
        f"x = numpy.load(out / '{file}'); x.flat[0] ^= 1; numpy.save(out / '{file}', x)"
    )
    (result,) = run(one, script(tmp_path, body), timeout=30).results
    assert result.verdict is Verdict.DIFFERS
    assert result.message.startswith(f"{node['name']} ({node['operator']}): 1 of")


def test_commands(tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    runner = CliRunner()
    wanted = ["--operator", "lookup", "--cases", "2"]
    done = runner.invoke(APP, ["vectors", "export", str(folder), *wanted])
    assert done.exit_code == 0, done.output
    assert stat.S_ISDIR(folder.stat().st_mode)
    assert {path.name for path in folder.iterdir()} == {"lookup", "suite.json", SCHEMA.name}
    again = runner.invoke(APP, ["vectors", "export", str(folder), *wanted])
    assert isinstance(again.exception, DataError)
    assert "new folder" in str(again.exception)
    command = " ".join(script(tmp_path, "shutil.copy(case / 'output.npy', out)"))
    report = tmp_path / "report.json"
    done = runner.invoke(APP, ["vectors", "run", str(folder), "--engine", command, "--json", str(report)])
    assert done.exit_code == 1  # what must be refused has no output to copy
    assert json.loads(report.read_text())["passed"] is False
    assert "must be refused" in done.output


def test_a_folder_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no suite"):
        read_index(tmp_path)
    (tmp_path / "suite.json").write_text('{"format": "tinyformer-vectors", "version": 9, "cases": []}')
    with pytest.raises(DataError, match="version 1, found 9"):
        read_index(tmp_path)
    (tmp_path / "suite.json").write_text('{"format": "tinyformer-vectors", "version": 1, "cases": ["a"]}')
    with pytest.raises(DataError, match="damaged"):
        run(tmp_path, ["true"], timeout=1)
