"""QDQ ONNX -> integer graph."""

from pathlib import Path
from typing import Any

import numpy as np

from codegen.onnx.build import OTHER_QUANTIZED, build_network
from codegen.onnx.fusion import fuse
from codegen.onnx.lowering import lower
from codegen.onnx.network import Network
from codegen.onnx.quantizer import quantize
from codegen.onnx.reader import ModelFile, new_session, read_file, read_proto
from codegen.passes import optimize
from codegen.samples import read_inputs
from refsim import Graph
from refsim.errors import ModelError, UnsupportedError, located
from refsim.readers import Calibration
from refsim.samples import Preprocessing


def load(path: str | Path, *, name: str | None = None) -> Graph:
    """Read a model quantised in the QDQ format.

    Args:
        path: the .onnx file; external data beside it is read too.
        name: of the graph; the file's stem by default.

    Returns:
        The integer graph for one sample, passes applied.

    Raises:
        ModelError: the file is missing, corrupt, inconsistent or not quantised.
        UnsupportedError: naming the node and tensor, an operator or form that is not supported.
        QuantizationError, ShapeError: naming the node, a parameter that an operator refuses.
    """
    path = Path(path)
    with located(str(path)):
        file = read_file(path)
        if not _is_quantized(file):
            raise ModelError("no QuantizeLinear found: this model is in float; run `tinyformer quantize` first")
        return _graph(file, name or path.stem)


def read(path: Path, *, calibration: Any, profile: str | None, preprocessing: Preprocessing) -> Graph:
    """Read an .onnx file for `refsim.load` (a `refsim.readers.Reader`): a float model is quantised first.

    Raises:
        ModelError: as `load`; also if calibration samples come with a quantised model, or for a profile.
        DataError: the calibration samples do not fit.
        QuantizationError: naming the node, weights or ranges that no integer operator can hold.
    """
    if profile is not None:
        raise ModelError(f"{path}: ONNX models have no profile {profile!r}: leave it out")
    if calibration is None:
        with located(str(path)):
            file = read_file(path)
            if not _is_quantized(file):
                raise ModelError("this model is in float: give calibration samples, or run `tinyformer quantize` first")
            return _graph(file, path.stem)
    how = calibration if isinstance(calibration, Calibration) else Calibration(calibration)
    samples = how.samples
    if isinstance(samples, (str, Path)):
        samples = read_inputs(Path(samples), path, preprocessing)
    quantized = quantize(
        path,
        samples,
        method=how.method,
        per_channel=how.per_channel,
        equalise=how.equalise,
        bias_correction=how.bias_correction,
        search=how.search,
        progress=how.search > 0,
    )
    with located(str(path)):
        return _graph(read_proto(quantized), path.stem)


def _is_quantized(file: ModelFile) -> bool:
    return any(node.op_type.startswith(("QuantizeLinear", *OTHER_QUANTIZED)) for node in file.proto.graph.node)


def _graph(file: ModelFile, name: str) -> Graph:
    network = build_network(file, name)
    fuse(network)
    graph = optimize(lower(network))
    _check_samples_stay_apart(file, network)
    return graph


def _check_samples_stay_apart(file: ModelFile, network: Network) -> None:
    """The graph is for one sample: refuse a model with a free batch axis whose samples influence each other."""
    if file.batch is not None:
        return
    generator = np.random.default_rng(0)
    batch = {}
    for tensor, name in network.inputs:
        shape = (2, *network.shapes[tensor][1:])
        q = network.quantizations[tensor]
        bytes_ = generator.integers(-128, 128, shape)
        dtype = file.values[name].dtype
        if dtype == np.float32:
            batch[name] = ((bytes_ - q.zero_point) * q.scale).astype(np.float32)
        else:
            batch[name] = (bytes_ + (128 if dtype == np.uint8 else 0)).astype(dtype)
    session = new_session(file.proto)
    try:
        together = session.run(None, batch)
    except Exception:  # shapes that spell out a batch of one: nothing to compare
        return
    alone = [session.run(None, {name: x[n : n + 1] for name, x in batch.items()}) for n in range(2)]
    for index, (_, name) in enumerate(network.outputs):
        apart = np.concatenate([outputs[index] for outputs in alone]).astype(np.float64)
        if together[index].shape != apart.shape or np.abs(together[index] - apart).max() > 0.1 * max(
            np.abs(apart).max(), 1e-6
        ):
            raise UnsupportedError(
                f"output {name!r}: samples of one batch influence each other; only independent ones are supported"
            )
