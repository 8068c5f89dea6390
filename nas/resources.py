"""What an architecture takes on a microcontroller, by the toolkit's own encoder, planner and predictor (ResourceEval).

An architecture without weights gets random ones with as many blocks of zeros as its pruning says; with weights, the
result is that of the model as it will be generated.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codegen.code_size import code_bytes
from codegen.emit import kernel_calls
from codegen.onnx import load, quantize
from codegen.order import order_nodes
from codegen.planner import plan_arena
from codegen.predictor import predict_graph
from codegen.program import Program, build_program
from codegen.target import Target
from nas.layers import Network, describe
from nas.space import Architecture
from nas.writer import random_weights, write_network
from refsim.errors import DataError, TargetError
from refsim.graph import Graph


@dataclass(frozen=True)
class Resources:
    """What a model takes.

    Attributes:
        parameters: numbers in all weights and biases, batch normalisation folded.
        kept_parameters: those that pruning leaves, the paper's effective weights.
        constant_bytes: of encoded weights and tables in flash; exact.
        code_bytes: in flash; an upper bound, see `codegen.code_size`.
        arena_bytes: of the planned arena, attention fused where that pays; exact.
        unfused_arena_bytes: of an arena for attention as three operators each.
        stack_bytes: reserved by the target.
        macs: multiply-accumulate operations of one run, those of zeros included.
        cycles: of one run, predicted, waiting for memories included; None without a predictor for the core.
        latency_ms: the same at the target's clock.
    """

    parameters: int
    kept_parameters: int
    constant_bytes: int
    code_bytes: int
    arena_bytes: int
    unfused_arena_bytes: int
    stack_bytes: int
    macs: int
    cycles: float | None
    latency_ms: float | None

    @property
    def flash_bytes(self) -> int:
        """Constants and code, the paper's storage."""
        return self.constant_bytes + self.code_bytes

    @property
    def ram_bytes(self) -> int:
        """Arena and stack, the paper's peak memory."""
        return self.arena_bytes + self.stack_bytes


@dataclass(frozen=True)
class Limits:
    """What a model may take: the paper's L_s and L_m, and a latency.

    Attributes:
        flash_bytes: for constants and code.
        ram_bytes: for arena and stack.
        latency_ms: of one run; None for any.
    """

    flash_bytes: int
    ram_bytes: int
    latency_ms: float | None = None

    @classmethod
    def of(cls, target: Target, latency_ms: float | None = None) -> "Limits":
        """The whole memory of a target."""
        return cls(target.code.size, target.data.size, latency_ms)

    def exceeded(self, resources: Resources) -> tuple[str, ...]:
        """What does not fit, in words; nothing where the model fits.

        Raises:
            TargetError: there is a limit for the latency, which is not known.
        """
        found = []
        for what, used, limit in (
            ("flash", resources.flash_bytes, self.flash_bytes),
            ("RAM", resources.ram_bytes, self.ram_bytes),
        ):
            if used > limit:
                found.append(f"{what}: {used} of {limit} bytes")
        if self.latency_ms is not None:
            if resources.latency_ms is None:
                raise TargetError("latency: there is no predictor for the target's core; search without a limit for it")
            if resources.latency_ms > self.latency_ms:
                found.append(f"latency: {resources.latency_ms:.1f} of {self.latency_ms:.1f} ms")
        return tuple(found)

    def surely_exceeded(self, network: Network) -> bool:
        """Whether the weights that pruning leaves take more than the flash, however they are stored: known at once."""
        return network.kept_parameter_count > self.flash_bytes


class ResourceEval:
    """Evaluates architectures for one target; an architecture without weights is evaluated once.

    Args:
        target: the microcontroller.
        seed: of random weights and samples.
        samples: to calibrate models with weights on, see `integer_graph`; scales are part of the predicted time.
    """

    def __init__(self, target: Target, seed: int = 0, samples: NDArray[np.float32] | None = None) -> None:
        self.target = target
        self._seed = seed
        self._samples = samples
        self._known: dict[Architecture, Resources] = {}

    def __call__(
        self, architecture: Architecture, weights: Mapping[str, NDArray[np.float32]] | None = None
    ) -> Resources:
        """What an architecture takes.

        Args:
            architecture: with `weights` None, its masks are random, and the result is kept.
            weights: of all parameters, see `nas.writer.write_network`.

        Raises:
            ShapeError: the architecture contradicts itself.
            ModelError: the weights do not belong to it.
        """
        if weights is None and architecture in self._known:
            return self._known[architecture]
        network = describe(architecture)
        if weights is not None:
            return self.of_graph(integer_graph(network, weights, self._samples, self._seed), network)
        weights = random_weights(network, np.random.default_rng(self._seed))
        found = self._known[architecture] = self.of_graph(integer_graph(network, weights, seed=self._seed), network)
        return found

    def of_graph(self, graph: Graph, network: Network) -> Resources:
        """What an integer model of a network takes."""
        program = build_program(graph, self.target)
        cycles = self._cycles(program)
        return Resources(
            parameters=network.parameter_count,
            kept_parameters=network.kept_parameter_count,
            constant_bytes=program.constant_bytes,
            code_bytes=code_bytes(program, self.target),
            arena_bytes=program.plan.arena_bytes,
            unfused_arena_bytes=_unfused_arena(graph, program, self.target),
            stack_bytes=self.target.stack_bytes,
            macs=program.macs,
            cycles=cycles,
            latency_ms=None if cycles is None else 1000 * cycles / self.target.clock_hz,
        )

    def _cycles(self, program: Program) -> float | None:
        """Of one run; None where nothing predicts them."""
        try:
            total = predict_graph(program.graph, self.target).total
        except (TargetError, DataError):
            return None
        return total.cycles + (total.waits or 0.0)


def integer_graph(
    network: Network,
    weights: Mapping[str, NDArray[np.float32]],
    samples: NDArray[np.float32] | None = None,
    seed: int = 0,
) -> Graph:
    """A network as the integer model that is generated from it.

    Args:
        network: its layers.
        weights: of all its parameters.
        samples: to calibrate on, (N, channels, height, width); a random one by default, which is enough where only
            sizes are asked.
        seed: of that sample.

    Raises:
        ModelError: the weights do not belong to the network.
    """
    if samples is None:
        samples = np.random.default_rng(seed).uniform(-1, 1, (1, *network.input_shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tinyformer.onnx"
        path.write_bytes(write_network(network, weights).SerializeToString())
        path.write_bytes(quantize(path, samples).SerializeToString())
        return load(path)


def _unfused_arena(graph: Graph, program: Program, target: Target) -> int:
    """The arena of the program with its attention as three operators, each with the kernel call of least scratch."""
    steps = {(step.node, step.operator): step.call for step in program.steps}
    calls = {}
    for node in graph.nodes:
        shapes = tuple(graph.tensors[tensor].shape for tensor in node.inputs)
        known = steps.get((node.name, node.op.name))
        found = [known] if known else kernel_calls(node.op, shapes, dsp=target.dsp)
        calls[node.name] = min(found, key=lambda call: call.scratch_bytes)
    ordered = order_nodes(graph, list(calls.values()))
    return plan_arena(ordered, [calls[node.name] for node in ordered.nodes]).arena_bytes
