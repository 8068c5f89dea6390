"""Sample files: .npz archives of images or of ready inputs, turned into what a model file takes."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.errors import DataError
from refsim.tensor import Shape

IMAGES = "images"
INPUTS = "inputs"
LABELS = "labels"


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become real numbers: (pixel - mean) / std.

    Raises:
        DataError: std is not positive.
    """

    mean: float = 128.0
    std: float = 128.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise DataError(f"the standard deviation of pixels must be positive, found {self.std:g}")


def read_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an .npz file by name.

    Raises:
        DataError: the file is missing, or is no archive of plain arrays.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError("the samples are a single array; give an .npz archive with named arrays")
        with archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(f"the samples cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError("the samples are no .npz archive of plain arrays") from error


def model_inputs(
    archive: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, Shape],
    preprocessing: Preprocessing,
    key: str | None = None,
) -> dict[str, NDArray[np.float32]]:
    """The arrays that a model file takes, float32 (N, *shape) by input name.

    An array of the archive is used as it is if it is floating, and preprocessed if it is uint8: then it may be
    (N, H, W, C) where the model takes (N, C, H, W).

    Args:
        archive: arrays by name.
        shapes: of one sample, by input name.
        preprocessing: of uint8 arrays.
        key: the array for a model of one input; "inputs" or "images" where None. Several inputs go by their names.

    Raises:
        DataError: an array is missing, or its dtype or shape does not fit; or the numbers of samples differ.
    """
    found = {}
    for name, shape in shapes.items():
        candidates = (key,) if key else (name, INPUTS, IMAGES) if len(shapes) == 1 else (name,)
        chosen = next((c for c in candidates if c in archive), None)
        if chosen is None:
            raise DataError(
                f"the samples hold no array {' or '.join(map(repr, candidates))} for input {name!r}, "
                f"found {', '.join(sorted(archive)) or 'none'}"
            )
        found[name] = _as_input(chosen, archive[chosen], shape, preprocessing)
    counts = {array.shape[0] for array in found.values()}
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"the samples need one number of at least 1 for every input, found {sorted(counts)}")
    return found


def labels(archive: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.int64]:
    """The labels of `count` samples, int64 (count,).

    Raises:
        DataError: they are missing, no integers, or another number.
    """
    if LABELS not in archive:
        raise DataError(f"the samples hold no array {LABELS!r}, found {', '.join(sorted(archive)) or 'none'}")
    found = archive[LABELS]
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"labels must be {count} integers, one a sample, found {found.dtype} of shape {found.shape}")
    return found.astype(np.int64)


def _as_input(name: str, array: NDArray[Any], shape: Shape, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """One array as the model file takes it."""
    if array.dtype == np.uint8:
        # Image files are channels last; most model files are channels first.
        if array.ndim == 4 and array.transpose(0, 3, 1, 2).shape[1:] == shape:
            array = array.transpose(0, 3, 1, 2)
        real = (array.astype(np.float32) - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    elif np.issubdtype(array.dtype, np.floating):
        real = array.astype(np.float32)
    else:
        raise DataError(f"samples {name!r} must be uint8 pixels or floating point, found {array.dtype}")
    if real.shape[1:] != shape or real.ndim != len(shape) + 1:
        raise DataError(f"samples {name!r} must have the shape (N, {', '.join(map(str, shape))}), found {array.shape}")
    return np.ascontiguousarray(real)
