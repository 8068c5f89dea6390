"""The example of docs/tflite.md, "A layer's own vectors", runs and computes what CMSIS-NN's parameters mean."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.refsim.reference import finish

DOCS = Path(__file__).parents[2] / "docs" / "tflite.md"


def test_the_example_of_the_documentation() -> None:
    section = DOCS.read_text().split("## A layer's own vectors")[1]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # the documentation's own words
    x, y, layer = names["x"].astype(int), names["y"], names["layer"]
    assert y.dtype == np.int8 and y.shape == (1, 3, 3, 2) and len(np.unique(y)) > 9
    raised = np.zeros((4, 4, 2), int)  # input_offset is added; what lies outside counts as zero
    raised[:3, :3] = x[0] + 128
    for row, column, channel in np.ndindex(3, 3, 2):
        window = raised[row : row + 2, column : column + 2]
        acc = int(layer.bias[channel]) + int((window * layer.weight[channel].astype(int)).sum())
        assert y[0, row, column, channel] == finish(acc, layer.output, channel)
