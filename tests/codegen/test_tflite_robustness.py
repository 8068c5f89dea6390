"""Whatever is wrong with a .tflite file, one error of the project's own says so, at once."""

from pathlib import Path

import numpy as np
import pytest

import refsim
from codegen.tflite import load
from codegen.tflite.flatbuffer import FlatBuffer
from conformance.litert import random_samples, run_ports
from refsim.errors import ModelError, TinyFormerError
from tests.codegen.mutations import mutate
from tests.codegen.tflite_cases import CASES, build


@pytest.mark.parametrize("kind", CASES)
def test_mutated_files(kind: str, tmp_path: Path) -> None:
    """What is still read also runs."""
    rng = np.random.default_rng(len(kind))
    path, refused = tmp_path / "m.tflite", 0
    original = build(kind, 3).write(path).read_bytes()
    for _ in range(60):
        path.write_bytes(mutate(original, rng))
        try:
            graph = load(path)
        except TinyFormerError:
            refused += 1
            continue
        assert isinstance(graph, refsim.Graph)
        if sum(kind.size for kind in graph.tensors.values()) < 2**20:
            run_ports(graph, random_samples(graph, 1, seed=0))
    assert refused > 5


def test_vectors_that_are_read_without_end() -> None:
    buffer = FlatBuffer(build("ADD", 0).data())
    with pytest.raises(ModelError, match="its vectors overlap"):
        for _ in range(16 * len(buffer.data)):
            buffer.root(b"TFL3").tables(2)


def test_buffers_behind_the_tables_stay_inside_the_file(tmp_path: Path) -> None:
    """Large models keep constants behind the tables, with offset and size in the file."""
    path = tmp_path / "m.tflite"
    net = build("FULLY_CONNECTED", 5)
    expected = load(net.write(path))
    whole = net.data(behind=True)
    path.write_bytes(whole)
    samples = random_samples(expected, 2, seed=0)
    found = run_ports(load(path), samples)
    for name, y in run_ports(expected, samples).items():
        np.testing.assert_array_equal(found[name], y)
    path.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="lie outside the file"):
        load(path)
