"""A graph made ready for C: its kernel calls, its memory plan, and what each step costs."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegen.choose import Optimise
from codegen.emit import KernelCall
from codegen.planner import ArenaPlan, check_plan
from codegen.predictor import costs
from codegen.schedule import make_schedule
from codegen.specialise import specialised_steps
from codegen.target import Target
from refsim.errors import UnsupportedError
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
        reason: why this one, beside the others that the operator can have; empty where there are none.
        elided: it runs no code, for the output is the input's bytes in place.
        specialised: its kernel is compiled once more for it alone (see `codegen.specialise`).
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
    reason: str
    elided: bool
    specialised: bool

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
        graph: the model, its nodes in execution order, its attention fused where that pays.
        model_hash: SHA-256 of everything that decides the model's bytes, hexadecimal.
        steps: in execution order.
        inputs, outputs: the graph's ports.
        plan: where everything lies.
        optimise: what kernel calls were chosen for.
        costs: where it is known from how long they take, in words.
    """

    graph: Graph
    model_hash: str
    steps: tuple[Step, ...]
    inputs: tuple[PortPlace, ...]
    outputs: tuple[PortPlace, ...]
    plan: ArenaPlan
    optimise: Optimise
    costs: str

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
    graph: Graph,
    target: Target | None = None,
    *,
    dsp: bool = False,
    optimise: Optimise = Optimise.BALANCED,
    reorder: bool = True,
) -> Program:
    """Choose the kernels and the order of the steps, plan the arena and check the plan; fuse attention where that pays.

    Args:
        graph: the model.
        target: the microcontroller, for which kernels are chosen by predicted cycles; without one they are estimated.
        dsp: the core has the DSP extension; where there is a target, the target says so.
        optimise: what kernels are chosen for.
        reorder: run the operators in another order than the graph's where that makes the arena smaller.

    Raises:
        UnsupportedError: naming the node, something that no kernel does; or a graph without nodes.
    """
    if not graph.nodes:
        raise UnsupportedError(f"model {graph.name!r} has no operators: there is nothing to generate")
    model_hash = graph_hash(graph)
    known = costs(target, dsp=dsp)
    schedule = make_schedule(graph, known, optimise, dsp=known.dsp, reorder=reorder)
    graph, calls, plan = schedule.graph, schedule.calls, schedule.plan
    check_plan(graph, calls, plan)
    at = plan.tensor_offsets
    specialised = specialised_steps(graph, schedule.choices, optimise)
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
            call=choice.call,
            reason=choice.reason,
            elided=choice.call.view and at.get(node.inputs[0]) == at[node.output],
            specialised=index in specialised,
        )
        for index, (node, choice) in enumerate(zip(graph.nodes, schedule.choices, strict=True))
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

    return Program(
        graph=graph,
        model_hash=model_hash,
        steps=steps,
        inputs=tuple(map(place, graph.inputs)),
        outputs=tuple(map(place, graph.outputs)),
        plan=plan,
        optimise=optimise,
        costs=known.source,
    )


def dims(shape: Shape) -> str:
    """A shape as people read it: "1x32x32x3"."""
    return "x".join(map(str, shape)) or "scalar"


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
