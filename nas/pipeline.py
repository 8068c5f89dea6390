"""From a folder of labelled images to a trained network in ONNX, with the samples that later steps need."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from rich.console import Console

from nas.data import LabelledImages, draw, hold_out, load_images, to_input
from nas.export import INPUT_NAME, OUTPUT_NAME, export_onnx
from nas.models import TinyFormer, TinyFormerConfig
from nas.training import TrainingConfig, accuracy, train

VALIDATION_IMAGES = 5000
CALIBRATION_IMAGES = 64
SAMPLE_IMAGES = 512

FLOAT_MODEL = "float.onnx"
CALIBRATION = "calibration.npz"
SAMPLE = "test.npz"
REPORT = "report.json"


@dataclass(frozen=True)
class Report:
    """What a run gave; accuracies are shares in [0, 1], of the exported file in ONNX Runtime."""

    parameters: int
    epochs: int
    training_images: int
    validation_accuracy: float
    test_images: int
    test_accuracy: float
    sample_images: int
    sample_accuracy: float


def train_to_onnx(
    data_folder: Path | None,
    out: Path,
    *,
    config: TrainingConfig | None = None,
    network: TinyFormerConfig | None = None,
    threads: int = 1,
    console: Console | None = None,
) -> Report:
    """Train a `TinyFormer` on the images in `data_folder` and write everything a user of it needs to `out`.

    `out` receives ``float.onnx``; ``calibration.npz`` (`images`: 64 training images); ``test.npz`` (`images` and
    `labels`: 512 test images); ``report.json``; and the checkpoint and history of the training, from which an
    interrupted run continues. Images are uint8 NHWC, labels int64. The samples are drawn with the seed of `config`,
    never by result, and the test images serve for the final figures only. `data_folder` None means TINYFORMER_DATA.

    Raises DataError when the images cannot be used (see `nas.data.load_images`) or the checkpoint cannot be resumed.
    """
    config = config or TrainingConfig()
    network = network or TinyFormerConfig()
    console = console or Console()
    torch.set_num_threads(threads)
    everything = load_images(data_folder, "train")
    test = load_images(data_folder, "test")
    training, validation = hold_out(everything, min(VALIDATION_IMAGES, len(everything) // 10), config.seed)
    sample = draw(test, SAMPLE_IMAGES, config.seed)
    out.mkdir(parents=True, exist_ok=True)
    _save_arrays(out / CALIBRATION, images=draw(training, CALIBRATION_IMAGES, config.seed).images)
    _save_arrays(out / SAMPLE, images=sample.images, labels=sample.labels)

    model, history = train(
        lambda: TinyFormer(network), training, validation, config=config, folder=out, console=console
    )
    export_onnx(model, out / FLOAT_MODEL, network.input_shape)
    report = Report(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        epochs=len(history),
        training_images=len(training),
        validation_accuracy=accuracy(model, validation),
        test_images=len(test),
        test_accuracy=onnx_accuracy(out / FLOAT_MODEL, test, threads),
        sample_images=len(sample),
        sample_accuracy=onnx_accuracy(out / FLOAT_MODEL, sample, threads),
    )
    (out / REPORT).write_text(json.dumps(asdict(report), indent=1) + "\n")
    console.print(
        f"{out / FLOAT_MODEL}: {report.test_accuracy:.2%} of {report.test_images} test images, "
        f"{report.sample_accuracy:.2%} of the {report.sample_images} in {SAMPLE}"
    )
    return report


def onnx_accuracy(path: Path, data: LabelledImages, threads: int = 1, batch_size: int = 256) -> float:
    """Share of `data` that the ONNX file at `path` classifies correctly in ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    correct = 0
    for start in range(0, len(data), batch_size):
        batch = data.take(slice(start, start + batch_size))
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: to_input(batch.images)})
        correct += int((logits.argmax(axis=1) == batch.labels).sum())
    return correct / len(data)


def _save_arrays(path: Path, **arrays: NDArray[np.uint8] | NDArray[np.int64]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # takes them for its own options
    part.replace(path)
