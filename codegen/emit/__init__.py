"""From operators to kernel calls: one module for each operator, named after it."""

import importlib

from codegen.emit.base import MAX_RANK, SCRATCH_ALIGNMENT, KernelCall
from refsim.ops.base import Operator
from refsim.tensor import Shape

__all__ = ["MAX_RANK", "SCRATCH_ALIGNMENT", "KernelCall", "kernel_call"]


def kernel_call(op: Operator, shapes: tuple[Shape, ...]) -> KernelCall:
    """The kernel call that an operator becomes; the one place where a kernel is chosen.

    Args:
        op: the operator.
        shapes: of its inputs, one sample.

    Raises:
        UnsupportedError: the tensors have more axes than the kernels take.
    """
    call = importlib.import_module(f"{__name__}.{op.name}").kernel_call(op, shapes)
    assert isinstance(call, KernelCall)
    return call
