"""Write a suite: operators, whole models and what must be refused, as JSON descriptors and .npy arrays."""

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import refsim
from conformance.exchange.description import Description, describe
from conformance.exchange.refusals import refusals
from conformance.models import ModelUnderTest
from conformance.strategies import Case
from conformance.suite import for_each_case
from refsim.errors import DataError, TinyFormerError

VERSION = 1
INDEX, DESCRIPTOR = "suite.json", "case.json"
SCHEMA = Path(__file__).with_name("case.schema.json")

Arrays = dict[str, NDArray[Any]]


def export(
    folder: Path,
    operators: Sequence[str],
    models: Sequence[ModelUnderTest],
    *,
    count: int,
    samples: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Write a suite, whole or not at all.

    Args:
        folder: must not exist yet.
        operators: names.
        models: graphs with samples.
        count: cases of each operator.
        samples: of each model, at most.
        seed: of the cases.
        progress: called after each operator and model.

    Returns:
        Number of cases.

    Raises:
        DataError: the folder exists.
        TinyFormerError: it cannot be written.
    """
    if folder.exists():
        raise DataError(f"{folder} exists: a suite is written into a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as parent:
            whole = Path(parent) / "suite"
            paths: list[str] = []
            for operator in operators:
                paths += _operator_cases(whole, operator, count, seed)
                progress()
            for model in models:
                paths += _model_cases(whole, model, samples)
                progress()
            index = {"format": "tinyformer-vectors", "version": VERSION, "seed": seed, "cases": paths}
            whole.mkdir(exist_ok=True)
            (whole / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            (whole / SCHEMA.name).write_bytes(SCHEMA.read_bytes())
            whole.replace(folder)
    except OSError as error:
        raise TinyFormerError(f"{folder} cannot be written: {error.strerror or error}") from error
    return len(paths)


def _operator_cases(suite: Path, operator: str, count: int, seed: int) -> list[str]:
    legal: list[str] = []
    refused: dict[str, str] = {}  # reason -> path; one of each is enough

    def add(case: Case, _: int) -> None:
        description = describe(case.op)
        name = f"{operator}/{len(legal):04d}"
        _write(suite / name, {"kind": "operator", "name": name}, description, case.inputs, case.op.run(*case.inputs)[0])
        legal.append(name)
        for reason, changed, inputs in refusals(description, case.inputs):
            if reason not in refused:
                refused[reason] = name = f"{operator}/refused-{len(refused):02d}"
                _write(suite / name, {"kind": "refusal", "name": name, "reason": reason}, changed, inputs, None)

    for_each_case(operator, add, count=count, seed=seed)
    return [*legal, *refused.values()]


def _write(
    folder: Path, head: dict[str, Any], description: Description, inputs: Sequence[NDArray[Any]], output: Any
) -> None:
    arrays: Arrays = {f"input{k}.npy": x[0] for k, x in enumerate(inputs)}
    node = _node(description, "", arrays)
    node["inputs"] = [{"file": f"input{k}.npy", "shape": list(x.shape[1:])} for k, x in enumerate(inputs)]
    if output is not None:
        arrays["output.npy"] = output
        node["output"] = {"file": "output.npy", "shape": list(output.shape)}
    _save(folder, {"version": VERSION, **head, **node}, arrays)


def _node(description: Description, prefix: str, arrays: Arrays) -> dict[str, Any]:
    """The part of a descriptor that says what an operator is; its arrays join the others."""
    files = {name: f"{prefix}{name}.npy" for name in description.arrays}
    arrays |= {files[name]: array for name, array in description.arrays.items()}
    return {
        "operator": description.operator,
        "parameters": description.parameters,
        "arrays": {
            name: {"file": files[name], "dtype": array.dtype.name, "shape": list(array.shape)}
            for name, array in description.arrays.items()
        },
    }


def _model_cases(suite: Path, model: ModelUnderTest, samples: int) -> list[str]:
    graph, names = model.graph, []
    files = {name: f"tensor{index:03d}.npy" for index, name in enumerate(graph.tensors)}
    for sample in range(min(samples, model.count)):
        given = {name: data[sample : sample + 1] for name, data in model.samples.items()}
        values = refsim.engine.run(graph, given, trace=True)
        arrays: Arrays = {files[name]: data[0] for name, data in values.items()}
        arrays |= {files[name]: data[0] for name, data in given.items()}
        arrays |= {files[name]: data for name, data in graph.constants.items()}
        nodes = [
            {
                "name": node.name,
                **_node(describe(node.op), f"node{index:03d}.", arrays),
                "inputs": list(node.inputs),
                "output": node.output,
            }
            for index, node in enumerate(graph.nodes)
        ]
        name = f"model-{graph.name}/{sample:04d}"
        descriptor: dict[str, Any] = {
            "version": VERSION,
            "kind": "model",
            "name": name,
            "tensors": {t: {"file": files[t], "shape": list(kind.shape)} for t, kind in graph.tensors.items()},
            "inputs": [port.tensor for port in graph.inputs],
            "constants": list(graph.constants),
            "outputs": [port.tensor for port in graph.outputs],
            "nodes": nodes,
        }
        _save(suite / name, descriptor, arrays)
        names.append(name)
    return names


def _save(folder: Path, descriptor: Mapping[str, Any], arrays: Arrays) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.save(stream, array.copy(order="C"), allow_pickle=False)
        (folder / name).write_bytes(stream.getvalue())
    (folder / DESCRIPTOR).write_text(json.dumps(descriptor, indent=2) + "\n", encoding="utf-8")
