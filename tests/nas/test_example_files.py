"""The committed example: its files fit together and give the accuracy that its README states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from nas.data import to_input

FOLDER = Path(__file__).parents[2] / "examples" / "tinyformer_cifar10"


def test_samples() -> None:
    calibration, sample = np.load(FOLDER / "calibration.npz"), np.load(FOLDER / "test.npz")
    assert calibration["images"].shape == (64, 32, 32, 3)
    assert sample["images"].shape == (512, 32, 32, 3)
    assert calibration["images"].dtype == sample["images"].dtype == np.uint8
    assert sample["labels"].shape == (512,)
    assert sample["labels"].dtype == np.int64
    assert set(sample["labels"]) == set(range(10))
    training = {image.tobytes() for image in calibration["images"]}
    test = {image.tobytes() for image in sample["images"]}
    assert len(training) == 64
    assert len(test) == 512
    assert not training & test


def test_float_accuracy_is_the_one_stated() -> None:
    sample = np.load(FOLDER / "test.npz")
    session = ort.InferenceSession(str(FOLDER / "float.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": to_input(sample["images"])})
    correct = int((logits.argmax(axis=1) == sample["labels"]).sum())
    stated = re.search(r"(\d+) of the 512", (FOLDER / "README.md").read_text())
    assert stated is not None
    # Another processor may round a near tie the other way.
    assert abs(correct - int(stated[1])) <= 1


def test_float_model_is_small_and_clean() -> None:
    data = (FOLDER / "float.onnx").read_bytes()
    assert len(data) < 250_000
    assert not re.search(rb"/(home|root|tmp|work|usr)/|site-packages|\.py\b", data)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
