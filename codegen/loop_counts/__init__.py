"""How often each loop of a kernel is entered and repeated, from the parameters of its call alone.

One module for each operator, named after it, with a function for each of its kernels: `portable` counts tnf_conv2d,
`dsp` tnf_conv2d_dsp, `sparse` tnf_conv2d_sparse. The counts follow from the loop nest of the C source and are exact.
"""

import functools
import importlib

from codegen.emit import KernelCall
from codegen.loop_counts.base import Count, Terms
from refsim.errors import DataError
from refsim.ops import OPERATORS

__all__ = ["Count", "Terms", "loop_counts"]

PORTABLE = "portable"


def loop_counts(call: KernelCall) -> Terms:
    """How often each loop of a kernel is entered and repeated in one call.

    Raises:
        DataError: the kernel has no counts here.
    """
    return {"calls": 1.0, **_count(call.kernel)(call.params)}


@functools.cache
def _count(kernel: str) -> Count:
    """The function that counts a kernel.

    Raises:
        DataError: there is none.
    """
    for operator in sorted(OPERATORS, key=len, reverse=True):  # no operator's name hides a longer one
        name = f"tnf_{operator}"
        if kernel == name or kernel.startswith(f"{name}_"):
            module = importlib.import_module(f"{__name__}.{operator}")
            count: Count | None = getattr(module, kernel.removeprefix(name).lstrip("_") or PORTABLE, None)
            if count is not None:
                return count
    raise DataError(f"the predictor knows no loops of {kernel}: write them in codegen/loop_counts")
