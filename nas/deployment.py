"""From a network's weights to what is flashed: float ONNX, QDQ ONNX, a folder of C, and the samples for `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import refsim
from codegen.generate import generate
from codegen.onnx import load, quantize
from codegen.target import Target
from nas.arrays import save_arrays
from nas.data import LabelledImages, to_input
from nas.evaluate import accuracy_of
from nas.layers import Network
from nas.resources import ResourceEval, Resources
from nas.writer import write_network
from refsim.errors import TargetError
from refsim.files import write_whole

FLOAT_MODEL = "float.onnx"
MODEL = "model.onnx"
CALIBRATION = "calibration.npz"
SAMPLE = "test.npz"
CODE = "c"
SAMPLE_IMAGES = 512


@dataclass(frozen=True)
class Deployed:
    """A model on its way to the chip.

    Attributes:
        folder: that holds ``float.onnx``, ``model.onnx`` (QDQ), ``calibration.npz``, ``test.npz`` and the C in ``c``.
        resources: what it takes; exact but for the code's size and the time.
        accuracy: of ``model.onnx`` in the golden model, on the test images; in [0, 1].
        test_images: how many these are.
    """

    folder: Path
    resources: Resources
    accuracy: float
    test_images: int

    def verify_arguments(self, target: str) -> list[str]:
        """Arguments of ``tinyformer verify``, which compiles and runs the C against the golden model."""
        return [
            str(self.folder / MODEL),
            "--target",
            target,
            "--data",
            str(self.folder / SAMPLE),
            "--float",
            str(self.folder / FLOAT_MODEL),
            "--generated",
            str(self.folder / CODE),
            "--report",
            str(self.folder / "verify"),
        ]


def deploy(
    network: Network,
    weights: Mapping[str, NDArray[np.float32]],
    *,
    calibration: NDArray[np.uint8],
    test: LabelledImages,
    target: Target,
    folder: Path,
    threads: int | None = None,
    must_fit: bool = True,
) -> Deployed:
    """Write a network's models and code.

    Args:
        network: its layers.
        weights: see `nas.writer.write_network`; zeros stay zeros all the way.
        calibration: images for the ranges of activations.
        test: labelled images that the search did not see; the first of them become ``test.npz``.
        target: the microcontroller.
        folder: to write to.
        threads: for the accuracy; by default as many as there are processors.
        must_fit: whether a model that does not fit the target is an error; else it merely has no C.

    Raises:
        TargetError: the model does not fit the target.
    """
    write_whole(folder / FLOAT_MODEL, write_network(network, weights).SerializeToString())
    save_arrays(folder / CALIBRATION, {"images": calibration})
    sample = test.take(slice(SAMPLE_IMAGES))
    save_arrays(folder / SAMPLE, {"images": sample.images, "labels": sample.labels})
    write_whole(folder / MODEL, quantize(folder / FLOAT_MODEL, to_input(calibration)).SerializeToString())
    graph = load(folder / MODEL)
    try:
        generate(graph, target, folder / CODE)
    except TargetError:
        if must_fit:
            raise
    accuracy = accuracy_of(refsim.Model(graph, threads=threads), test)
    return Deployed(folder, ResourceEval(target).of_graph(graph, network), accuracy, len(test))
