"""Named arrays on disk: .npz files that appear whole or not at all."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.errors import DataError
from refsim.files import write_whole


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed .npz file, and its folder where that is missing."""
    data = BytesIO()
    np.savez_compressed(data, **arrays)  # type: ignore[arg-type]  # takes them for its own options
    write_whole(path, data.getvalue())


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """What `save_arrays` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile's, zlib's or numpy's, whatever the damaged bytes provoke
        raise DataError(f"arrays {path} cannot be read: {error}") from error
