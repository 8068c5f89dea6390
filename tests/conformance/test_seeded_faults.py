"""Deliberately wrong kernels: the suite must notice each, shrink it and save a case that shows it again."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import ckernels
from codegen.target import load_target
from conformance import vectors
from conformance.places import CortexMPlace, HostPlace, Library, Place
from conformance.suite import Outcome, compare, run_operator

CASES, SEED = 200, 0  # those of the ci profile


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in a source or, where it is a primitive, in the header; a case of `elements` shows it."""

    name: str
    operator: str
    old: str
    new: str
    file: str = ""
    elements: int = 64

    @property
    def path(self) -> str:
        return self.file or f"src/{self.operator}.c"


NUMERICS = "include/tinyformer/numerics.h"
FAULTS = (
    Fault(
        "softmax rounds down",
        "softmax",
        "tnf_rdbpot_unsigned((uint32_t)probability, right)",
        "(int32_t)((uint32_t)probability >> right)",
    ),
    Fault("softmax keeps a stale maximum", "softmax", "int32_t max = x[0];", "int32_t max = row ? x[-1] : x[0];"),
    Fault("double rounding breaks ties upwards", "requantize", "(mask >> 1) + (v < 0)", "(mask >> 1)", NUMERICS),
    Fault(
        "single rounding loses its constant",
        "requantize",
        "((int64_t)v * multiplier + ((int64_t)1 << (30 - shift))) >> (31 - shift)",
        "((int64_t)v * multiplier) >> (31 - shift)",
        NUMERICS,
    ),
    Fault("the clamp ignores act_max", "requantize", "(v > hi ? hi : v)", "(v > 127 ? 127 : v)", NUMERICS),
    Fault(
        "layernorm wraps instead of saturating",
        "layernorm",
        "tnf_sat16(tnf_multiply_high(deviation, scale.reciprocal, scale.right))",
        "(int16_t)tnf_multiply_high(deviation, scale.reciprocal, scale.right)",
    ),
    Fault(
        "layernorm drops epsilon's high word", "layernorm", "(uint64_t)(uint32_t)epsilon_high << 32 | ", "", NUMERICS
    ),
    Fault(
        "conv2d pads one row too many", "conv2d", "oh * p->stride_h - p->pad_top", "oh * p->stride_h - p->pad_top - 1"
    ),
    Fault("conv2d slips in the third group", "conv2d", "x += win->group_in;", "x += win->group_in - (p->groups > 2);"),
    Fault(
        "depthwise ignores the dilation of rows",
        "depthwise_conv2d",
        "tnf_window_end(top, p->dilation_h, p->kernel_h, p->input_h)",
        "tnf_window_end(top, 1, p->kernel_h, p->input_h)",
    ),
    Fault(
        "matmul ignores b's zero point",
        "matmul",
        "p->b_zero_point == 0 ? 0 : p->b_zero_point * row_sum",
        "0 * row_sum",
    ),
    Fault(
        "add shifts by 19", "add", "const int32_t unit = (int32_t)1 << 20;", "const int32_t unit = (int32_t)1 << 19;"
    ),
    Fault("mul ignores b's stride", "mul", "b_at += b_stride;", "b_at += 1;"),
    Fault(
        "average pool rounds ties towards zero",
        "average_pool2d",
        "magnitude + ((uint32_t)count >> 1)",
        "magnitude + ((uint32_t)(count - 1) >> 1)",
    ),
    Fault("max pool starts at zero", "max_pool2d", "m0 = -128, m1 = -128", "m0 = 0, m1 = -128"),
    Fault("mean takes bytes for unsigned", "mean", "sum += x[at];", "sum += (uint8_t)x[at];"),
    Fault(
        "concat requantises its first input only", "concat", "if (p->rescale[k]) {", "if (p->rescale[k] && k == 0) {"
    ),
    Fault(
        "linear skips the last input",
        "linear",
        "tnf_dot(p->bias[o], x, w, n, p->input_zero_point)",
        "tnf_dot(p->bias[o], x, w, n - 1, p->input_zero_point)",
    ),
    Fault("lookup is off by one", "lookup", "p->table + 128;", "p->table + 127;"),
    Fault("pad writes one byte too many", "pad", "for (; i < n; i++)", "for (; i <= n; i++)"),
    Fault("slice ignores its step", "slice", "row[i * stride]", "row[i]"),
    Fault("transpose confuses stride and length", "transpose", "at += stride;", "at += n;"),
    Fault(
        "sparse channels begin too late",
        "linear",
        "walk->stream += block + 1 - absent;",
        "walk->stream += block + 1;",
        "include/tinyformer/sparse.h",
        elements=300,  # rows of 67, the first found, are not left by shrinking
    ),
    Fault(
        "sparse windows are padded with 0",
        "conv2d",
        "tnf_sparse_pad(to, p->input_zero_point,",
        "tnf_sparse_pad(to, 0,",
        "src/conv2d_sparse.c",
    ),
    Fault(
        "sparse depthwise rows end too late",
        "depthwise_conv2d",
        "column >= across; column -= across",
        "column > across; column -= across",
        "src/depthwise_conv2d_sparse.c",
    ),
    Fault(
        "a row alone begins with the wrong block",
        "linear",
        "int32_t slot = -blocks & 3, at = 0;",
        "int32_t slot = 0, at = 0;",
        "include/tinyformer/sparse.h",
    ),
    Fault(
        "windows above the image are padded with 0",
        "conv2d",
        "put_outside(&to, p->input_zero_point, p->kernel_w * channels);",
        "put_outside(&to, 0, p->kernel_w * channels);",
        "src/conv2d_dsp.c",
    ),
    Fault(
        "a tile of one row keeps the rest of four",
        "linear",
        "const int32_t tile_rows = rows == 1 ? 1 : TNF_TILE_ROWS;",
        "const int32_t tile_rows = TNF_TILE_ROWS;",
        "src/linear_dsp.c",
    ),
    Fault(
        "the quotient is not rounded",
        "softmax",
        "((uint32_t)1 << (right - 1))) >> right;",
        "0u) >> right;",
        "src/softmax_dsp.c",
        elements=600,  # smaller ones run by the portable kernel
    ),
    Fault(
        "matmul corrects by the wrong zero point",
        "matmul",
        "corrections[0] = zero_point * s0;",
        "corrections[0] = (zero_point - 1) * s0;",
        "src/matmul_dsp.c",
    ),
    Fault(
        "the quick last step breaks ties upwards",
        "linear",
        "tnf_qadd(product + (product >> 31), scale.offset)",
        "tnf_qadd(product, scale.offset)",
        "include/tinyformer/dsp.h",
    ),
    Fault(
        "one quick channel makes its neighbour quick",
        "conv2d",
        "&& tnf_is_quick(channel[5], layer->rounding)",
        "",
        "include/tinyformer/dsp.h",
    ),
    Fault(
        "the second group meets the channels of the first",
        "conv2d",
        "from += channels;",
        "from += 0;",
        "src/conv2d_dsp.c",
    ),
    Fault(
        "add halves one of two inputs of equal scales",
        "add",
        "t.right = halved ? 1 :",
        "t.right = halved ? 2 :",
        "src/add_dsp.c",
    ),
    Fault(
        "mul takes a row for a repeated element",
        "mul",
        "walk.b_step == 0 ? same : b + first",
        "b + first",
        "include/tinyformer/dsp.h",
    ),
    Fault(
        "a tile's first row keeps what the clamp forbids",
        "linear",
        "for (row = 0; row < TNF_TILE_ROWS; row++) {\n                    tnf_clamp_bytes",
        "for (row = 1; row < TNF_TILE_ROWS; row++) {\n                    tnf_clamp_bytes",
        "include/tinyformer/dsp.h",
    ),
    Fault("mean forgets its last columns", "mean", "? c : inner - 4;", "? c : 0;", "src/mean_dsp.c"),
)
EMULATED = ("softmax rounds down", "mean takes bytes for unsigned", "pad writes one byte too many")
EMULATED_DSP = ("windows above the image are padded with 0", "matmul corrects by the wrong zero point")


def patched(fault: Fault | None, operator: str, folder: Path) -> Library:
    """A copy of the kernel library with the fault in it."""
    copy = folder / "ckernels"
    shutil.copytree(ckernels.include_dir(), copy / "include")
    (copy / "src").mkdir()
    used = (operator, "linear") if operator == "conv2d" else (operator,)  # a convolution of single positions is linear
    names = [
        f"{name}{kind}" for name in used for kind in ("", "_dsp", "_sparse") if f"{name}{kind}" in ckernels.sources()
    ]
    for name in names:
        shutil.copy(ckernels.source(name), copy / "src")
    if fault is not None:
        text = (copy / fault.path).read_text()
        assert text.count(fault.old) == 1, f"{fault.path} has {text.count(fault.old)} times: {fault.old}"
        (copy / fault.path).write_text(text.replace(fault.old, fault.new))
    return Library(tuple(copy / "src" / f"{name}.c" for name in names), copy / "include")


def on_host(library: Library) -> Place:
    return HostPlace("host", library)


def on_cortex_m(library: Library) -> Place:
    return CortexMPlace("cortex-m0plus", library, load_target("rp2040"))  # which runs the portable kernels


def on_cortex_m_with_dsp(library: Library) -> Place:
    return CortexMPlace("cortex-m4", library, load_target("stm32f407"))


def run(operator: str, library: Library, open_place: Callable[[Library], Place], folder: Path) -> Outcome:
    place = open_place(library)
    try:
        (outcome,) = run_operator(operator, [place], count=CASES, seed=SEED, failures=folder)
    finally:
        place.close()
    return outcome


def expect_found(fault: Fault, open_place: Callable[[Library], Place], folder: Path) -> None:
    library = patched(fault, fault.operator, folder)
    outcome = run(fault.operator, library, open_place, folder / "failures")
    assert outcome.mismatches > 0
    assert outcome.message
    assert outcome.vector is not None
    vector = vectors.load(outcome.vector)
    assert vector.case.op.name == fault.operator
    assert sum(x.size for x in vector.case.inputs) <= fault.elements, "the case was not shrunk"
    golden = vector.case.op.run(*vector.case.inputs)[0]
    assert (golden == vector.golden).all()
    for wrong, chosen in ((True, library), (False, Library())):
        place = open_place(chosen)
        assert (compare(vector.case, golden, place) is not None) is wrong
        place.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_on_the_host(fault: Fault, tmp_path: Path) -> None:
    expect_found(fault, on_host, tmp_path)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.name in EMULATED], ids=lambda fault: fault.name)
def test_a_fault_is_found_under_emulation(fault: Fault, tmp_path: Path) -> None:
    expect_found(fault, on_cortex_m, tmp_path)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.name in EMULATED_DSP], ids=lambda fault: fault.name)
def test_a_fault_is_found_under_emulation_of_the_dsp_extension(fault: Fault, tmp_path: Path) -> None:
    expect_found(fault, on_cortex_m_with_dsp, tmp_path)


@pytest.mark.parametrize("operator", sorted({fault.operator for fault in FAULTS}))
def test_the_unpatched_copy_passes(operator: str, tmp_path: Path) -> None:
    outcome = run(operator, patched(None, operator, tmp_path), on_host, tmp_path / "failures")
    assert (outcome.cases, outcome.mismatches, outcome.vector) == (CASES, 0, None)
    assert not (tmp_path / "failures").exists()
