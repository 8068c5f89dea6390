"""A .tflite file's graph against LiteRT's reference kernels, byte for byte and tensor by tensor."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import refsim
from codegen.tflite import load, read_graph
from refsim import Graph, TensorType
from refsim.errors import ModelError, ToolchainError, located
from refsim.numerics import Int8Array

BATCH = 64
"""Samples of a turn where every tensor is kept."""

OUTPUTS_BATCH = 1024
"""Samples of a turn where outputs alone are."""

THREADS = 2
"""Of either engine."""


@dataclass(frozen=True)
class Agreement:
    """What one set of samples shows.

    Attributes:
        samples: how many ran.
        tensors: tensors of each that were compared: inputs, all that operators write, and the outputs once more as
            they are behind the passes.
        bytes: compared in all.
        differing: bytes that differ, by the file's name of the tensor; only those with any.
        same_class: samples whose first output has its largest element at the same place.
        speedup: how many times as many samples the golden model computes in a second, outputs alone, on as many
            threads.
    """

    samples: int
    tensors: int
    bytes: int
    differing: Mapping[str, int]
    same_class: int
    speedup: float


class ReferenceKernels:
    """LiteRT's interpreter with its reference kernels (BUILTIN_REF), every tensor kept.

    Raises:
        ToolchainError: ai-edge-litert is not installed.
        ModelError: it refuses the file.
    """

    def __init__(self, path: Path) -> None:
        if find_spec("ai_edge_litert") is None:
            raise ToolchainError('LiteRT is not installed; install it with: pip install "tinyformer[litert]"')
        from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - only where it is used

        try:
            self._interpreter = Interpreter(
                str(path),
                experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
                experimental_preserve_all_tensors=True,
                num_threads=THREADS,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"LiteRT refuses the file: {' '.join(str(error).split())}") from error
        self.inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        self.outputs = {detail["name"]: detail for detail in self._interpreter.get_output_details()}
        self.tensors = {detail["name"]: detail for detail in self._interpreter.get_tensor_details()}

    def run(self, sample: Mapping[str, NDArray[Any]]) -> None:
        """Compute one sample: arrays of the file's types without the batch axis, by input name."""
        for name, x in sample.items():
            self._interpreter.set_tensor(self.inputs[name]["index"], x[None])
        self._interpreter.invoke()

    def tensor(self, name: str) -> NDArray[Any]:
        """A tensor as the last sample left it, batch axis included."""
        found: NDArray[Any] = self._interpreter.get_tensor(self.tensors[name]["index"])
        return found


def compare(
    path: Path,
    samples: Mapping[str, Int8Array],
    *,
    every_tensor: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> Agreement:
    """Run samples through LiteRT and the golden model.

    Args:
        path: .tflite file; float32 and uint8 inputs and outputs take and give what the int8 ones beside them stand for.
        samples: int8 (N, *shape), by input name, in the file's layout.
        every_tensor: compare all tensors; else only the graph's outputs, behind the passes.
        progress: called after each sample.

    Raises:
        ToolchainError: ai-edge-litert is not installed.
        ModelError: either refuses the file.
    """
    with located(str(path)):
        kernels = ReferenceKernels(path)
    graph, whole = load(path), read_graph(path)
    kinds = {port.name: whole.tensors[port.tensor] for port in (*whole.inputs, *whole.outputs)}
    differing: dict[str, int] = {}
    tensors = compared = same_class = 0
    count = len(next(iter(samples.values())))
    batch = BATCH if every_tensor else OUTPUTS_BATCH
    run_ports(graph, {name: x[:1] for name, x in samples.items()})  # the first run compiles
    golden_seconds = reference_seconds = 0.0
    for start in range(0, count, batch):
        part = {name: x[start : start + batch] for name, x in samples.items()}
        inputs = {port.tensor: part[port.name] for port in whole.inputs}
        ours = refsim.run(whole, inputs, trace=True) if every_tensor else {}
        began = time.perf_counter()
        outputs = run_ports(graph, part)
        golden_seconds += time.perf_counter() - began
        first = graph.outputs[0].name
        tensors = len(ours) + len(outputs)
        for index, sample in enumerate(_each(part)):
            given = {name: _outside(x, kernels.inputs[name]["dtype"], kinds[name]) for name, x in sample.items()}
            began = time.perf_counter()
            kernels.run(given)
            reference_seconds += time.perf_counter() - began
            for name, x in (*_known(ours, kernels), *outputs.items()):
                theirs = _inside(kernels.tensor(name), kinds.get(name)).reshape(x.shape[1:])
                compared += theirs.size
                wrong = int((theirs != x[index]).sum())
                if wrong:
                    differing[name] = differing.get(name, 0) + wrong
            same_class += int(kernels.tensor(first).argmax() == outputs[first][index].argmax())
            progress()
    return Agreement(count, tensors, compared, differing, same_class, reference_seconds / golden_seconds)


def _outside(x: Int8Array, dtype: Any, kind: TensorType) -> NDArray[Any]:
    """int8 numbers as the file's input takes them: themselves, 128 higher, or the real numbers that they stand for."""
    if dtype is np.int8:
        return x
    return (x.astype(np.int16) + 128).astype(np.uint8) if dtype is np.uint8 else kind.dequantize(x)


def _inside(y: NDArray[Any], kind: TensorType | None) -> NDArray[Any]:
    """The way back from `_outside`; real numbers that no int8 number stands for become an int16 beyond int8."""
    if y.dtype == np.int8 or kind is None:
        return y
    if y.dtype == np.uint8:
        return y.astype(np.int16) - 128
    q = kind.quantize(y)
    return np.where(kind.dequantize(q) == y, q.astype(np.int16), np.int16(256))


def random_samples(graph: Graph, count: int, seed: int) -> dict[str, Int8Array]:
    """Random bytes for every input, int8 (count, *shape) by the file's name and in its layout."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.integers(-128, 128, (count, *shape)).astype(np.int8)
        for name, shape in graph.input_shapes.items()
    }


def run_ports(graph: Graph, samples: Mapping[str, Int8Array]) -> dict[str, Int8Array]:
    """The graph's outputs for samples, both as the file names and lays them out."""
    inputs = {}
    for port in graph.inputs:
        x = samples[port.name]
        order = (0, *(axis + 1 for axis in port.permutation)) if port.permutation else range(x.ndim)
        inputs[port.tensor] = np.ascontiguousarray(x.transpose(tuple(order)))
    found = refsim.run(graph, inputs, threads=THREADS)
    outputs = {}
    for port in graph.outputs:
        y = found[port.tensor]
        back = (port.permutation.index(axis) + 1 for axis in range(len(port.permutation)))
        outputs[port.name] = y.transpose(0, *back) if port.permutation else y
    return outputs


def _known(ours: Mapping[str, Int8Array], kernels: ReferenceKernels) -> Iterator[tuple[str, Int8Array]]:
    """The graph's tensors that are the file's: not those that only the graph has, between two shapes."""
    return ((name, x) for name, x in ours.items() if name in kernels.tensors)


def _each(samples: Mapping[str, Int8Array]) -> Iterator[dict[str, Int8Array]]:
    for index in range(len(next(iter(samples.values())))):
        yield {name: x[index] for name, x in samples.items()}
