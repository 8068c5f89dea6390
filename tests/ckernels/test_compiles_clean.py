"""Every kernel compiles without a warning, with every compiler and for every core, and needs only the headers."""

import re

import pytest

import ckernels
from tests.ckernels.compilers import CROSS, HOST, STRICT

OPERATORS = (
    *("conv2d", "depthwise_conv2d", "linear", "matmul", "add", "mul", "requantize", "lookup", "softmax", "layernorm"),
    *("max_pool2d", "average_pool2d", "mean", "reshape", "transpose", "slice", "pad", "concat"),
    "attention",
)


@pytest.mark.parametrize("compiler", HOST + CROSS, ids=lambda compiler: compiler.name)
def test_kernels_compile_without_warnings(compiler, tmp_path):
    # One unit that includes all sources would hide a source that leans on another: each is compiled alone.
    for source in ckernels.sources().values():
        compiler.run(*STRICT, "-O2", "-c", source, "-o", tmp_path / "kernel.o")


@pytest.mark.parametrize("compiler", HOST, ids=lambda compiler: compiler.name)
def test_kernels_compile_without_builtins_and_without_optimisation(compiler, tmp_path):
    for source in ckernels.sources().values():
        compiler.run(*STRICT, "-O0", "-DTNF_NO_BUILTINS", "-c", source, "-o", tmp_path / "kernel.o")


def test_the_check_would_notice_a_warning(tmp_path):
    bad = tmp_path / "bad.c"
    bad.write_text("#include <stdint.h>\nint8_t f(int32_t v);\nint8_t f(int32_t v) { return v; }\n")
    for compiler in HOST:
        if compiler.command is not None:
            with pytest.raises(AssertionError, match="conversion"):
                compiler.run(*STRICT, "-c", bad, "-o", tmp_path / "bad.o")


def test_there_is_one_source_for_each_operator():
    assert {name.removesuffix("_dsp").removesuffix("_sparse") for name in ckernels.sources()} == set(OPERATORS)
    for name, path in ckernels.sources().items():
        assert f"void tnf_{name}(" in path.read_text()


def test_an_unknown_operator_is_refused_with_those_there_are():
    with pytest.raises(KeyError, match=r"'conv3d'.*conv2d"):
        ckernels.source("conv3d")


def test_sources_include_the_headers_and_nothing_else():
    offered = {path.relative_to(ckernels.include_dir()).as_posix() for path in ckernels.headers()} | {"stdint.h"}
    for path in [*ckernels.sources().values(), *ckernels.headers()]:
        assert set(re.findall(r'#include [<"](.*)[>"]', path.read_text())) <= offered, path
