"""Ranges of a float model's tensors on calibration samples: ONNX Runtime's calibrators, and least squared error."""

import contextlib
import io
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

from codegen.onnx.mse_range import Range, histograms, mse_range
from codegen.onnx.reader import ModelFile
from codegen.onnx.runner import Runner, Samples, split
from refsim.errors import DataError, ModelError

Method = Literal["minmax", "percentile", "entropy", "mse"]

_CALIBRATORS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"num_bins": 2048, "percentile": 99.999}),
    # With as many bins as levels, ONNX Runtime's default, the search would always end at the full range.
    "entropy": (CalibrationMethod.Entropy, {"num_bins": 512, "num_quantized_bins": 255}),
}
"""ONNX Runtime's calibrators and their options, by our names for the methods."""

METHODS = (*_CALIBRATORS, "mse")


class _Samples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands the samples out, as many at a time as the model takes; a repeated sample changes no range."""

    def __init__(self, samples: Samples, batch: int | None) -> None:
        self.batches = split(samples, batch)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.batches, None)


def calibrate(file: ModelFile, tensors: Iterable[str], samples: Samples, method: str) -> dict[str, Range]:
    """Smallest and largest value of each tensor, or the range that the method finds best.

    Args:
        file: the float model.
        tensors: names of the tensors wanted.
        samples: as `check_samples` gives them.
        method: "minmax", "percentile" (99.999 %), "entropy" or "mse" (`codegen.onnx.mse_range`).

    Raises:
        DataError: an unknown method.
        ModelError: ONNX Runtime cannot run the model, or a tensor is not finite.
    """
    if method not in METHODS:
        raise DataError(f"calibration method {method!r} is not known; known are {', '.join(METHODS)}")
    wanted = list(tensors)
    if method != "mse":
        return _onnxruntime_ranges(file, wanted, samples, method)
    limits = _onnxruntime_ranges(file, wanted, samples, "minmax")
    found = histograms(Runner(file.proto, wanted, file.batch), samples, limits)
    return {name: mse_range(histogram) for name, histogram in found.items()}


def _onnxruntime_ranges(file: ModelFile, wanted: list[str], samples: Samples, method: str) -> dict[str, Range]:
    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    del proto.graph.value_info[:]
    ports = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    # Operators that the calibrators' shape inference does not know leave their outputs without a type.
    for name in wanted:
        if name not in ports:
            proto.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "float.onnx"
        path.write_bytes(proto.SerializeToString())
        try:
            kind, options = _CALIBRATORS[method]
            augmented = str(Path(folder) / "augmented.onnx")
            calibrator = create_calibrator(
                path, augmented_model_path=augmented, calibrate_method=kind, extra_options=options
            )
            calibrator.collect_data(_Samples(samples, file.batch))
            ranges = calibrator.compute_data()
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise ModelError(f"calibration failed: {' '.join(str(error).split())[:400]}") from error
    result = {}
    for name in wanted:
        low, high = (float(np.asarray(v).reshape(-1)[0]) for v in ranges[name].range_value)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ModelError(f"tensor {name!r} is not finite on the calibration samples")
        result[name] = (low, high)
    return result


def check_samples(
    file: ModelFile, samples: NDArray[Any] | Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float32]]:
    """Calibration samples by input name.

    Args:
        file: the float model.
        samples: float (N, *shape) in the model file's layout, for a single input, else a mapping by input name.

    Raises:
        DataError: no samples, wrong shapes or names, or values that are not finite.
    """
    names = [value.name for value in file.proto.graph.input]
    if not isinstance(samples, Mapping):
        if len(names) != 1:
            raise DataError(f"the model has inputs {names}: give calibration samples for each, by name")
        samples = {names[0]: samples}
    if sorted(samples) != sorted(names):
        raise DataError(f"the model takes inputs {sorted(names)}, the calibration samples are for {sorted(samples)}")
    counts = set()
    for name, x in samples.items():
        expected = file.shape(name)[1:]
        if x.ndim != len(expected) + 1 or x.shape[1:] != expected or not np.issubdtype(x.dtype, np.floating):
            raise DataError(
                f"calibration samples for {name!r} must be float (N, {', '.join(map(str, expected))}), "
                f"found {x.dtype} {x.shape}"
            )
        if not np.isfinite(x).all():
            raise DataError(f"calibration samples for {name!r} hold values that are not finite")
        counts.add(len(x))
    if len(counts) != 1 or 0 in counts:
        raise DataError(
            f"every input needs the same number of calibration samples, at least one; found {sorted(counts)}"
        )
    return {name: np.ascontiguousarray(x, np.float32) for name, x in samples.items()}
