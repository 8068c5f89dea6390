"""Every operator's kernel call against the C header, and the joining of axes."""

import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckernels
from codegen import emit
from codegen.emit.base import TILE_ROWS, broadcast_strides, contiguous_strides, dsp_weight, folded_bias, merge_axes
from codegen.emit.requantize import DSP_SCRATCH_BYTES as REQUANTIZE_SCRATCH_BYTES
from codegen.emit.softmax import DSP_SCRATCH_BYTES, SCRATCH_BYTES
from refsim.errors import UnsupportedError
from refsim.numerics import Multiplier, Rounding
from refsim.ops import OPERATORS, Operator, Requantization
from refsim.ops.add import Add
from refsim.ops.attention import Attention
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.softmax import Softmax
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape

ROOT = Path(__file__).parents[2]
INCLUDE = ROOT / "ckernels" / "include"
HEADER = re.sub(r"/\*.*?\*/", " ", (INCLUDE / "tinyformer" / "kernels.h").read_text(), flags=re.DOTALL)
ONE = Requantization.from_real(0.25, 3)
PER_CHANNEL = Requantization.from_real([0.1, 0.2, 0.3, 0.4], -5, -100, 90)
BIAS = np.arange(4, dtype=np.int32)

CASES: list[tuple[Operator, tuple[Shape, ...]]] = [
    (Add(1, 2, Multiplier(2**30, 0), Multiplier(2**30, -1), Requantization.from_real(2.0**-19, 0)), ((3, 4), (4,))),
    (
        Add(1, 2, Multiplier(2**30, 0), Multiplier(2**30, -1), Requantization.from_real(2.0**-19, 0), subtract=True),
        ((3, 4), (3, 4)),
    ),
    (Attention(MatMul(1, 2, ONE), Softmax.from_scale(0.1), MatMul(-128, 3, ONE)), ((2, 5, 4), (2, 4, 7), (2, 7, 4))),
    (AveragePool2D((2, 2), (2, 2)), ((4, 4, 3),)),
    (Concat(1, (None, Requantize(4, Requantization.from_real(0.5, 3)))), ((2, 3), (2, 5))),
    (Conv2D(np.ones((4, 3, 3, 2), np.int8), BIAS, 7, ONE, (2, 1), (1, 1, 1, 1), (1, 2)), ((8, 9, 2),)),
    (DepthwiseConv2D(np.ones((3, 3, 4), np.int8), BIAS, 7, PER_CHANNEL), ((8, 9, 2),)),
    (LayerNorm(np.ones(4, np.int16), BIAS, 2**40 + 2**31, ONE), ((5, 4),)),
    (Linear(np.ones((4, 6), np.int8), BIAS, -3, PER_CHANNEL), ((2, 5, 6),)),
    (Lookup(np.arange(-128, 128).astype(np.int8)), ((3, 3),)),
    (MatMul(1, 2, ONE, transpose_b=True), ((2, 3, 4), (2, 5, 4))),
    (MaxPool2D((2, 2), (2, 2), (1, 0, 1, 0)), ((4, 4, 3),)),
    (Mean(0, 1, 9, ONE), ((4, 5, 6),)),
    (Mul(1, 2, ONE), ((3, 1), (3, 4))),
    (Pad((1, 0, 0), (2, 0, 0), -7), ((4, 5, 6),)),
    (Requantize(1, ONE), ((7,),)),
    (Reshape((6, 4)), ((2, 3, 4),)),
    (Slice((1, 0), (2, 3), (1, 2)), ((4, 6),)),
    (Softmax.from_scale(0.1), ((2, 3, 4),)),
    (Transpose((2, 0, 1)), ((2, 3, 4),)),
    # what kernels for the DSP extension serve, where they leave the above to the portable ones
    (Add(1, 2, Multiplier(2**30, 0), Multiplier(2**30, -1), Requantization.from_real(2.0**-19, 0)), ((3, 4), (3, 4))),
    (DepthwiseConv2D(np.ones((3, 3, 4), np.int8), BIAS, 7, PER_CHANNEL), ((8, 9, 4),)),
    (LayerNorm(np.ones(4, np.int16), BIAS, 2**40, Requantization.from_real(2.0**-10, 3)), ((5, 4),)),
    (Mul(1, 2, Requantization.from_real(2.0**-10, 3)), ((3, 4), (3, 4))),
    (Requantize(1, ONE), ((50, 40),)),
    (Softmax.from_scale(0.1), ((50, 40),)),
    (Attention(MatMul(1, 2, ONE), Softmax.from_scale(0.1), MatMul(-128, 3, ONE)), ((50, 4), (4, 40), (40, 4))),
]


def struct_fields(kernel: str) -> dict[str, str]:
    """Type of each field of a parameter struct by name, in order."""
    aliases = {new: old for old, new in re.findall(r"typedef (\w+_params) (\w+_params);", HEADER)}
    bodies = re.findall(r"typedef struct \{([^}]*)\} (\w+);", HEADER)
    params = f"{kernel}_params"
    (body,) = (body for body, name in bodies if name == aliases.get(params, params))
    fields = {}
    for statement in filter(None, map(str.strip, body.split(";"))):
        kind, names = re.fullmatch(r"((?:const )?\w+) (.*)", statement, re.DOTALL).groups()
        for name in names.split(","):
            fields[name.strip(" *\n")] = kind.removeprefix("const ") + ("*" if "*" in name else "")
    return fields


def test_every_operator_has_a_case() -> None:
    assert {type(op) for op, _ in CASES} == set(OPERATORS.values())


def calls() -> dict[str, tuple[emit.KernelCall, tuple[Shape, ...], Shape]]:
    """A call of every kernel, with the shapes of its inputs and output."""
    return {
        call.kernel: (call, shapes, op.output_shape(*shapes))
        for op, shapes in CASES
        for dsp in (False, True)
        for call in emit.kernel_calls(op, shapes, dsp=dsp)
    }


CALLS = calls()


def test_every_kernel_has_a_call() -> None:
    assert CALLS.keys() == {f"tnf_{name}" for name in ckernels.sources()}


@pytest.mark.parametrize("kernel", CALLS)
def test_parameters_are_exactly_the_struct(kernel: str) -> None:
    call, _, _ = CALLS[kernel]
    fields = struct_fields(call.kernel)
    assert set(call.params) == set(fields)
    for name, value in call.params.items():
        if fields[name] == "int32_t":
            assert type(value) is int, name
            assert -(2**31) <= value < 2**31, name
        else:
            assert isinstance(value, np.ndarray), name
            assert f"{value.dtype.name}_t*" == fields[name], name
            assert value.size > 0, name
    assert call.variadic == (f"{call.kernel}(const {call.kernel}_params *p, const int8_t *const *" in HEADER)
    assert call.scratch_bytes % emit.SCRATCH_ALIGNMENT == 0
    for source in call.sources:
        assert (ROOT / "ckernels" / "src" / f"{source}.c").is_file()


@pytest.mark.parametrize("kernel", CALLS)
def test_in_place_is_what_the_header_says(kernel: str) -> None:
    call, shapes, output = CALLS[kernel]
    text = (INCLUDE / "tinyformer" / "kernels.h").read_text()
    end = re.search(rf"\b{kernel}_params;", text).start()
    comment = text[text.rindex("/*", 0, end) : end].replace("\n *", "")
    same = tuple(i for i, shape in enumerate(shapes) if math.prod(shape) == math.prod(output))
    assert call.in_place == (same if "In place" in comment else ())
    assert call.view == (kernel == "tnf_reshape")


def test_limits_are_the_headers(tmp_path: Path) -> None:
    macros = re.findall(r"TNF_\w+_SCRATCH_BYTES", HEADER)
    assert macros == [f"TNF_{name}_SCRATCH_BYTES" for name in ("REQUANTIZE_DSP", "SOFTMAX", "SOFTMAX_DSP")]
    source = tmp_path / "limits.c"
    source.write_text(
        '#include "tinyformer/kernels.h"\n'
        f"typedef char same_rank[TNF_MAX_RANK == {emit.MAX_RANK} ? 1 : -1];\n"
        f"typedef char same_scratch[TNF_SOFTMAX_SCRATCH_BYTES == {SCRATCH_BYTES} ? 1 : -1];\n"
        f"typedef char same_dsp_scratch[TNF_SOFTMAX_DSP_SCRATCH_BYTES == {DSP_SCRATCH_BYTES} ? 1 : -1];\n"
        f"typedef char same_table[TNF_REQUANTIZE_DSP_SCRATCH_BYTES == {REQUANTIZE_SCRATCH_BYTES} ? 1 : -1];\n"
    )
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-std=c99",
        "-c",
        f"-I{INCLUDE}",
        str(source),
        "-o",
        str(tmp_path / "limits.o"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rows_of_a_tile_are_the_headers() -> None:
    assert f"#define TNF_TILE_ROWS {TILE_ROWS}\n" in (INCLUDE / "tinyformer" / "dsp.h").read_text()


@pytest.mark.parametrize(("channels", "taps"), [(1, 1), (2, 4), (3, 7), (4, 8)])
def test_dsp_weights_hold_taps_of_two_channels_side_by_side(channels: int, taps: int) -> None:
    weight = np.arange(1, channels * taps + 1, dtype=np.int8).reshape(channels, taps)
    pairs, quads = -(-channels // 2), -(-taps // 4)
    packed = dsp_weight(weight).view(np.uint8).reshape(pairs, quads, 2, 2, 2)
    for pair, quad, word, half, channel in np.ndindex(packed.shape):
        at = (2 * pair + channel, 4 * quad + 2 * half + word)
        inside = at[0] < channels and at[1] < taps
        assert packed[pair, quad, word, half, channel] == (weight[at] if inside else 0)


def test_the_folded_bias_takes_the_place_of_the_zero_point() -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.integers(-128, 128, (3, 9), np.int8), rng.integers(-128, 128, 9, np.int8)
    bias = np.array([5, -2000, 77], np.int32)
    expected = bias + weight.astype(np.int64) @ (x.astype(np.int64) + 128)
    np.testing.assert_array_equal(folded_bias(weight, bias, -128) + weight.astype(np.int64) @ x, expected)


def test_a_convolution_that_mixes_no_positions_is_linear() -> None:
    weight = np.ones((4, 1, 1, 2), np.int8)
    assert emit.kernel_call(Conv2D(weight, BIAS, 7, ONE), ((8, 9, 2),), dsp=True).params["rows"] == 72
    for op in (Conv2D(weight, BIAS, 7, ONE, (2, 1)), Conv2D(weight, BIAS, 7, ONE, padding=(0, 0, 0, 1))):
        assert emit.kernel_call(op, ((8, 9, 2),), dsp=True).kernel == "tnf_conv2d_dsp"


def test_what_the_dsp_kernels_leave_to_the_portable_ones() -> None:
    assert emit.kernel_call(MatMul(1, 2, ONE), ((2, 9), (9, 5)), dsp=True).kernel == "tnf_matmul"
    assert emit.kernel_call(Mean(0, 0, 9, ONE), ((4, 3),), dsp=True).kernel == "tnf_mean"
    assert emit.kernel_call(Mean(0, 0, 9, ONE), ((4,),), dsp=True).kernel == "tnf_mean_dsp"


def test_elementwise_operators_go_by_rows() -> None:
    def walk(a: Shape, b: Shape) -> list[int]:
        params = emit.kernel_call(Mul(1, 2, Requantization.from_real(2.0**-10, 3)), (a, b), dsp=True).params
        return [params[name] for name in ("rows", "n", "a_row", "a_step", "b_row", "b_step")]

    assert walk((3, 4, 5), (3, 4, 5)) == [1, 60, 0, 1, 0, 1]
    assert walk((3, 4, 5), (5,)) == [12, 5, 5, 1, 0, 1]
    assert walk((1, 1), (3, 4)) == [1, 12, 0, 0, 0, 1]
    assert walk((3, 1), (4,)) == [3, 4, 1, 0, 0, 1]
    middle = emit.kernel_call(Mul(1, 2, Requantization.from_real(2.0**-10, 3)), ((3, 4, 5), (3, 1, 5)), dsp=True)
    assert middle.kernel == "tnf_mul"


def test_an_add_is_quick_where_its_roundings_are() -> None:
    def kernel(fine: Multiplier, rounding: Rounding, shift: int = -10) -> str:
        output = Requantization(np.array([2**30], np.int32), np.array([shift], np.int32), 0, rounding=rounding)
        return emit.kernel_call(Add(1, 2, Multiplier(2**30, 0), fine, output), ((5,), (5,)), dsp=True).kernel

    for fine in (Multiplier(2**30, 0), Multiplier(2**31 - 1, -1), Multiplier(2**30 + 5, -20)):
        assert kernel(fine, Rounding.SINGLE) == kernel(fine, Rounding.DOUBLE) == "tnf_add_dsp"
    assert kernel(Multiplier(2**30 + 1, 0), Rounding.DOUBLE) == kernel(Multiplier(0, 0), Rounding.DOUBLE) == "tnf_add"
    assert kernel(Multiplier(2**30, -25), Rounding.SINGLE) == "tnf_add"
    assert kernel(Multiplier(2**30, -25), Rounding.DOUBLE) == "tnf_add_dsp"
    assert kernel(Multiplier(2**30, -1), Rounding.SINGLE, shift=-1) == "tnf_add"


def test_groups_have_pairs_of_channels_of_their_own() -> None:
    weight = np.arange(1, 13, dtype=np.int8).reshape(6, 1, 1, 2)
    op = Conv2D(weight, np.zeros(6, np.int32), 7, ONE, groups=2)
    call = emit.kernel_call(op, ((8, 9, 4),), dsp=True)
    assert call.kernel == "tnf_conv2d_dsp"
    np.testing.assert_array_equal(
        call.params["weight"].view(np.int8).reshape(2, 2, 8)[:, :, [0, 1, 4, 5]],
        [[[1, 3, 2, 4], [5, 0, 6, 0]], [[7, 9, 8, 10], [11, 0, 12, 0]]],
    )


@pytest.mark.parametrize(("rounding", "served"), [(Rounding.SINGLE, range(-23, -1)), (Rounding.DOUBLE, range(-23, 0))])
def test_the_quick_last_step_is_for_shifts_of_its_rounding(rounding: Rounding, served: range) -> None:
    for shift in range(-31, 10):
        stage = Requantization(np.array([2**30], np.int32), np.array([shift], np.int32), 0, rounding=rounding)
        op = Linear(np.ones((4, 6), np.int8), BIAS, 0, stage)
        assert emit.kernel_call(op, ((6,),), dsp=True).params["quick"] == (shift in served)


def test_scratch_of_one_row_is_a_quarter_of_a_tile() -> None:
    op = Linear(np.ones((4, 6), np.int8), BIAS, -3, PER_CHANNEL)
    scratch = [emit.kernel_call(op, ((rows, 6),), dsp=True).scratch_bytes for rows in (1, 2, 50)]
    assert scratch == [16, 64, 64]


def test_a_convolution_puts_rows_together_first_where_channels_do_not_come_in_fours() -> None:
    scratch = {
        channels: emit.kernel_call(
            Conv2D(np.ones((4, 3, 3, channels), np.int8), BIAS, 7, ONE), ((5, 6, channels),), dsp=True
        ).scratch_bytes
        for channels in (3, 4)
    }
    assert scratch == {3: 28 * 8 + 32, 4: 36 * 8}


def test_matmul_rearranges_few_columns_of_long_rows_at_a_time() -> None:
    columns = {
        k: emit.kernel_call(MatMul(1, 2, ONE), ((9, k), (k, 101)), dsp=True).params["columns"] for k in (4, 256, 9999)
    }
    assert columns == {4: 102, 256: 16, 9999: 8}


def test_layernorm_epsilon_is_split_into_words() -> None:
    params = emit.kernel_call(LayerNorm(np.ones(4, np.int16), BIAS, 2**40 + 2**31, ONE), ((5, 4),)).params
    assert (params["epsilon_high"], params["epsilon_low"]) == (2**8, -(2**31))


def test_numpy_integers_become_plain_ones() -> None:
    params = emit.kernel_call(Pad((np.int64(1),), (np.int64(0),), np.int8(-3)), ((np.int64(4),),)).params
    assert type(params["value"]) is int
    assert params["value"] == -3


def test_one_multiplier_repeats_for_every_channel() -> None:
    params = emit.kernel_call(Linear(np.ones((4, 6), np.int8), BIAS, 0, ONE), ((6,),)).params
    assert params["rows"] == 1
    np.testing.assert_array_equal(params["multiplier"], np.full(4, ONE.multiplier[0]))


def test_pad_joins_axes_without_padding() -> None:
    params = emit.kernel_call(Pad((1, 0, 0), (2, 0, 0), 0), ((4, 5, 6),)).params
    assert (params["rank"], *params["input_dims"], *params["output_dims"], *params["before"]) == (1, 120, 210, 30)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), max_size=4).map(tuple),
    kept=st.lists(st.booleans(), min_size=4, max_size=4),
    data=st.data(),
)
def test_joined_axes_walk_the_same_addresses(shape: Shape, kept: list[bool], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    permuted = tuple(shape[axis] for axis in order)
    transposed = tuple(contiguous_strides(shape)[axis] for axis in order)
    narrow = tuple(n if keep else 1 for n, keep in zip(permuted, kept, strict=False))
    narrow = narrow[data.draw(st.integers(0, len(narrow))) :]
    strides = (transposed, broadcast_strides(narrow, permuted))
    dims, *joined = merge_axes("walk", permuted, *strides)
    assert dims.size >= 1
    for before, after in zip(strides, joined, strict=True):
        expected = [sum(map(math.prod, zip(i, before, strict=True))) for i in itertools.product(*map(range, permuted))]
        found = [sum(map(math.prod, zip(i, after, strict=True))) for i in itertools.product(*map(range, dims))]
        assert found == expected


def test_too_many_axes_are_refused() -> None:
    shape = (2,) * 8
    assert emit.kernel_call(Transpose((0, 1, 2, 3, 4, 5, 7, 6)), (shape,)).params["rank"] == 3
    with pytest.raises(UnsupportedError, match=r"transpose .* needs 8 axes .* up to 6"):
        emit.kernel_call(Transpose((7, 6, 5, 4, 3, 2, 1, 0)), (shape,))
    with pytest.raises(UnsupportedError, match="pad"):
        emit.kernel_call(Pad((1,) * 8, (0,) * 8, 0), (shape,))
