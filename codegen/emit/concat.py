"""Concat as a call of tnf_concat."""

import math

from codegen.emit.base import KernelCall, int32_array
from refsim.ops.concat import Concat
from refsim.tensor import Shape


def kernel_call(op: Concat, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    stages = [rescale.output if rescale else None for rescale in op.rescale]
    output = next((stage for stage in stages if stage), None)
    return KernelCall(
        kernel="tnf_concat",
        params={
            "count": len(shapes),
            "outer": math.prod(shapes[0][: op.axis]),
            "output_zero_point": output.zero_point if output else 0,
            "rounding": int(output.rounding) if output else 0,
            "chunk": int32_array(math.prod(shape[op.axis :]) for shape in shapes),
            "rescale": int32_array(int(rescale is not None) for rescale in op.rescale),
            "zero_point": int32_array(rescale.input_zero_point if rescale else 0 for rescale in op.rescale),
            "multiplier": int32_array(stage.multiplier[0] if stage else 0 for stage in stages),
            "shift": int32_array(stage.shift[0] if stage else 0 for stage in stages),
        },
        sources=("concat",),
        variadic=True,
    )
