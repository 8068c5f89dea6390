"""From operators to kernel calls: one module for each operator, named after it."""

import importlib
from enum import StrEnum
from types import ModuleType

from codegen.emit.base import MAX_RANK, SCRATCH_ALIGNMENT, KernelCall
from codegen.encoding import BLOCKS
from refsim.ops.base import Operator
from refsim.tensor import Shape

__all__ = ["MAX_RANK", "SCRATCH_ALIGNMENT", "KernelCall", "Optimise", "kernel_call", "kernel_calls"]


class Optimise(StrEnum):
    """What sparse weights are encoded for."""

    SIZE = "size"
    """The fewest bytes of constants."""

    SPEED = "speed"
    """The least time, by an estimate."""

    BALANCED = "balanced"
    """The fewest bytes of constants among what is no slower than dense weights."""


SPARSE_COST = {False: {4: 0.9, 2: 1.2, 1: 1.6}, True: {4: 1.2, 2: 1.4, 1: 2.5}}
"""Time of a multiplication of a sparse kernel in those of the dense one, without and with the DSP extension, by block:
as measured at 40 to 50 % of zeros on a Cortex-M0+ and on M4 and M7."""


def kernel_call(
    op: Operator, shapes: tuple[Shape, ...], *, dsp: bool = False, optimise: Optimise = Optimise.BALANCED
) -> KernelCall:
    """The kernel call that an operator becomes; the one place where a kernel is chosen.

    An operator's module has a `kernel_call` for the portable kernel; a `dsp_kernel_call` where there is one for cores
    with the DSP extension, which returns None for what that kernel does not do; and likewise a `sparse_kernel_call`
    where there is one that leaves out blocks of zeros.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        dsp: the core has the DSP extension.
        optimise: what decides whether weights are encoded as sparse.

    Raises:
        UnsupportedError: the tensors have more axes than the kernels take.
    """
    dense, *sparse = kernel_calls(op, shapes, dsp=dsp)

    def time(call: KernelCall) -> float:
        return call.work * SPARSE_COST[dsp][call.sparse_block] if call.sparse_block else float(call.macs)

    if optimise is Optimise.SPEED:
        return min((dense, *sparse), key=time)
    if optimise is Optimise.BALANCED:
        sparse = [call for call in sparse if time(call) <= time(dense)]
    return min((dense, *sparse), key=lambda call: call.constant_bytes)


def kernel_calls(op: Operator, shapes: tuple[Shape, ...], *, dsp: bool = False) -> tuple[KernelCall, ...]:
    """Every kernel call that an operator may become: with dense weights, then with sparse ones.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        dsp: the core has the DSP extension.

    Raises:
        UnsupportedError: the tensors have more axes than the kernels take.
    """
    module = importlib.import_module(f"{__name__}.{op.name}")
    dense = (module.dsp_kernel_call(op, shapes) if dsp and hasattr(module, "dsp_kernel_call") else None) or (
        module.kernel_call(op, shapes)
    )
    return dense, *_sparse_kernel_calls(module, op, shapes)


def _sparse_kernel_calls(module: ModuleType, op: Operator, shapes: tuple[Shape, ...]) -> list[KernelCall]:
    if not hasattr(module, "sparse_kernel_call"):
        return []
    return list(filter(None, (module.sparse_kernel_call(op, shapes, block) for block in BLOCKS)))
