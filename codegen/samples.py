"""What a model file takes from a sample file (`refsim.samples`)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codegen.onnx.reader import ModelFile, read_file
from refsim.errors import located
from refsim.samples import Preprocessing, model_inputs, read_archive
from refsim.tensor import Shape


def input_shapes(file: ModelFile) -> dict[str, Shape]:
    """Shape of one sample of every input of a model file, by name."""
    return {value.name: file.shape(value.name)[1:] for value in file.proto.graph.input}


def read_inputs(
    path: Path, model: Path, preprocessing: Preprocessing, key: str | None = None
) -> dict[str, NDArray[np.float32]]:
    """What `model_inputs` gives, from a sample file and a model file.

    Raises:
        ModelError: the model is unreadable.
        DataError: the samples are unreadable or do not fit.
    """
    with located(str(model)):
        shapes = input_shapes(read_file(model))
    with located(str(path)):
        return model_inputs(read_archive(path), shapes, preprocessing, key)
