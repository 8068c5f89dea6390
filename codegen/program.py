"""A graph made ready for C: its kernel calls, its memory plan, and what each step costs."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegen.emit import KernelCall, Optimise, kernel_call
from codegen.order import order_nodes
from codegen.passes import fuse_attention
from codegen.planner import ArenaPlan, check_plan, plan_arena
from refsim.errors import UnsupportedError, located
from refsim.graph import Graph, Port
from refsim.tensor import Shape


@dataclass(frozen=True, eq=False)
class Step:
    """One operator of the program.

    Attributes:
        index: of the step, from 0.
        node: the node's name.
        operator: the operator's name.
        inputs: names of the tensors it reads.
        output: name of the tensor it writes.
        shape: of the output.
        offset: of the output in the arena, bytes.
        bytes: of the output.
        call: the kernel call.
        elided: it runs no code, for the output is the input's bytes in place.
    """

    index: int
    node: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape
    offset: int
    bytes: int
    call: KernelCall
    elided: bool

    @property
    def constant_bytes(self) -> int:
        """Bytes in flash of its parameters."""
        return 0 if self.elided else self.call.constant_bytes


@dataclass(frozen=True)
class PortPlace:
    """A graph input or output in the arena.

    Attributes:
        name: in the model file.
        tensor: in the graph.
        offset, bytes: in the arena.
        shape: of one sample, in the graph's layout.
        file_shape: of one sample, in the model file's layout.
        scale, zero_point: quantisation.
    """

    name: str
    tensor: str
    offset: int
    bytes: int
    shape: Shape
    file_shape: Shape
    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class Program:
    """A graph as kernel calls on one arena.

    Attributes:
        graph: the model, its nodes in execution order; its attention fused where that makes the arena smaller.
        model_hash: SHA-256 of everything that decides the model's bytes, hexadecimal.
        steps: in execution order.
        inputs, outputs: the graph's ports.
        plan: where everything lies.
    """

    graph: Graph
    model_hash: str
    steps: tuple[Step, ...]
    inputs: tuple[PortPlace, ...]
    outputs: tuple[PortPlace, ...]
    plan: ArenaPlan

    @property
    def kernel_sources(self) -> tuple[str, ...]:
        """Names of the ckernels sources that the program calls, sorted."""
        return tuple(sorted({source for step in self.steps if not step.elided for source in step.call.sources}))

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the constant tensors that some step reads, in the graph's order."""
        read = {tensor for step in self.steps for tensor in step.inputs}
        return tuple(name for name in self.graph.constants if name in read)

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants in flash: parameters and constant tensors."""
        tensors = sum(self.graph.constants[name].nbytes for name in self.constants)
        return tensors + sum(step.constant_bytes for step in self.steps)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one run."""
        return sum(step.call.macs for step in self.steps)


def build_program(
    graph: Graph, *, dsp: bool = False, optimise: Optimise = Optimise.BALANCED, reorder: bool = True
) -> Program:
    """Choose the kernels and the order of the steps, plan the arena and check the plan; fuse attention where that pays.

    Args:
        graph: the model.
        dsp: the core has the DSP extension.
        optimise: what decides whether weights are encoded as sparse.
        reorder: run the operators in another order than the graph's where that makes the arena smaller.

    Raises:
        UnsupportedError: naming the node, something that no kernel does; or a graph without nodes.
    """
    if not graph.nodes:
        raise UnsupportedError(f"model {graph.name!r} has no operators: there is nothing to generate")
    model_hash = graph_hash(graph)
    graph, calls, plan = _planned(graph, dsp, optimise, reorder)
    fused = fuse_attention(graph)
    if fused is not graph:
        unfused = graph, calls, plan
        graph, calls, plan = min(
            unfused, _planned(fused, dsp, optimise, reorder), key=lambda candidate: candidate[2].arena_bytes
        )
    check_plan(graph, calls, plan)
    at = plan.tensor_offsets
    steps = tuple(
        Step(
            index=index,
            node=node.name,
            operator=node.op.name,
            inputs=node.inputs,
            output=node.output,
            shape=graph.tensors[node.output].shape,
            offset=at[node.output],
            bytes=graph.tensors[node.output].size,
            call=call,
            elided=call.view and at.get(node.inputs[0]) == at[node.output],
        )
        for index, (node, call) in enumerate(zip(graph.nodes, calls, strict=True))
    )

    def place(port: Port) -> PortPlace:
        tensor = graph.tensors[port.tensor]
        return PortPlace(
            name=port.name,
            tensor=port.tensor,
            offset=at[port.tensor],
            bytes=tensor.size,
            shape=tensor.shape,
            file_shape=port.file_shape(tensor.shape),
            scale=tensor.scale,
            zero_point=tensor.zero_point,
        )

    return Program(graph, model_hash, steps, tuple(map(place, graph.inputs)), tuple(map(place, graph.outputs)), plan)


def _planned(
    graph: Graph, dsp: bool, optimise: Optimise, reorder: bool
) -> tuple[Graph, tuple[KernelCall, ...], ArenaPlan]:
    """A graph with its nodes in execution order, their kernel calls and its memory plan."""
    chosen: dict[str, KernelCall] = {}
    for node in graph.nodes:
        with located(f"node {node.name!r} ({node.op.name})"):
            shapes = tuple(graph.tensors[tensor].shape for tensor in node.inputs)
            chosen[node.name] = kernel_call(node.op, shapes, dsp=dsp, optimise=optimise)
    if reorder:
        graph = order_nodes(graph, tuple(chosen.values()))
    calls = tuple(chosen[node.name] for node in graph.nodes)
    return graph, calls, plan_arena(graph, calls)


def graph_hash(graph: Graph) -> str:
    """SHA-256 of everything in a graph but its name, hexadecimal."""
    digest = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, Mapping):
            feed(sorted(value.items(), key=lambda item: str(item[0])))
        elif dataclasses.is_dataclass(value):
            digest.update(f"{type(value).__name__}(".encode())
            for field in dataclasses.fields(value):
                feed(getattr(value, field.name))
            digest.update(b")")
        elif isinstance(value, tuple | list):
            digest.update(b"[")
            for item in value:
                feed(item)
            digest.update(b"]")
        else:
            plain = value.item() if isinstance(value, np.generic) else value
            digest.update(f"{plain!r},".encode())

    feed((graph.inputs, graph.outputs, graph.tensors, graph.nodes, graph.constants))
    return digest.hexdigest()
