"""The library's object: load, predict, trace, evaluate."""

from collections.abc import Iterator

import numpy as np
import pytest

import refsim
from refsim import Model
from refsim.errors import DataError, ModelError, ShapeError
from tests.refsim.conftest import CLASSES, Files
from tests.refsim.test_engine import small_graph


@pytest.fixture(scope="module")
def model(files: Files) -> Model:
    return refsim.load(files.model)


def test_bytes_in_bytes_out_and_floats_in_floats_out(model: Model, files: Files) -> None:
    graph = model.graph
    (entry,), (end,) = graph.inputs, graph.outputs
    q = refsim.quantize_input(graph, entry, files.samples)
    expected = refsim.run(graph, q)[end.tensor]
    found = model.predict(q)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)
    scores = model.predict(files.samples)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, graph.tensors[end.tensor].dequantize(expected))
    by_name = model.predict({"x": q})
    assert list(by_name) == [end.name]
    np.testing.assert_array_equal(by_name[end.name], expected)
    np.testing.assert_array_equal(model.predict({"x": files.samples})[end.name], scores)


def test_trace_holds_every_tensor(model: Model, files: Files) -> None:
    for x in (files.samples[:3], refsim.quantize_input(model.graph, model.graph.inputs[0], files.samples[:3])):
        trace = model.trace(x)
        assert set(trace) == {model.graph.inputs[0].tensor} | {node.output for node in model.graph.nodes}
        np.testing.assert_array_equal(
            trace[model.graph.outputs[0].tensor],
            refsim.run(model.graph, trace[model.graph.inputs[0].tensor])[model.graph.outputs[0].tensor],
        )


def test_predict_refuses_other_types_and_shapes(model: Model) -> None:
    with pytest.raises(DataError, match="found int32"):
        model.predict(np.zeros((1, 3, 6, 6), np.int32))
    with pytest.raises(ShapeError, match=r"\(N, 3, 6, 6\)"):
        model.predict(np.zeros((1, 6, 6, 3), np.float32))


def test_evaluate_counts(model: Model, files: Files) -> None:
    found = model.evaluate(files.data, progress=False)
    classes = model.predict(files.samples).argmax(1)
    assert found.samples == 150
    assert found.accuracy == np.mean(classes == files.labels) > 0.9
    for true in range(CLASSES):
        for answer in range(CLASSES):
            assert found.confusion[true, answer] == np.sum((files.labels == true) & (classes == answer))
    assert found.top[5] == 1.0
    assert found.top[1] == found.accuracy
    rows = found.records()
    assert sum(row["samples"] for row in rows) == 150
    assert rows[0]["recall"] == np.mean(classes[files.labels == 0] == 0)


def test_every_form_of_a_dataset_gives_the_same(model: Model, files: Files) -> None:
    q = refsim.quantize_input(model.graph, model.graph.inputs[0], files.samples)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 150, 40):
            yield files.samples[start : start + 40], files.labels[start : start + 40]

    expected = model.evaluate(str(files.data), progress=False).confusion
    forms = [
        (files.samples, files.labels),
        ({"x": files.samples}, files.labels),
        {"x": files.samples, "labels": files.labels},
        batches(),
        (q, files.labels),
        [[files.samples[:90], files.labels[:90]], {"x": files.samples[90:], "labels": files.labels[90:]}],
    ]
    for form in forms:
        np.testing.assert_array_equal(model.evaluate(form, progress=False).confusion, expected)


def test_long_datasets_are_never_held_whole(model: Model, files: Files) -> None:
    alive = 0

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal alive
        for _ in range(20):
            alive += 1
            yield files.samples[:10], files.labels[:10]

    steps: list[tuple[int, int | None, int]] = []
    model.evaluate(batches(), progress=lambda done, total: steps.append((done, total, alive)))
    assert steps == [(10 * k, None, k) for k in range(1, 21)]


def test_progress_tells_the_total_where_it_is_known(model: Model, files: Files) -> None:
    steps: list[tuple[int, int | None]] = []
    model.compare(None, files.data, limit=100, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(64, 100), (100, 100)]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (np.zeros((2, 3, 6, 6), np.float32), "no array 'labels'"),
        ((np.zeros((2, 3, 6, 6), np.float32), np.array([0, 9])), r"labels must lie in \[0, 3\].*found 0 to 9"),
        ((np.zeros((2, 3, 6, 6), np.float32), np.array([0, 1, 2])), "same number of samples"),
        (np.zeros((2, 6, 6, 3), np.float32), "must have the shape"),
        (np.zeros((2, 3, 6, 6), np.int8), "int8 samples .* graph's shape"),
        ([], "holds no samples"),
        (7, "an iterable of batches, found int"),
        ("nowhere.npz", r"nowhere\.npz: .*cannot be read"),
    ],
)
def test_bad_datasets_are_refused(model: Model, dataset: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model.evaluate(dataset, progress=False)


def test_an_output_without_classes_is_refused() -> None:
    graph = small_graph()
    graph = small_graph(nodes=graph.nodes[:2], outputs=(refsim.Port("s", "image"),))
    with pytest.raises(DataError, match="one score for each class"):
        Model(graph).evaluate((np.zeros((1, 3, 4, 5), np.float32), np.zeros(1, int)), progress=False)


def test_a_float_model_is_quantised_with_samples(model: Model, files: Files) -> None:
    loaded = refsim.load(files.float_model, calibration=files.samples[:40])
    np.testing.assert_array_equal(loaded.predict(files.samples), model.predict(files.samples))
    from_file = refsim.load(files.float_model, calibration=files.data)
    assert from_file.evaluate(files.data, progress=False).accuracy > 0.9
    with pytest.raises(ModelError, match="in float: give calibration samples"):
        refsim.load(files.float_model)
    with pytest.raises(ModelError, match="quantised already"):
        refsim.load(files.model, calibration=files.samples)
    with pytest.raises(ModelError, match="no profile 'litert'"):
        refsim.load(files.model, profile="litert")


def test_a_model_says_what_it_is(model: Model) -> None:
    assert "x (6, 6, 3)" in repr(model)
