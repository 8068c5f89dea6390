"""A .tflite file -> integer graph."""

from pathlib import Path
from typing import Any

import numpy as np

from codegen.passes import optimize
from codegen.tflite.lowering import lower
from codegen.tflite.profiles import ProfileName, find_profile
from codegen.tflite.reader import read_file
from refsim import Graph
from refsim.errors import ModelError, located
from refsim.samples import Preprocessing


def load(path: str | Path, *, name: str | None = None, profile: ProfileName = "litert") -> Graph:
    """Read a model quantised to int8 by the TensorFlow Lite converter.

    Args:
        path: the .tflite file.
        name: of the graph; the file's stem by default.
        profile: whose bytes the graph gives: "litert" (LiteRT's reference kernels) or "cmsis-nn" (TensorFlow Lite
            Micro with CMSIS-NN).

    Returns:
        The integer graph for one sample, passes applied.

    Raises:
        ModelError: the file is missing, corrupt, inconsistent or not quantised.
        UnsupportedError: naming the operator and tensor, what is not supported.
        QuantizationError, ShapeError: naming the operator's output, a parameter that an operator refuses.
    """
    with located(str(path)):
        return optimize(read_graph(path, name=name, profile=profile))


def read(path: Path, *, calibration: Any, profile: str | None, preprocessing: Preprocessing) -> Graph:
    """Read a .tflite file for `refsim.load` (a `refsim.readers.Reader`).

    Raises:
        ModelError: as `load`; also if calibration samples are given, for the file is quantised already.
    """
    if calibration is not None:
        raise ModelError(f"{path}: a .tflite model is quantised already: leave the calibration samples out")
    return load(path, profile=find_profile(profile or "litert").name)


def read_graph(path: str | Path, *, name: str | None = None, profile: ProfileName = "litert") -> Graph:
    """The graph before any pass: every tensor that the file computes is there under the file's name for it.

    Arguments and errors as for `load`.
    """
    path = Path(path)
    chosen = find_profile(profile)
    with np.errstate(all="ignore"):  # what leaves float32's range is found and named where it is used
        return lower(read_file(path), name or path.stem, chosen)
