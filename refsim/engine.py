"""The engine: runs an integer graph on a batch, with the operators' golden definitions."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from refsim.compiled import config
from refsim.errors import ShapeError
from refsim.graph import Graph, Port
from refsim.numerics import Int8Array

Array = TypeVar("Array", bound=NDArray[Any])
Result = TypeVar("Result", bound=NDArray[Any])

CHUNK = 128
"""Most samples that run through the graph together: memory is bounded, and threads seldom wait for Python's lock."""


def run(
    graph: Graph,
    inputs: Int8Array | Mapping[str, Int8Array],
    *,
    trace: bool = False,
    threads: int | None = None,
) -> dict[str, Int8Array]:
    """Run a batch through the graph, in parallel over its samples.

    Args:
        graph: the model.
        inputs: int8 (N, *shape) in the graph's layout; an array for a single input, else a mapping by
            tensor name.
        trace: return every tensor and not only the outputs.
        threads: at most so many; by default Numba's number (`NUMBA_NUM_THREADS`, else the processors there are).

    Returns:
        int8 arrays (N, *shape) by tensor name: the graph's outputs, or with `trace` all inputs and all nodes' outputs.

    Raises:
        ShapeError: an input is missing, or its dtype or shape is wrong.
    """
    batch = _check_inputs(graph, inputs)
    return _in_chunks(batch, threads, lambda chunk: _run(graph, chunk, trace))


def predict(
    graph: Graph, inputs: NDArray[Any] | Mapping[str, NDArray[Any]], *, threads: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """Run real numbers through the graph: quantise the inputs, run, dequantise the outputs.

    Args:
        graph: the model.
        inputs: float (N, *shape) in the model file's layout; an array for a single input, else a mapping by the file's
            input names.
        threads: as for `run`.

    Returns:
        float32 arrays (N, *shape) in the model file's layout, by the file's output names.

    Raises:
        ShapeError: an input is missing or its shape is wrong.
    """
    if not isinstance(inputs, Mapping):
        inputs = {_only_input(graph).name: inputs}
    _check_names([port.name for port in graph.inputs], list(inputs))
    samples = {port.name: np.asarray(inputs[port.name]) for port in graph.inputs}
    for port in graph.inputs:
        _check_real(graph, port, samples[port.name])

    def predict_chunk(chunk: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        quantized = {port.tensor: quantize_input(graph, port, chunk[port.name]) for port in graph.inputs}
        result = _run(graph, _check_inputs(graph, quantized), trace=False)
        return {port.name: dequantize_output(graph, port, result[port.tensor]) for port in graph.outputs}

    return _in_chunks(samples, threads, predict_chunk)


def quantize_input(graph: Graph, port: Port, real: NDArray[Any]) -> Int8Array:
    """Real numbers (N, *shape) in the model file's layout to the graph's int8 input tensor.

    Raises:
        ShapeError: the shape is not the model's.
    """
    tensor = graph.tensors[port.tensor]
    _check_real(graph, port, real)
    q = tensor.quantize(real)
    if port.permutation:
        q = q.transpose(0, *(axis + 1 for axis in port.permutation))
    return np.ascontiguousarray(q)


def _check_real(graph: Graph, port: Port, real: NDArray[Any]) -> None:
    expected = port.file_shape(graph.tensors[port.tensor].shape)
    if real.ndim != len(expected) + 1 or real.shape[1:] != expected:
        raise ShapeError(
            f"input {port.name!r} takes (N, {', '.join(map(str, expected))}), found {tuple(real.shape)}: "
            "give a batch of samples in the model file's layout"
        )


def dequantize_output(graph: Graph, port: Port, q: Int8Array) -> NDArray[np.float32]:
    """An int8 output tensor (N, *shape) to real numbers in the model file's layout."""
    real = graph.tensors[port.tensor].dequantize(q)
    if port.permutation:
        real = real.transpose(0, *(port.permutation.index(axis) + 1 for axis in range(len(port.permutation))))
    return np.ascontiguousarray(real)


def _in_chunks(
    batch: Mapping[str, Array], threads: int | None, function: Callable[[Mapping[str, Array]], dict[str, Result]]
) -> dict[str, Result]:
    """Apply a function to the batch, a few samples at a time, on several threads, and join the results."""
    size = max((len(x) for x in batch.values() if x.ndim), default=0)
    workers = threads or config.NUMBA_NUM_THREADS
    step = max(1, min(CHUNK, -(-size // workers)))
    chunks = [{name: x[start : start + step] for name, x in batch.items()} for start in range(0, size, step)]
    if len(chunks) <= 1:
        return function(batch)
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(function, chunks))
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined


def _run(graph: Graph, batch: Mapping[str, Int8Array], trace: bool) -> dict[str, Int8Array]:
    size = next(iter(batch.values())).shape[0]
    live: dict[str, Int8Array] = dict(batch)
    for name, data in graph.constants.items():
        live[name] = np.ascontiguousarray(np.broadcast_to(data, (size, *data.shape)))
    wanted = {port.tensor for port in graph.outputs}
    last_reader = {tensor: index for index, node in enumerate(graph.nodes) for tensor in node.inputs}
    for index, node in enumerate(graph.nodes):
        live[node.output] = node.op.run(*(live[tensor] for tensor in node.inputs))
        if not trace:
            for tensor in set(node.inputs) - wanted:
                if last_reader[tensor] == index:
                    del live[tensor]
    if trace:
        return {name: x for name, x in live.items() if name not in graph.constants or name in wanted}
    return {name: live[name] for name in wanted}


def _check_inputs(graph: Graph, inputs: Int8Array | Mapping[str, Int8Array]) -> dict[str, Int8Array]:
    if not isinstance(inputs, Mapping):
        inputs = {_only_input(graph).tensor: inputs}
    names = [port.tensor for port in graph.inputs]
    _check_names(names, list(inputs))
    batch = {name: np.ascontiguousarray(inputs[name]) for name in names}
    sizes = {x.shape[0] if x.ndim else 0 for x in batch.values()}
    for name, x in batch.items():
        expected = graph.tensors[name].shape
        if x.dtype != np.int8 or x.shape[1:] != expected or len(sizes) != 1 or 0 in sizes:
            raise ShapeError(
                f"input {name!r} takes int8 (N, {', '.join(map(str, expected))}) with one N >= 1 for all inputs, "
                f"found {x.dtype} {x.shape}"
            )
    return batch


def _only_input(graph: Graph) -> Port:
    if len(graph.inputs) != 1:
        raise ShapeError(f"the model has {len(graph.inputs)} inputs: give a mapping by name")
    return graph.inputs[0]


def _check_names(expected: list[str], found: list[str]) -> None:
    if sorted(expected) != sorted(found):
        raise ShapeError(f"the model takes inputs {sorted(expected)}, found {sorted(found)}")
