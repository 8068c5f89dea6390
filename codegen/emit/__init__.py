"""From operators to kernel calls: one module for each operator, named after it."""

import importlib

from codegen.emit.base import MAX_RANK, SCRATCH_ALIGNMENT, KernelCall
from refsim.ops.base import Operator
from refsim.tensor import Shape

__all__ = ["MAX_RANK", "SCRATCH_ALIGNMENT", "KernelCall", "kernel_call"]


def kernel_call(op: Operator, shapes: tuple[Shape, ...], *, dsp: bool = False) -> KernelCall:
    """The kernel call that an operator becomes; the one place where a kernel is chosen.

    An operator's module has a `kernel_call` for the portable kernel, and a `dsp_kernel_call` where there is one for
    cores with the DSP extension, which returns None for what that kernel does not do.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.
        dsp: the core has the DSP extension.

    Raises:
        UnsupportedError: the tensors have more axes than the kernels take.
    """
    module = importlib.import_module(f"{__name__}.{op.name}")
    call = module.dsp_kernel_call(op, shapes) if dsp and hasattr(module, "dsp_kernel_call") else None
    call = call or module.kernel_call(op, shapes)
    assert isinstance(call, KernelCall)
    return call
