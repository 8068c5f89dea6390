"""What an operator becomes in C: a kernel call with its parameters, constants and scratch; and what emitters share."""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.encoding import SparseWeight
from refsim.errors import UnsupportedError
from refsim.numerics import Int8Array, Int32Array, Rounding
from refsim.ops.base import Pooling, Requantization, broadcast_shape
from refsim.tensor import Shape
from refsim.windows import Window

MAX_RANK = 6
"""Axes that the kernels with strides take: TNF_MAX_RANK of ckernels/include/tinyformer/kernels.h."""

SCRATCH_ALIGNMENT = 8
"""Alignment of scratch memory, bytes."""

Params = Mapping[str, int | NDArray[Any]]


@dataclass(frozen=True)
class KernelCall:
    """One call of a C kernel, complete but for the addresses of its activations.

    Attributes:
        kernel: the C function, say "tnf_conv2d"; its parameters are the struct "<kernel>_params" of
            ckernels/include/tinyformer/kernels.h.
        params: every field of that struct by name: an int, or an int8, int16 or int32 array for a pointer field.
        sources: names of the ckernels source files needed, without suffix.
        scratch_bytes: working memory that the kernel needs, 8-byte aligned.
        in_place: indices of the inputs whose memory the output may take over exactly (same size, same address).
        view: in place the kernel changes no byte, so the output may share memory even with an input that is read later.
        variadic: inputs are passed as one array of pointers (concat).
        macs: multiply-accumulate operations.
        sparse_block: weights of a block of the sparse encoding; 0 where weights are dense.
        work: multiplications that a sparse kernel executes, those of its tiles' missing rows as well.
    """

    kernel: str
    params: Params
    sources: tuple[str, ...]
    scratch_bytes: int = 0
    in_place: tuple[int, ...] = ()
    view: bool = False
    variadic: bool = False
    macs: int = 0
    sparse_block: int = 0
    work: int = 0

    def __post_init__(self) -> None:
        # An operator's fields may be NumPy integers; in C every number is a plain one.
        plain = {name: v if isinstance(v, np.ndarray) else operator.index(v) for name, v in self.params.items()}
        object.__setattr__(self, "params", MappingProxyType(plain))

    @property
    def encoding(self) -> str:
        """How weights are stored, in words; empty where there are none."""
        if self.sparse_block:
            return f"sparse, blocks of {self.sparse_block}"
        return "dense" if "weight" in self.params else ""

    @property
    def constant_bytes(self) -> int:
        """Bytes in flash of the parameter struct, whose fields are words on the target, and of what it points to."""
        return 4 * len(self.params) + sum(v.nbytes for v in self.params.values() if not isinstance(v, int))


def dsp_variant(
    call: KernelCall, *, scratch_bytes: int = 0, without: Iterable[str] = (), **added: int | NDArray[Any]
) -> KernelCall:
    """The same call of the kernel for cores with the DSP extension, whose name ends in _dsp.

    Args:
        call: of the portable kernel.
        scratch_bytes: that the other needs.
        without: parameters that the other lacks.
        added: parameters that it has besides.
    """
    params = {name: value for name, value in call.params.items() if name not in without}
    return replace(
        call,
        kernel=f"{call.kernel}_dsp",
        params={**params, **added},
        sources=tuple(f"{source}_dsp" for source in call.sources),
        scratch_bytes=scratch_bytes,
    )


def int32_array(values: Iterable[int]) -> Int32Array:
    """A constant table of int32."""
    return np.array(tuple(values), np.int32)


def rows_of(shape: Shape) -> int:
    """Rows of a tensor whose last axis is a row."""
    return math.prod(shape[:-1])


def channel_stage(output: Requantization, channels: int) -> Params:
    """The last step with one multiplier and shift for each output channel; one for all is repeated."""
    stage = output.stage(channels)
    return {"multiplier": stage.multiplier, "shift": stage.shift, **_output_range(output)}


def dsp_weight(weight: Int8Array) -> Int32Array:
    """Weights (channels, taps) as the tiles of ckernels/include/tinyformer/dsp.h take them.

    Returns:
        int32 words [pairs of channels][quads of taps][2], four int8 in each, the first in the lowest byte: taps 0 and
        2 of both channels, then taps 1 and 3, the channel running fastest; what is missing from a pair or a quad is 0.
    """
    channels, taps = weight.shape
    padded = np.zeros((-(-channels // 2) * 2, -(-taps // 4) * 4), np.int8)
    padded[:channels, :taps] = weight
    # axes: pair, channel, quad, half of a word, word of a quad
    words = padded.reshape(padded.shape[0] // 2, 2, -1, 2, 2).transpose(0, 2, 4, 3, 1)
    return np.ascontiguousarray(words).reshape(-1).view("<i4").astype(np.int32)


def folded_bias(weight: Int8Array, bias: Int32Array, zero_point: int) -> Int32Array:
    """The bias of sums over x instead of x - zero_point; weight (channels, taps).

    It fits int32, as do sums of x * weight: both are within the bound that the graph's builder has checked, since the
    largest distance from any zero point is at least 128. So do their totals, which are the same as without folding.
    """
    folded: Int32Array = (bias - zero_point * weight.astype(np.int64).sum(axis=1)).astype(np.int32)
    return folded


TILE_ROWS = 4
"""Rows that are computed together: TNF_TILE_ROWS of ckernels/include/tinyformer/dsp.h."""


def tile_bytes(taps: int, rows: int) -> int:
    """Scratch for a tile of up to so many rows: each tap of each row as int16, in whole quads; one row is alone."""
    return -(-taps // 4) * 4 * 2 * (1 if rows == 1 else TILE_ROWS)


def tile_layer_params(
    weight: Int8Array, bias: Int32Array, zero_point: int, output: Requantization, groups: int = 1
) -> Params:
    """What the kernels that compute in tiles take of a layer.

    Args:
        weight: int8 (channels, taps).
        bias: int32 (channels).
        zero_point: of the input, folded into the bias.
        output: the last step.
        groups: as many channels in each have weights of their own pairs.
    """
    stage = output.stage(len(weight))
    channel = np.stack([folded_bias(weight, bias, zero_point), stage.multiplier, stage.shift], axis=1)
    return {
        "weight": np.concatenate([dsp_weight(group) for group in np.split(weight, groups)]),
        "channel": channel.astype(np.int32).ravel(),
        **_output_range(output),
        "quick": dsp_quick(output),
    }


SPARSE_ROWS = 8
"""Rows that the sparse kernels compute together: TNF_SPARSE_ROWS of ckernels/include/tinyformer/sparse.h."""


def sparse_layer_params(
    encoded: SparseWeight, weight: Int8Array, bias: Int32Array, zero_point: int, output: Requantization
) -> Params:
    """What the sparse kernels take of a layer.

    Args:
        encoded: the weights.
        weight: the same before encoding, int8 (channels, ...).
        bias: int32 (channels).
        zero_point: of the input, folded into the bias.
        output: the last step.
    """
    stage = dict(channel_stage(output, len(weight)))
    bias = folded_bias(weight.reshape(len(weight), -1), bias, zero_point)
    counts = 256 * encoded.blocks + (stage.pop("shift") & 255)
    return {
        "block": encoded.block,
        "weight": encoded.words,
        "channel": np.stack([bias, stage.pop("multiplier"), counts], axis=1).astype(np.int32).ravel(),
        **stage,
        "quick": dsp_quick(output),
    }


SPARSE_FEW = 3
"""So many rows they compute one at a time instead: TNF_SPARSE_FEW."""


def sparse_single_rows(rows: int) -> int:
    """How many of a layer's rows the sparse kernels compute one at a time."""
    left = rows % SPARSE_ROWS
    return left if left <= SPARSE_FEW else 0


def sparse_work(rows: int, encoded: SparseWeight) -> int:
    """Multiplications of a sparse kernel for so many rows, those that are missing from its last tile as well."""
    single = sparse_single_rows(rows)
    return (-(-(rows - single) // SPARSE_ROWS) * SPARSE_ROWS + single) * encoded.weights


def sparse_tile_bytes(rows: int, taps: int, channels: int, block: int) -> int:
    """Scratch of a sparse kernel: taps of a row as int16, each in whole blocks of channels; the last in quads."""
    tile_rows = SPARSE_ROWS if rows > SPARSE_FEW else 1
    inputs = (taps - 1) * (-(-channels // block) * block) + -(-channels // 4) * 4
    return -(-inputs * 2 * tile_rows // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT


QUICK_SHIFTS = {Rounding.SINGLE: range(-23, -1), Rounding.DOUBLE: range(-23, 0)}
"""Shifts with which the last step is a high product, sums and a shift: tnf_is_quick of
ckernels/include/tinyformer/dsp.h."""


def quick_channels(shifts: NDArray[Any], rounding: int) -> NDArray[np.bool_]:
    """Of each channel's shift whether the quick last step of that rounding (tnf_scaled) serves it."""
    served: NDArray[np.bool_] = np.isin(shifts, QUICK_SHIFTS[Rounding(rounding)])
    return served


def dsp_quick(output: Requantization) -> int:
    """1 where the quick last step of its rounding serves every channel, else 0."""
    return int(quick_channels(output.shift, output.rounding).all())


def quick(output: Requantization) -> int:
    """1 where rounding is single and the quick last step (tnf_quick_requantize) serves every channel, else 0."""
    return int(output.rounding is Rounding.SINGLE) * dsp_quick(output)


def tensor_stage(output: Requantization) -> Params:
    """The last step with one multiplier and shift for the whole tensor."""
    return {"multiplier": int(output.multiplier[0]), "shift": int(output.shift[0]), **_output_range(output)}


def _output_range(output: Requantization) -> Params:
    return {
        "output_zero_point": output.zero_point,
        "act_min": output.act_min,
        "act_max": output.act_max,
        "rounding": int(output.rounding),
    }


def window_params(window: Window, image: Shape, result: Shape) -> Params:
    """Sizes of input and output image (height, width, channels), kernel, stride and padding."""
    return {
        "input_h": image[0],
        "input_w": image[1],
        "output_h": result[0],
        "output_w": result[1],
        "kernel_h": window.kernel[0],
        "kernel_w": window.kernel[1],
        "stride_h": window.stride[0],
        "stride_w": window.stride[1],
        "pad_top": window.padding[0],
        "pad_left": window.padding[1],
    }


def convolution_params(window: Window, image: Shape, result: Shape) -> Params:
    """What `window_params` gives, with channels and dilation."""
    return {
        **window_params(window, image, result),
        "input_c": image[2],
        "output_c": result[2],
        "dilation_h": window.dilation[0],
        "dilation_w": window.dilation[1],
    }


def pooling_params(op: Pooling, image: Shape) -> Params:
    """Every parameter of a pooling kernel."""
    return {
        **window_params(op.window, image, op.output_shape(image)),
        "channels": image[2],
        "act_min": op.act_min,
        "act_max": op.act_max,
    }


def elementwise_params(what: str, a: Shape, b: Shape) -> Params:
    """Lengths and strides of an element-wise operator with broadcasting."""
    result = broadcast_shape(what, a, b)
    dims, a_strides, b_strides = merge_axes(what, result, broadcast_strides(a, result), broadcast_strides(b, result))
    return {"rank": dims.size, "dims": dims, "a_strides": a_strides, "b_strides": b_strides}


def elementwise_in_place(*shapes: Shape) -> tuple[int, ...]:
    """Inputs of an element-wise operator as large as its output: each element is read before it is overwritten."""
    size = math.prod(broadcast_shape("operator", *shapes))
    return tuple(index for index, shape in enumerate(shapes) if math.prod(shape) == size)


def elementwise_dsp_variant(call: KernelCall, *, without: tuple[str, ...] = (), **added: int) -> KernelCall | None:
    """The kernel that goes by rows of elements, see `dsp_variant`; None where broadcasting needs more than two axes."""
    if call.params["rank"] > 2:
        return None
    rows, n = (1, *np.asarray(call.params["dims"]))[-2:]
    walk: dict[str, int] = {"rows": int(rows), "n": int(n)}
    for side in ("a", "b"):
        row, step = (0, *np.asarray(call.params[f"{side}_strides"]))[-2:]
        walk |= {f"{side}_row": int(row), f"{side}_step": int(step or n == 1)}
    return dsp_variant(call, without=("rank", "dims", "a_strides", "b_strides", *without), **walk, **added)


def contiguous_strides(shape: Shape) -> tuple[int, ...]:
    """Elements between neighbours along each axis of a dense tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def broadcast_strides(shape: Shape, result: Shape) -> tuple[int, ...]:
    """Strides with which a tensor is read along the axes of the shape that it broadcasts to; 0 where it repeats."""
    missing = len(result) - len(shape)
    strides = (0,) * missing + contiguous_strides(shape)
    lengths = (1,) * missing + shape
    return tuple(0 if length == 1 else stride for length, stride in zip(lengths, strides, strict=True))


def merge_axes(what: str, dims: Shape, *strides: Sequence[int]) -> tuple[Int32Array, ...]:
    """The same walk over memory with the fewest axes: those of length 1 go, those that continue each other join.

    Args:
        what: the operator, for the error.
        dims: lengths of the axes.
        strides: of each tensor, elements, one for each axis.

    Returns:
        Lengths and strides, int32, at least one axis.

    Raises:
        UnsupportedError: more than `MAX_RANK` axes remain.
    """
    merged: list[tuple[int, ...]] = []  # (length, stride of each tensor)
    for axis in zip(dims, *strides, strict=True):
        if axis[0] == 1:
            continue
        if merged and all(outer == inner * axis[0] for outer, inner in zip(merged[-1][1:], axis[1:], strict=True)):
            merged[-1] = (merged[-1][0] * axis[0], *axis[1:])
        else:
            merged.append(axis)
    check_rank(what, dims, len(merged))
    columns = zip(*(merged or [(1, *(0 for _ in strides))]), strict=True)
    return tuple(int32_array(column) for column in columns)


def check_rank(what: str, shape: Shape, rank: int) -> None:
    """Check the number of axes left after merging.

    Raises:
        UnsupportedError: it is above `MAX_RANK`.
    """
    if rank > MAX_RANK:
        raise UnsupportedError(
            f"{what} over shape {shape} needs {rank} axes after joining contiguous ones; up to {MAX_RANK} are supported"
        )
