"""A quantised model as a user holds it: predict, evaluate, trace, compare, find what costs accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from refsim import engine
from refsim.dataset import Batches, Dataset, Progress, Samples, reporting, samples_at_once
from refsim.errors import DataError, ModelError
from refsim.evaluation import Classifier, Evaluation, Evaluations, evaluate
from refsim.graph import Graph
from refsim.model_zoo import model_file
from refsim.numerics import Int8Array
from refsim.readers import Calibration, find_reader
from refsim.reference import Reference, UnroundedGraph
from refsim.samples import Preprocessing

if TYPE_CHECKING:
    from refsim.agreement import Agreement
    from refsim.comparison import Comparison
    from refsim.sensitivity import Sensitivity

BATCH = 1024
"""Samples that are prepared at a time where only the outputs are kept, at most."""


def load(
    path: str | Path,
    *,
    calibration: Samples | str | Path | Calibration | None = None,
    profile: str | None = None,
    preprocessing: Preprocessing | None = None,
    threads: int | None = None,
) -> "Model":
    """Read a quantised model, or quantise a float one.

    Args:
        path: a file of a format that an installed package reads (`refsim.readers`): .onnx in the QDQ format, or float
            together with `calibration`; or the name of a model of the zoo (`refsim.model_zoo`).
        calibration: samples to quantise a float model with: float (N, *shape) in the file's layout, one array or a
            mapping by input name, or the path of an .npz archive; a `Calibration` says how besides.
        profile: whose kernels the operators follow, where the format leaves the choice; None for the reader's own.
        preprocessing: as for `Model`; the reader prepares the calibration samples of a file in the same way.
        threads: as for `Model`.

    Raises:
        ModelError: nobody reads such files, or the file is missing, corrupt, unsupported or in float.
        DataError: the calibration samples do not fit.
        QuantizationError: no integer operator can hold a parameter.
    """
    file, prepare = model_file(path), preprocessing or Preprocessing()
    graph = find_reader(file)(file, calibration=calibration, profile=profile, preprocessing=prepare)
    if file != Path(path):
        graph = replace(graph, name=Path(path).name)
    return Model(graph, file, preprocessing=prepare, threads=threads)


class Model:
    """An integer graph and what can be asked of it.

    Samples are one array for a model with a single input, else a mapping by the file's input names; see
    `refsim.dataset.Dataset` for the forms of a dataset. Every method that takes long shows a progress bar on stderr:
    `progress=False` turns it off, and a function is called with the steps done and their number.

    Args:
        graph: the model.
        path: the file that it comes from; None if there is none.
        preprocessing: how uint8 pixels become real numbers.
        threads: at most so many; by default as many as there are processors.

    Attributes:
        graph, path, preprocessing, threads: as given.
    """

    def __init__(
        self,
        graph: Graph,
        path: Path | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        threads: int | None = None,
    ) -> None:
        self.graph, self.path, self.threads = graph, path, threads
        self.preprocessing = preprocessing or Preprocessing()

    def __repr__(self) -> str:
        ports = (
            f"{port.name} {self.graph.tensors[port.tensor].shape}" for port in (*self.graph.inputs, *self.graph.outputs)
        )
        return f"<refsim.Model {self.graph.name!r}: {', '.join(ports)}; {len(self.graph.nodes)} operators>"

    @overload
    def predict(self, x: NDArray[Any]) -> NDArray[Any]: ...

    @overload
    def predict(self, x: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...

    def predict(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """Run a batch: int8 in, int8 out; float in, float out.

        Args:
            x: (N, *shape); int8 in the graph's layout, channels last, or float in the file's. A mapping, by the file's
                input names, gives a mapping by its output names; so does an array where the model has several outputs.

        Returns:
            int8 (N, *shape) in the graph's layout, or float32 in the file's.

        Raises:
            ShapeError: a shape is not the model's.
            DataError: the dtype is another, or differs between inputs.
        """
        graph = self.graph
        arrays = x if isinstance(x, Mapping) else {"": np.asarray(x)}
        kinds = {np.asarray(array).dtype for array in arrays.values()}
        if kinds == {np.dtype(np.int8)}:
            tensors = {port.name: port.tensor for port in graph.inputs}
            quantized: Any = {tensors.get(name, name): a for name, a in x.items()} if isinstance(x, Mapping) else x
            found = engine.run(graph, quantized, threads=self.threads)
            result: dict[str, NDArray[Any]] = {port.name: found[port.tensor] for port in graph.outputs}
        elif all(np.issubdtype(kind, np.floating) for kind in kinds):
            result = dict(engine.predict(graph, x, threads=self.threads))
        else:
            raise DataError(
                f"predict takes int8 arrays or floating point ones, found {', '.join(sorted(map(str, kinds)))}"
            )
        return result if isinstance(x, Mapping) or len(result) != 1 else next(iter(result.values()))

    def trace(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, Int8Array]:
        """Every int8 tensor of the graph on a batch, (N, *shape) in the graph's layout, by tensor name.

        Args:
            x: as for `predict`.

        Raises:
            ShapeError, DataError: as for `predict`.
        """
        (batch,) = self._batches(x, _length(x))
        ports = self.graph.inputs
        inputs = {port.tensor: engine.quantize_input(self.graph, port, batch.inputs[port.name]) for port in ports}
        return engine.run(self.graph, inputs, trace=True, threads=self.threads)

    def evaluate(self, dataset: Dataset, *, top: Sequence[int] = (1, 5), progress: Progress = True) -> Evaluation:
        """Classify labelled samples: accuracy, top-k, confusion matrix.

        Args:
            dataset: see `refsim.dataset.Dataset`; an iterable of batches keeps memory small whatever its length.
            top: which k of top-k to count.
            progress: see the class.

        Raises:
            DataError: samples or labels do not fit, or the output is no vector of scores.
        """
        return self.evaluate_beside({}, dataset, top=top, progress=progress).by_name["int8"]

    def evaluate_beside(
        self,
        others: Mapping[str, Classifier],
        dataset: Dataset,
        *,
        top: Sequence[int] = (1, 5),
        progress: Progress = True,
    ) -> Evaluations:
        """Classify the same samples with this model, called "int8", and with others.

        Args:
            others: functions from real inputs by name to scores (N, classes), by name; the first of them is what the
                rest are compared with.
            dataset: as for `evaluate`.
            top: as for `evaluate`.
            progress: see the class.

        Raises:
            DataError: as for `evaluate`.
        """
        inputs = sum(self.graph.tensors[port.tensor].size for port in self.graph.inputs)
        batches = self._batches(dataset, samples_at_once(inputs, BATCH))
        with reporting(progress, "Classifying", batches.total) as count:
            return evaluate({**others, "int8": self.scores}, batches, top=top, count=count)

    def scores(self, inputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The first output, float32, for real inputs by name."""
        return engine.predict(self.graph, inputs, threads=self.threads)[self.graph.outputs[0].name]

    def compare(
        self,
        float_model: str | Path | None,
        dataset: Dataset,
        *,
        limit: int | None = None,
        progress: Progress = True,
    ) -> "Comparison":
        """How far each layer is from the float model, and how it uses its range.

        Args:
            float_model: the float .onnx file that the model was made from; None compares with the graph itself
                without roundings, which has the int8 weights (`refsim.real`).
            dataset: samples, labelled or not; see `refsim.dataset.Dataset`.
            limit: samples, at most.
            progress: see the class.

        Raises:
            ModelError: the float model is unreadable or another one.
            DataError: the samples do not fit.
        """
        from refsim import comparison  # noqa: PLC0415 - not every user of the library compares

        reference = self._reference(float_model)
        batches = self._batches(dataset, comparison.batch_size(self.graph), limit)
        with reporting(progress, f"Comparing with {reference.name}", batches.total) as count:
            return comparison.compare(self.graph, reference, batches, threads=self.threads, count=count)

    def sensitivity(
        self,
        dataset: Dataset,
        *,
        float_model: str | Path | None = None,
        limit: int | None = None,
        progress: Progress = True,
    ) -> "Sensitivity":
        """What each layer's quantisation costs by itself, the costliest first.

        Args:
            dataset: samples, labelled or not; the first `limit` of them are taken.
            float_model: as for `compare`.
            limit: 128 by default.
            progress: see the class.

        Raises:
            ModelError, DataError: as for `compare`.
        """
        from refsim import comparison, sensitivity  # noqa: PLC0415 - as above

        reference = self._reference(float_model)
        size = comparison.batch_size(self.graph, sensitivity.MOST)
        batches = self._batches(dataset, size, limit or sensitivity.SAMPLES)
        with reporting(progress, "Quantising one layer at a time", batches.total) as count:
            return sensitivity.sensitivity(self.graph, reference, batches, threads=self.threads, count=count)

    def agreement(self, dataset: Dataset, *, limit: int | None = None, progress: Progress = True) -> "Agreement":
        """How many bytes are equal to those of ONNX Runtime on the same QDQ file, layer by layer.

        Args:
            dataset: as for `compare`.
            limit: samples, at most.
            progress: see the class.

        Raises:
            ModelError: the model comes from no QDQ ONNX file, or ONNX Runtime refuses it.
            DataError: the samples do not fit.
        """
        from refsim import agreement  # noqa: PLC0415 - as above
        from refsim.comparison import batch_size  # noqa: PLC0415 - as above

        if self.path is None:
            raise ModelError(f"{self.graph.name}: comes from no file that ONNX Runtime could run")
        batches = self._batches(dataset, batch_size(self.graph), limit)
        with reporting(progress, "Comparing with ONNX Runtime", batches.total) as count:
            return agreement.agreement(self.graph, self.path, batches, threads=self.threads, count=count)

    def _reference(self, float_model: str | Path | None) -> Reference:
        if float_model is None:
            return UnroundedGraph(self.graph)
        from refsim.float_model import FloatModel  # noqa: PLC0415 - it brings onnx and onnxruntime

        return FloatModel(float_model, self.graph)

    def _batches(self, dataset: Dataset, size: int, limit: int | None = None) -> Batches:
        return Batches(self.graph, dataset, size, self.preprocessing, limit)


def _length(x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> int:
    return max(1, *(len(a) for a in x.values())) if isinstance(x, Mapping) else max(1, len(x))
