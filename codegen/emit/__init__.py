"""From operators to kernel calls: one module for each operator, named after it."""

import importlib

from codegen.emit.base import MAX_RANK, SCRATCH_ALIGNMENT, KernelCall
from refsim.ops.base import Operator
from refsim.tensor import Shape

__all__ = ["MAX_RANK", "SCRATCH_ALIGNMENT", "KernelCall", "kernel_call", "kernel_calls"]


def kernel_call(op: Operator, shapes: tuple[Shape, ...], *, dsp: bool = False) -> KernelCall:
    """The first of an operator's `kernel_calls`: with dense weights.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        dsp: the core has the DSP extension.

    Raises:
        UnsupportedError: the tensors have more axes than the kernels take.
    """
    module = importlib.import_module(f"{__name__}.{op.name}")
    call: KernelCall | None = module.dsp_kernel_call(op, shapes) if dsp and hasattr(module, "dsp_kernel_call") else None
    return call or module.kernel_call(op, shapes)


def kernel_calls(op: Operator, shapes: tuple[Shape, ...], *, dsp: bool = False) -> tuple[KernelCall, ...]:
    """Every kernel call that an operator may become, of which `codegen.choose` takes one.

    An operator's module has a `kernel_call` for the portable kernel; a `dsp_kernel_call` where there is one for cores
    with the DSP extension, which returns None for what that kernel does not do; likewise a `sparse_kernel_call` for
    each of its `SPARSE_BLOCKS` where there is one that leaves out zeros; and `other_kernel_calls` where the first one
    has sizes to choose.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        dsp: the core has the DSP extension.

    Returns:
        The call with dense weights, then the others.

    Raises:
        UnsupportedError: the tensors have more axes than the kernels take.
    """
    module = importlib.import_module(f"{__name__}.{op.name}")
    first = kernel_call(op, shapes, dsp=dsp)
    others: list[KernelCall | None] = []
    if hasattr(module, "sparse_kernel_call"):
        others += [module.sparse_kernel_call(op, shapes, block) for block in module.SPARSE_BLOCKS]
    if hasattr(module, "other_kernel_calls"):
        others += module.other_kernel_calls(op, shapes, first)
    return first, *filter(None, others)
