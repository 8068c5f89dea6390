"""Chosen tensors of an ONNX model on samples, through ONNX Runtime and without its optimisations."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from codegen.onnx.reader import new_session
from refsim.errors import ModelError

Samples = Mapping[str, NDArray[np.float32]]
"""float32 (N, *shape) by input name, in the model file's layout."""


def split(samples: Samples, batch: int | None) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The samples, as many at a time as the model takes; one at a time where that is free.

    A fixed batch gets its last one filled up with repeated samples.
    """
    count, step = len(next(iter(samples.values()))), batch or 1
    for start in range(0, count, step):
        chunk = np.arange(start, start + step) % count
        yield {name: x[chunk] for name, x in samples.items()}


class Runner:
    """A model whose tensors can be seen.

    Args:
        proto: the model, not changed.
        tensors: names of those wanted: of inputs or of what nodes write.
        batch: the model's batch size; None if it is free.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """

    def __init__(self, proto: onnx.ModelProto, tensors: Sequence[str], batch: int | None) -> None:
        inputs = {value.name for value in proto.graph.input}
        self.batch, self.inputs = batch, [name for name in tensors if name in inputs]
        self.computed = [name for name in tensors if name not in inputs]
        seen = onnx.ModelProto()
        seen.CopyFrom(proto)
        declared = {value.name for value in seen.graph.output}
        seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.computed if name not in declared)
        self.session = new_session(seen, optimized=False)

    def run(self, samples: Samples, parameters: Samples | None = None) -> Iterator[dict[str, NDArray[np.float32]]]:
        """The tensors by name, (batch, *shape), batch after batch.

        Args:
            samples: see `Samples`.
            parameters: values of inputs that do not hang on the sample.

        Raises:
            ModelError: ONNX Runtime cannot run the model, or a tensor is not finite.
        """
        for feed in split(samples, self.batch):
            try:
                found = self.session.run(self.computed, {**feed, **(parameters or {})}) if self.computed else []
            except Exception as error:  # ONNX Runtime's exceptions share no base of their own
                raise ModelError(f"calibration failed: {' '.join(str(error).split())[:400]}") from error
            values = {name: feed[name] for name in self.inputs} | dict(zip(self.computed, found, strict=True))
            for name, value in values.items():
                if not np.isfinite(value).all():
                    raise ModelError(f"tensor {name!r} is not finite on the calibration samples")
            yield values
