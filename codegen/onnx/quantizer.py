"""Float ONNX + calibration samples -> QDQ ONNX: ranges, then, where asked for, what makes the quantisation better.

Each step is a function of its own, from a float model to a float model or from ranges to ranges, and they follow each
other: fold batch normalisations, equalise, choose ranges, correct biases, search ranges and weights, write.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from codegen.onnx.batch_norm import fold_batch_norms
from codegen.onnx.bias_correction import correct_biases
from codegen.onnx.calibration import Method, calibrate, check_samples
from codegen.onnx.equalisation import equalise as equalise_layers
from codegen.onnx.layers import fused
from codegen.onnx.lowering import lower
from codegen.onnx.qdq_writer import activations, write_qdq
from codegen.onnx.reader import ModelFile, modern, read_file, read_proto
from codegen.onnx.runner import Samples
from codegen.onnx.search import Candidate, Found, search_candidates, with_weights
from refsim.dataset import Progress, reporting
from refsim.errors import DataError, ModelError, located


def quantize(
    path: str | Path,
    calibration: NDArray[Any] | Mapping[str, NDArray[Any]],
    *,
    method: Method = "minmax",
    per_channel: bool = True,
    equalise: bool = False,
    bias_correction: bool = False,
    search: int = 0,
    progress: Progress = False,
    report: Callable[[str], None] = lambda line: None,
) -> onnx.ModelProto:
    """Quantise a float model.

    Activations become int8, asymmetric, one scale a tensor; weights int8 in [-127, 127], symmetric; biases int32.
    Quantisation stands exactly where one integer operator ends and the next begins: LayerNormalization, GELU and the
    like stay whole. Weights that are zero stay zero whatever is asked for.

    Args:
        path: the float .onnx file.
        calibration: float samples (N, *shape) in the model file's layout; an array, or several by input name.
        method: how ranges are chosen from the samples: "minmax", "percentile", "entropy" or "mse".
        per_channel: one weight scale for each output channel, or one for each weight.
        equalise: balance the weights' channels across layers first (`codegen.onnx.equalisation`).
        bias_correction: take the mean error of every layer out of its bias (`codegen.onnx.bias_correction`).
        search: evaluations to spend on ranges and weights of the layers that cost most (`codegen.onnx.search`).
        progress: as for `refsim.Model`'s methods.
        report: called with lines that say what was done.

    Returns:
        The same model with Q/DQ pairs, which `load` and ONNX Runtime take. The same input gives the same bytes.

    Raises:
        ModelError, UnsupportedError: as `load`; also if the model is quantised already.
        DataError: the samples do not fit the model, or an unknown method or negative budget.
        QuantizationError: naming the node, weights or ranges that no integer operator can hold.
    """
    if search < 0:
        raise DataError(f"a search needs a budget of at least 0 evaluations, found {search}")
    with located(str(path)):
        file = read_file(Path(path))
        if any(node.op_type == "QuantizeLinear" for node in file.proto.graph.node):
            raise ModelError("this model is quantised already: give the float one")
        file = read_proto(fold_batch_norms(modern(file.proto)))
        samples = check_samples(file, calibration)
        if equalise:
            equalised = equalise_layers(file)
            file = read_proto(equalised.proto)
            report(f"Equalised {len(equalised.pairs)} pairs of layers.")
            if equalised.bounded:
                report(f"{len(equalised.bounded)} pairs have an activation with other bounds than ReLU's: left alone.")
        network = fused(file)
        tensors = [tensor for tensor in activations(network) if tensor in file.values]
        with reporting(progress, f"Calibrating ({method})", None):
            chosen = Candidate(calibrate(file, tensors, samples, method), {})
        corrected = _corrected(file, chosen, samples, per_channel, progress) if bias_correction else file
        if search:
            found = _search(file, corrected, chosen, samples, method, per_channel, search, progress)
            chosen = found.candidate
            report(f"{found.evaluations} evaluations: SQNR {found.before:.1f} dB before, {found.after:.1f} dB after.")
        network = fused(corrected)
        quantized = write_qdq(with_weights(corrected, chosen.weights), network, chosen.ranges, per_channel=per_channel)
        lower(fused(read_proto(quantized)))  # refuses here and now what `load` would refuse
        return quantized


def _corrected(
    file: ModelFile, chosen: Candidate, samples: Samples, per_channel: bool, progress: Progress
) -> ModelFile:
    quantized = write_qdq(file, fused(file), chosen.ranges, per_channel=per_channel)
    with reporting(progress, "Correcting biases", None) as count:
        return read_proto(correct_biases(file, quantized, samples, count=count))


def _search(
    file: ModelFile,
    corrected: ModelFile,
    start: Candidate,
    samples: Samples,
    method: str,
    per_channel: bool,
    budget: int,
    progress: Progress,
) -> Found:
    others = {
        name: calibrate(file, start.ranges, samples, name) for name in ("minmax", "percentile", "mse") if name != method
    }
    with reporting(progress, "Searching ranges and weights", budget) as count:
        return search_candidates(file, corrected, start, others, samples, budget, per_channel=per_channel, count=count)
