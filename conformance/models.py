"""Whole models: generated C against the golden model, every tensor of every sample, here and on emulated chips."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import refsim
from codegen.generate import GeneratedModel, generate
from codegen.target import load_target
from conformance.comparison import difference
from conformance.emulator import HOST_WINDOW, CallResult, CortexM
from conformance.host import HostLibrary
from conformance.timing.cycles import BlockExecutions, Cycles, Timing
from conformance.toolchain import NATIVE, Toolchain, build_firmware, build_shared_library
from refsim import Graph
from refsim.errors import ConformanceError, EmulationError, located
from refsim.numerics import Int8Array
from refsim.samples import Preprocessing, model_inputs, read_archive

CHUNK = 32
"""Samples that the golden model runs at a time, all their tensors kept."""

_STEP_ENDS = 1 << 30  # as in native/trace.c
_GUARD = 64
_EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass(frozen=True)
class Trace:
    """What one run of a model gave.

    Attributes:
        log: the outputs of all steps, one after the other, each as it was when its step ended.
        outputs: the model's outputs after the run, in the order of its ports.
    """

    log: bytes
    outputs: tuple[bytes, ...]


@dataclass(frozen=True)
class ModelOutcome:
    """A model at a place.

    Attributes:
        model, place: names.
        samples: how many ran, every tensor compared.
        tensors: compared in each.
        mismatches: samples with a byte that differs.
        seconds: of the place alone.
        message: the first divergence, or what went wrong; empty where nothing did.
        instructions: of each step, the mean over the samples; empty where they are not counted.
        stack_bytes: deepest use of the stack; 0 where it is not measured.
        operators: of each step. Order and fusion of the steps may differ from place to place.
    """

    model: str
    place: str
    samples: int
    tensors: int
    mismatches: int
    seconds: float
    message: str = ""
    instructions: tuple[float, ...] = ()
    stack_bytes: int = 0
    operators: tuple[str, ...] = ()

    @property
    def total_instructions(self) -> float:
        """Of one sample."""
        return sum(self.instructions)


class ModelPlace(ABC):
    """Runs a trace build of a generated model.

    Attributes:
        model: the generated folder.
        instructions: of each step, one list a sample.
        stack_bytes: deepest use of the stack; 0 where it is not measured.
    """

    def __init__(self, model: GeneratedModel) -> None:
        self.model = model
        self.instructions: list[list[int]] = []
        self.stack_bytes = 0
        self.log_bytes = sum(step.bytes for step in model.steps)

    @abstractmethod
    def run(self, sample: Mapping[str, Int8Array]) -> Trace:
        """Run one sample.

        Args:
            sample: int8 of each input's shape, by tensor name.

        Raises:
            ConformanceError: it wrote beyond its arena.
            EmulationError: emulated code strayed, faulted or did not end.
        """


class HostModel(ModelPlace):
    """On this machine.

    Args:
        model: the generated folder.
        toolchain: the compiler; the preferred one by default.
    """

    def __init__(self, model: GeneratedModel, toolchain: Toolchain | None = None) -> None:
        super().__init__(model)
        library = build_shared_library(
            [*model.sources, NATIVE / "trace.c"],
            include_dirs=[*model.include_dirs, NATIVE],
            defines={"TNF_TRACE": 1},
            toolchain=toolchain,
            name=model.prefix,
        )
        self._library = HostLibrary(library, [model.header, NATIVE / "trace.h"])
        ffi = self._library.ffi
        self._memory = np.empty(model.arena_bytes + 2 * _GUARD + 16, np.uint8)
        self._start = _GUARD + (-(self._memory.ctypes.data + _GUARD)) % 16
        self._log = bytearray(self.log_bytes)
        self._log_pointer = ffi.from_buffer("int8_t[]", self._log)
        self._arena_pointer = ffi.cast("void *", self._memory.ctypes.data + self._start)

    def run(self, sample: Mapping[str, Int8Array]) -> Trace:
        self._memory[:] = 0xA5
        end = self._start + self.model.arena_bytes
        for port in self.model.inputs:
            at = self._start + port.offset
            self._memory[at : at + port.bytes] = sample[port.tensor].ravel().view(np.uint8)
        self._library.lib.tnf_trace_begin(self._log_pointer)
        getattr(self._library.lib, f"{self.model.prefix}_run")(self._arena_pointer)
        if (self._memory[: self._start] != 0xA5).any() or (self._memory[end:] != 0xA5).any():
            raise ConformanceError("the model wrote outside its arena")
        arena = self._memory[self._start : end]
        outputs = (arena[port.offset : port.offset + port.bytes].tobytes() for port in self.model.outputs)
        return Trace(bytes(self._log), tuple(outputs))


class CortexMModel(ModelPlace):
    """On an emulated chip, with instructions counted for each step, and cycles where they are asked for.

    Attributes:
        elf: the image.
        machine: the chip.
        cycles: of each step, one list a sample; empty without timing.
        blocks: what each block of code did in each step (its `mark`), one list a sample; empty without timing.

    Args:
        model: the generated folder; its target is the chip.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        timing: how to count cycles; None for not at all.

    Raises:
        TargetError: the linked image does not fit the chip, or the chip lacks what the timing needs.
    """

    def __init__(
        self,
        model: GeneratedModel,
        toolchain: Toolchain | None = None,
        *,
        opt: str = "-O2",
        timing: Timing | None = None,
    ) -> None:
        super().__init__(model)
        self.elf = build_firmware(
            [*model.sources, NATIVE / "trace.c"],
            model.target,
            [f"{model.prefix}_run", "tnf_trace_begin"],
            include_dirs=[*model.include_dirs, NATIVE],
            defines={"TNF_TRACE": 1},
            toolchain=toolchain,
            opt=opt,
            arena_bytes=model.arena_bytes,
            name=model.prefix,
        )
        self.machine = CortexM(model.target, self.elf, host_window=self.log_bytes, timing=timing)
        self.cycles: list[list[Cycles]] = []
        self.blocks: list[list[BlockExecutions]] = []
        self._timing = timing
        self.machine.operator_names = [f"{step.node} ({step.operator})" for step in model.steps]

    def run(self, sample: Mapping[str, Int8Array]) -> Trace:
        result = self._call(sample, HOST_WINDOW)
        arena = self.machine.arena[0]
        outputs = [self.machine.read(arena + port.offset, port.bytes) for port in self.model.outputs]
        trace = Trace(self.machine.read(HOST_WINDOW, self.log_bytes), tuple(outputs))
        self.stack_bytes = max(self.stack_bytes, result.stack_bytes)
        self.instructions.append([n for index, n in result.operator_instructions if not index & _STEP_ENDS])
        if self._timing is not None:
            # Once more, from empty caches and without a log, since copying tensors would fill them.
            self.machine.empty_caches()
            result = self._call(sample, 0)
            self.cycles.append([cycles for index, cycles in result.operator_cycles if not index & _STEP_ENDS])
            blocks = self.machine.block_profile()
            self.blocks.append([b for b in blocks if b.mark is not None and not b.mark & _STEP_ENDS])
        return trace

    def _call(self, sample: Mapping[str, Int8Array], log: int) -> CallResult:
        """Run the model on a sample, with the steps' outputs written to `log` unless that is 0."""
        arena = self.machine.arena[0]
        self.machine.write(arena, bytes([0xA5]) * self.model.arena_bytes)
        for port in self.model.inputs:
            self.machine.write(arena + port.offset, sample[port.tensor].tobytes())
        self.machine.call("tnf_trace_begin", log)
        return self.machine.call(f"{self.model.prefix}_run", arena)


@dataclass(frozen=True)
class ModelUnderTest:
    """A graph and samples for it.

    Attributes:
        graph: the model.
        samples: int8 (N, *shape) by input tensor.
    """

    graph: Graph
    samples: Mapping[str, Int8Array]

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(next(iter(self.samples.values())))


def model_name(path: Path) -> str:
    """What a model is called: every example's file is model.onnx, so that its folder says which it is."""
    return path.resolve().parent.name if path.stem == "model" else path.stem


def example_models() -> dict[Path, Path | None]:
    """The models that come with the project, and the samples beside each."""
    return {
        model: samples if (samples := model.with_name("test.npz")).exists() else None
        for model in sorted(_EXAMPLES.glob("*/model.onnx"))
    }


def read_model(
    path: Path,
    data: Path | None,
    count: int | None,
    *,
    seed: int = 0,
    numerics: Literal["litert", "cmsis-nn"] = "litert",
) -> ModelUnderTest:
    """Read a model and samples for it.

    Args:
        path: QDQ ONNX or .tflite.
        data: .npz of samples (see `refsim.samples`); random bytes where None.
        count: number of samples, the first of the file; None for all of them.
        seed: of random bytes.
        numerics: whose bytes a .tflite model gives (the profile of `codegen.load`).

    Raises:
        ModelError: the model is unreadable or not supported.
        DataError: the samples are unreadable or do not fit.
    """
    from codegen import load  # noqa: PLC0415 - onnx and onnxruntime are needed for files only

    graph = load(path, name=model_name(path), profile=numerics)
    if data is None:
        return ModelUnderTest(graph, random_samples(graph, count or 1, seed))
    with located(str(data)):
        real = model_inputs(read_archive(data), graph.input_shapes, Preprocessing())
    samples = {port.tensor: refsim.quantize_input(graph, port, real[port.name][:count]) for port in graph.inputs}
    return ModelUnderTest(graph, samples)


def random_samples(graph: Graph, count: int, seed: int = 0) -> dict[str, Int8Array]:
    """Random bytes for every input of a graph, int8 (count, *shape) by tensor name."""
    generator = np.random.default_rng(seed)
    return {
        port.tensor: generator.integers(-128, 128, (count, *graph.tensors[port.tensor].shape)).astype(np.int8)
        for port in graph.inputs
    }


def compare_model(
    model: ModelUnderTest, place: ModelPlace, name: str, count: int, progress: Callable[[], None] = lambda: None
) -> ModelOutcome:
    """Run samples at a place and compare every tensor with the golden model.

    Args:
        model: graph and samples.
        place: where.
        name: the place's name.
        count: number of samples, or fewer where there are fewer.
        progress: called after each sample.
    """
    seconds, done, mismatches, message = 0.0, 0, 0, ""
    for sample, golden in _golden_samples(model, min(count, model.count)):
        start = time.perf_counter()
        try:
            found = trace_difference(place.model, golden, place.run(sample))
        except (ConformanceError, EmulationError) as error:
            found = str(error)
        seconds += time.perf_counter() - start
        if found:
            message = message or f"sample {done}: {found}"
            mismatches += 1
        done += 1
        progress()
    counted = np.array(place.instructions, np.float64)
    return ModelOutcome(
        model.graph.name,
        name,
        done,
        len(place.model.steps),
        mismatches,
        seconds,
        message,
        tuple(counted.mean(axis=0).tolist()) if counted.size else (),
        place.stack_bytes,
        tuple(step.operator for step in place.model.steps),
    )


def open_place(name: str, graph: Graph, folder: Path) -> ModelPlace:
    """Generate and build a model for a place.

    Args:
        name: "host", or a target's name or .toml file.
        graph: the model.
        folder: where to generate.

    Raises:
        TargetError: the model does not fit the target, or there is none of that name.
        ToolchainError: it cannot be built.
    """
    if name == "host":
        return HostModel(generate(graph, load_target("stm32f746"), folder / "host"))
    return CortexMModel(generate(graph, load_target(name), folder / Path(name).stem))


def _golden_samples(model: ModelUnderTest, count: int) -> Iterator[tuple[dict[str, Int8Array], dict[str, Int8Array]]]:
    """Each sample's inputs, and its tensors from the golden model."""
    for start in range(0, count, CHUNK):
        batch = {name: x[start : min(start + CHUNK, count)] for name, x in model.samples.items()}
        tensors = refsim.run(model.graph, batch, trace=True)
        for index in range(len(next(iter(batch.values())))):
            yield {name: x[index] for name, x in batch.items()}, {name: x[index] for name, x in tensors.items()}


def trace_difference(model: GeneratedModel, golden: Mapping[str, Int8Array], trace: Trace) -> str:
    """The first difference in the order of execution, outputs last; empty where there is none."""
    at = 0
    for step in model.steps:
        found = trace.log[at : at + step.bytes]
        at += step.bytes
        message = difference(golden[step.output], np.frombuffer(found, np.int8).reshape(step.shape))
        if message:
            return f"layer {step.index} {step.node!r} ({step.operator}), tensor {step.output!r}: {message}"
    for port, found in zip(model.outputs, trace.outputs, strict=True):
        message = difference(golden[port.tensor], np.frombuffer(found, np.int8).reshape(port.shape))
        if message:
            return f"output {port.name!r}, right when it was written but not at the end of the run: {message}"
    return ""
