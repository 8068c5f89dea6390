"""Model files by their suffix: the packages that read them say so themselves, as entry points.

A package that reads a format names its reader in its metadata, under the suffix without the dot:

    [project.entry-points."refsim.readers"]
    onnx = "codegen.onnx.load:read"

So the simulator depends on no importer, and another package can add a format.
"""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, Protocol

from refsim.errors import ModelError
from refsim.graph import Graph
from refsim.samples import Preprocessing

GROUP = "refsim.readers"


@dataclass(frozen=True, eq=False)
class Calibration:
    """How to quantise a float model; `tinyformer quantize` has the same options (docs/quantisation.md).

    Attributes:
        samples: arrays by input name, one array for a single input, or the path of an .npz file.
        method: "minmax", "percentile", "entropy" or "mse".
        per_channel: one weight scale for each output channel, or one for each weight.
        equalise: cross-layer equalisation.
        bias_correction: bias correction.
        search: evaluations to spend on ranges and weights.
    """

    samples: Any
    method: Literal["minmax", "percentile", "entropy", "mse"] = "minmax"
    per_channel: bool = True
    equalise: bool = False
    bias_correction: bool = False
    search: int = 0


class Reader(Protocol):
    """What an entry point of the group names."""

    def __call__(self, path: Path, *, calibration: Any, profile: str | None, preprocessing: Preprocessing) -> Graph:
        """Read a model file.

        Args:
            path: the file.
            calibration: to quantise a float model with: a `Calibration`, the samples of one, or None.
            profile: whose kernels the operators follow, where a format leaves the choice; None for its own default.
            preprocessing: how uint8 pixels of an .npz file become real numbers.

        Raises:
            ModelError: the file cannot be read, or calibration or profile do not fit it.
        """
        ...


def find_reader(path: Path) -> Reader:
    """The reader for a file's suffix.

    Raises:
        ModelError: there is none, or its package is broken.
    """
    found: dict[str, EntryPoint] = {entry.name.lower(): entry for entry in entry_points(group=GROUP)}
    suffix = path.suffix.lower()
    entry = found.get(suffix.removeprefix("."))
    if entry is None:
        known = ", ".join(f".{name}" for name in sorted(found)) or "none"
        raise ModelError(
            f"{path}: no installed package reads {suffix or 'files without a suffix'}; readable: {known}. "
            f"Readers are entry points of the group {GROUP!r}: install the package that brings one"
            + ("" if found else " (after an update of a development install, run `pip install -e .` again)")
        )
    try:
        reader: Reader = entry.load()
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{path}: the reader for {suffix}, {entry.value}, cannot be imported: {error}") from error
    return reader
