"""Which steps get a copy of their kernel of their own, in which every shape is a constant to the compiler.

A kernel is one function for all of a model's steps and reads its shapes from their parameters. Compiled once more for
one step, whose parameters are constants in the same file, loops have known lengths, branches that no shape of the step
takes vanish, and helpers are copied in. Inner loops written in assembly stay as they are, so that what is gained is
what lies around them. docs/generated-code.md has the measurements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codegen.choose import Choice, Optimise
from codegen.emit import KernelCall
from refsim.graph import Graph


@dataclass(frozen=True)
class Copy:
    """What a copy of a kernel for one step changes.

    Attributes:
        saved: part of the kernel's time that it saves.
        code_bytes: that it takes in flash.
    """

    saved: float
    code_bytes: int


COPIES: Mapping[str, Copy] = {
    "tnf_max_pool2d_dsp": Copy(0.69, 200),
    "tnf_transpose": Copy(0.4, 250),
    "tnf_average_pool2d_dsp": Copy(0.14, 800),
    "tnf_depthwise_conv2d_dsp": Copy(0.035, 1400),
}
"""As measured, and rounded down to what most shapes save: Cortex-M4 and M7, zig and gcc at -O2."""

CONVOLUTION = "tnf_conv2d_dsp"
CONVOLUTION_BYTES = 1700
"""A copy of it saves about as much as one of its output channels takes: it is the gathering of each output position's
inputs, once for all channels, that becomes quicker."""

LEAST = 0.001
"""Part of the model's time from which a saving is worth 1000 bytes of code."""


def specialised_steps(graph: Graph, choices: Sequence[Choice], optimise: Optimise) -> frozenset[int]:
    """Indices of the steps that get a copy of their kernel: none unless time is all that counts.

    Args:
        graph: its nodes in execution order.
        choices: the kernel call of each node, with its time.
        optimise: what kernel calls were chosen for.
    """
    if optimise is not Optimise.SPEED:
        return frozenset()
    total = sum(choice.time for choice in choices)
    chosen = set()
    for index, (node, choice) in enumerate(zip(graph.nodes, choices, strict=True)):
        copy = _copy(choice.call)
        if copy is None or any(tensor in graph.constants for tensor in node.inputs):
            continue
        if choice.time * copy.saved > LEAST * total * copy.code_bytes / 1000:
            chosen.add(index)
    return frozenset(chosen)


def _copy(call: KernelCall) -> Copy | None:
    """What a copy for this call changes; None where it is not known to pay."""
    if call.kernel != CONVOLUTION:
        return COPIES.get(call.kernel)
    channels = call.params["output_c"]
    assert isinstance(channels, int)
    return Copy(1 / channels, CONVOLUTION_BYTES)
