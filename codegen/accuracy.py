"""Accuracy of a classifier before and after quantisation, on the same labelled samples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import refsim
from codegen.onnx.reader import new_session, read_file, single_sample
from codegen.samples import input_shapes
from refsim.errors import DataError, located
from refsim.graph import Graph
from refsim.samples import Preprocessing, labels, model_inputs, read_archive

_BATCH = 64


@dataclass(frozen=True)
class AccuracyReport:
    """Shares of right answers, in [0, 1].

    Attributes:
        samples: how many were classified.
        float_accuracy: of the float model, by ONNX Runtime.
        int8_accuracy: of the integer graph, by refsim.
        agreement: share of samples on which both give the same class.
    """

    samples: int
    float_accuracy: float
    int8_accuracy: float
    agreement: float


def compare_accuracy(
    float_model: Path,
    graph: Graph,
    data: Path,
    preprocessing: Preprocessing | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AccuracyReport:
    """Classify labelled samples with a float model and with its integer graph.

    The class is the position of the largest element of the first output; both models take the same real inputs.

    Args:
        float_model: ONNX file.
        graph: the quantised model.
        data: .npz with `labels` and the inputs (see `codegen.samples.model_inputs`).
        preprocessing: of uint8 images.
        progress: called with the samples done and their number.

    Raises:
        ModelError: the float model is unreadable.
        DataError: the samples do not fit the model, or its output is no vector of scores.
        ShapeError: the integer graph takes other inputs than the float model.
    """
    with located(str(float_model)):
        file = read_file(float_model)
        session = new_session(file.proto if file.batch is None else single_sample(file.proto))
    with located(str(data)):
        archive = read_archive(data)
        inputs = model_inputs(archive, input_shapes(file), preprocessing or Preprocessing())
        count = next(iter(inputs.values())).shape[0]
        truth = labels(archive, count)
    step = _BATCH if file.batch is None else 1
    float_classes = np.empty(count, np.int64)
    int8_classes = np.empty(count, np.int64)
    for start in range(0, count, _BATCH):
        part = {name: array[start : start + _BATCH] for name, array in inputs.items()}
        size = len(next(iter(part.values())))
        scores = [
            session.run([session.get_outputs()[0].name], {name: array[i : i + step] for name, array in part.items()})[0]
            for i in range(0, size, step)
        ]
        float_classes[start : start + size] = _classes(np.concatenate(scores), "float model")
        quantised = refsim.predict(graph, part)[graph.outputs[0].name]
        int8_classes[start : start + size] = _classes(quantised, "quantised model")
        progress(start + size, count)
    return AccuracyReport(
        count,
        float(np.mean(float_classes == truth)),
        float(np.mean(int8_classes == truth)),
        float(np.mean(float_classes == int8_classes)),
    )


def _classes(scores: NDArray[np.float32], what: str) -> NDArray[np.int64]:
    """Position of each row's largest score."""
    if scores.ndim != 2:
        raise DataError(f"accuracy needs one score for each class, but the {what} gives an output of {scores.shape}")
    return np.asarray(scores.argmax(axis=1), np.int64)
