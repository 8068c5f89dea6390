"""Accuracy comes from the integer model; pruned zeros are zeros there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from nas.data import LabelledImages, to_input
from nas.evaluate import integer_accuracy, integer_model
from nas.layers import Network, describe
from nas.writer import random_weights
from refsim.errors import ModelError
from tests.nas.tiny import architecture, dark_and_bright, int8_weights

DATA = dark_and_bright(40)


def network(seed: int) -> tuple[Network, dict[str, np.ndarray]]:
    description = describe(architecture(seed))
    return description, random_weights(description, np.random.default_rng(seed))


def test_accuracy_counts_the_integer_models_answers() -> None:
    description, parameters = network(3)
    model = integer_model(description, parameters, DATA.images, threads=1)
    answers = model.predict(to_input(DATA.images)).argmax(axis=1)
    assert set(answers) == {0, 1}, "a network that always says the same shows nothing"
    for labels in (answers, 1 - answers, np.where(np.arange(40) < 10, answers, 1 - answers)):
        data = LabelledImages(DATA.images, labels.astype(np.int64))
        expected = float((labels == answers).mean())
        assert integer_accuracy(description, parameters, DATA.images, data, threads=1) == expected


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_zeros_of_the_weights_are_zeros_of_the_integer_model(seed: int) -> None:
    description, parameters = network(seed)
    real = sum(int((value == 0).sum()) for name, value in parameters.items() if value.ndim > 1)
    assert real >= sum(layer.pruned_blocks * layer.pruning.block for layer in description.layers) > 0
    found = int8_weights(integer_model(description, parameters, DATA.images, threads=1).graph)
    large = {name: value for name, value in parameters.items() if value.ndim > 1}
    assert sum(array.size for array in found) == sum(value.size for value in large.values())
    assert sum(int((array == 0).sum()) for array in found) >= real


def test_weights_that_are_not_finite() -> None:
    description, parameters = network(3)
    parameters["head.last.weight"][0, 0] = np.nan
    with pytest.raises(ModelError, match=r"'head\.last\.weight' holds values that are not finite"):
        integer_accuracy(description, parameters, DATA.images, DATA)


def test_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import nas.evaluate, nas.writer, nas.sampling"
    subprocess.run([sys.executable, "-c", code], check=True)
