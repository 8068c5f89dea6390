"""LayerNorm as a call of tnf_layernorm, or of tnf_layernorm_dsp."""

import numpy as np

from codegen.emit.base import KernelCall, dsp_variant, quick, rows_of, tensor_stage
from refsim.ops.layernorm import LayerNorm
from refsim.tensor import Shape


def kernel_call(op: LayerNorm, shapes: tuple[Shape, ...]) -> KernelCall:
    """The call for inputs of the given shapes (one sample)."""
    high, low = divmod(op.epsilon, 2**32)
    return KernelCall(
        kernel="tnf_layernorm",
        params={
            "rows": rows_of(shapes[0]),
            "n": shapes[0][-1],
            "scale_bits": op.scale_bits,
            "epsilon_low": low if low < 2**31 else low - 2**32,
            "epsilon_high": high,
            "gamma": op.gamma,
            "beta": op.beta,
            **tensor_stage(op.output),
        },
        sources=("layernorm",),
        in_place=(0,),
    )


def dsp_kernel_call(op: LayerNorm, shapes: tuple[Shape, ...]) -> KernelCall | None:
    """The call for a core with the DSP extension, where the quick last step serves."""
    if not quick(op.output):
        return None
    affine = np.stack([op.gamma.astype(np.int32), op.beta], axis=1).ravel()
    return dsp_variant(kernel_call(op, shapes), without=("gamma", "beta", "rounding"), affine=affine)
