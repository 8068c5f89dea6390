"""Samples for the library: files, arrays or batches, as real numbers in the model file's layout."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.engine import dequantize_output
from refsim.errors import DataError, located
from refsim.graph import Graph
from refsim.samples import IMAGES, INPUTS, LABELS, Preprocessing, labels, model_inputs, read_archive

Samples = NDArray[Any] | Mapping[str, NDArray[Any]]
"""One array (N, *shape) for a single input, or a mapping by input name."""

Dataset = str | Path | Samples | tuple[Samples, NDArray[Any]] | Iterable[Any]
"""What the library's methods take.

- the path of an .npz archive with `images` (uint8) or `inputs`, or the inputs' own names, and perhaps `labels`;
- samples alone, or a pair (samples, labels);
- an iterable of batches, each of them one of these two: memory then holds one batch at a time.

Samples are float in the model file's layout, uint8 pixels (prepared as `Preprocessing` says), or int8 in the graph's.
"""

ELEMENTS_AT_ONCE = 2**24
"""Bound on the elements of one kind that are in memory together: 128 MiB of float64."""

Progress = bool | Callable[[int, int | None], None]
"""A bar on the terminal (True), silence (False), or a function of the samples done and their number, if known."""


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        inputs: float32 (N, *shape) in the model file's layout, by input name.
        labels: int64 (N,), or None.
    """

    inputs: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Batches:
    """A dataset cut into batches of at most `size` samples; it prepares one at a time.

    Attributes:
        graph: the model that they are for.
        dataset: see `Dataset`.
        size: samples of a batch, at most.
        preprocessing: of uint8 pixels.
        limit: samples in all, at most; None for all there are.
    """

    graph: Graph
    dataset: Dataset
    size: int
    preprocessing: Preprocessing
    limit: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        Raises:
            DataError: the samples or labels do not fit the model, or there are none.
        """
        left = math.inf if self.limit is None else self.limit
        count = 0
        for arrays, where in self._parts():
            with located(where):
                relevant = self._relevant(arrays)
                total = _length(relevant)
            for start in range(0, total, self.size):
                stop = int(min(total, start + self.size, start + left))
                if stop <= start:
                    return
                with located(where):
                    batch = self._batch({name: x[start:stop] for name, x in relevant.items()})
                yield batch
                count += stop - start
                left -= stop - start
        if not count:
            raise DataError("the dataset holds no samples")

    @property
    def total(self) -> int | None:
        """The number of samples, where it is known beforehand."""
        if isinstance(self.dataset, (str, Path, np.ndarray, Mapping)) or _is_pair(self.dataset):
            arrays, where = next(iter(self._parts()))
            with located(where):
                known = _length(self._relevant(arrays))
            return known if self.limit is None else min(known, self.limit)
        return self.limit

    @cached_property
    def _archive(self) -> dict[str, NDArray[Any]]:
        path = Path(str(self.dataset))
        with located(str(path)):
            return read_archive(path)

    def _parts(self) -> Iterator[tuple[dict[str, NDArray[Any]], str]]:
        """Arrays by name, labels among them, and where they come from."""
        if isinstance(self.dataset, (str, Path)):
            yield self._archive, str(self.dataset)
        elif isinstance(self.dataset, (np.ndarray, Mapping)) or _is_pair(self.dataset):
            yield _named(self.dataset), "samples"
        elif isinstance(self.dataset, Iterable):
            for index, part in enumerate(self.dataset):
                yield _named(part), f"batch {index}"
        else:
            raise DataError(
                f"a dataset is a path, arrays, a pair (samples, labels) or an iterable of batches, "
                f"found {type(self.dataset).__name__}"
            )

    def _relevant(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The arrays that could be inputs or labels; all of them where none could, for the error message."""
        wanted = {INPUTS, IMAGES, LABELS, *(port.name for port in self.graph.inputs)}
        return {name: x for name, x in arrays.items() if name in wanted} or arrays

    def _batch(self, arrays: dict[str, NDArray[Any]]) -> Batch:
        graph = self.graph
        ports = {port.name: port for port in graph.inputs}
        shapes = {name: port.file_shape(graph.tensors[port.tensor].shape) for name, port in ports.items()}
        for name, x in arrays.items():
            port = next(iter(ports.values())) if len(ports) == 1 else ports.get(name)
            if x.dtype == np.int8 and name != LABELS and port is not None:
                if x.shape[1:] != graph.tensors[port.tensor].shape:
                    raise DataError(
                        f"int8 samples {name!r} must have the graph's shape (N, "
                        f"{', '.join(map(str, graph.tensors[port.tensor].shape))}), found {x.shape}"
                    )
                arrays = {**arrays, name: dequantize_output(graph, port, x)}
        inputs = model_inputs(arrays, shapes, self.preprocessing)
        count = len(next(iter(inputs.values())))
        return Batch(inputs, labels(arrays, count) if LABELS in arrays else None)


def _is_pair(part: Any) -> bool:
    """Whether it is (samples, labels): two things, the second a row of integers."""
    if not isinstance(part, (tuple, list)) or len(part) != 2 or isinstance(part[1], (Mapping, tuple)):
        return False
    second = np.asarray(part[1])
    return second.ndim == 1 and np.issubdtype(second.dtype, np.integer)


def _named(part: Any) -> dict[str, NDArray[Any]]:
    if _is_pair(part):
        return {**_named(part[0]), LABELS: np.asarray(part[1])}
    if isinstance(part, Mapping):
        return {name: np.asarray(x) for name, x in part.items()}
    return {INPUTS: np.asarray(part)}


def _length(arrays: Mapping[str, NDArray[Any]]) -> int:
    counts = {name: len(x) if x.ndim else 0 for name, x in arrays.items()}
    if not counts or len(set(counts.values())) != 1:
        raise DataError(f"every array needs the same number of samples, found {counts or 'no arrays'}")
    return next(iter(counts.values()))


def samples_at_once(elements: int, most: int) -> int:
    """How many samples of so many elements each to hold in memory, at most `most`."""
    return max(1, min(most, ELEMENTS_AT_ONCE // elements))


@contextmanager
def reporting(progress: Progress, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of steps done since the last call."""
    if callable(progress):
        done = 0

        def count(steps: int) -> None:
            nonlocal done
            done += steps
            progress(done, total)

        yield count
        return
    from rich.console import Console  # noqa: PLC0415 - a library that is asked for silence needs no terminal
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above
    from rich.progress import Progress as Bar  # noqa: PLC0415 - as above

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)
