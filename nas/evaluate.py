"""Accuracy of what runs on the chip: a network's weights, quantised, in the golden model.

Nothing here needs torch: a network is its description and its weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import refsim
from codegen.onnx.load import read
from nas.data import LabelledImages, to_input
from nas.layers import Network
from nas.writer import write_network

CALIBRATION_IMAGES = 64
_BATCH = 512


def integer_model(
    network: Network,
    weights: Mapping[str, NDArray[np.float32]],
    calibration: NDArray[np.uint8],
    *,
    threads: int | None = None,
) -> refsim.Model:
    """Write a network as ONNX, quantise it, and read it as the integer model that code is generated from.

    Args:
        network: its layers.
        weights: see `nas.writer.write_network`.
        calibration: images (N, height, width, channels) that activations' ranges are measured on.
        threads: that the model runs on; by default as many as there are processors.

    Raises:
        ModelError, QuantizationError: weights that cannot be quantised, such as ones that are not finite.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(write_network(network, weights).SerializeToString())
        graph = read(path, calibration=to_input(calibration), profile=None, preprocessing=refsim.Preprocessing())
    return refsim.Model(graph, threads=threads)


def integer_accuracy(
    network: Network,
    weights: Mapping[str, NDArray[np.float32]],
    calibration: NDArray[np.uint8],
    data: LabelledImages,
    *,
    threads: int | None = None,
) -> float:
    """Share of `data` that the integer model of a network classifies correctly (`AccuracyEval` in Algorithms 2, 3).

    Args:
        network: its layers.
        weights: see `nas.writer.write_network`.
        calibration: images (N, height, width, channels) that activations' ranges are measured on.
        data: labelled images.
        threads: see `integer_model`.
    """
    return accuracy_of(integer_model(network, weights, calibration, threads=threads), data)


def accuracy_of(model: refsim.Model, data: LabelledImages) -> float:
    """Share of `data` that an integer model classifies correctly."""
    correct = 0
    for start in range(0, len(data), _BATCH):
        batch = data.take(slice(start, start + _BATCH))
        correct += int((model.predict(to_input(batch.images)).argmax(axis=1) == batch.labels).sum())
    return correct / len(data)
