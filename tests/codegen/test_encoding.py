"""The encoding of sparse weights, and models generated with it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refsim
from codegen.choose import Optimise
from codegen.emit import kernel_calls
from codegen.emit.base import SPARSE_FEW, SPARSE_ROWS
from codegen.encoding import BLOCKS, WIDTH_BLOCK, decode, encode
from codegen.generate import generate
from codegen.target import load_target
from refsim.numerics import Int8Array
from refsim.ops import Requantization
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.linear import Linear
from tests.codegen.graphs import Builder
from tests.codegen.test_generate import run_traced

ROOT = Path(__file__).parents[2]


def random_weight(shape: tuple[int, int, int], block: int, sparsity: float, seed: int = 0) -> Int8Array:
    """Weights of which that part of the blocks, at random, is zero; the others have no zeros."""
    random = np.random.default_rng(seed)
    rows, taps, channels = shape
    kept = np.ones(rows * taps * channels // block, bool)
    kept[: round(sparsity * kept.size)] = False
    weight = random.integers(1, 128, (kept.size, block)) * random.choice([-1, 1], (kept.size, block))
    return (weight * random.permutation(kept)[:, np.newaxis]).reshape(shape).astype(np.int8)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.sampled_from((1, 2, 3, 4, 5, 8, 19, 700))),
    block=st.sampled_from((*BLOCKS, WIDTH_BLOCK)),
    zeros=st.sampled_from((0.0, 0.3, 0.9, 0.999, 1.0)),
    run=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_decoding_gives_the_weights_back(
    shape: tuple[int, int, int], block: int, zeros: float, run: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kept = np.repeat(random.random((*shape[:2], -(-shape[2] // run))) >= zeros, run, axis=2)[..., : shape[2]]
    weight = (random.integers(-128, 128, shape) * kept).astype(np.int8)
    encoded = encode(weight, block)
    np.testing.assert_array_equal(decode(encoded, shape), weight)


def stream(row: list[int], block: int) -> str:
    return encode(np.array(row, np.int8).reshape(1, 1, -1), block).words.astype("<i4").tobytes().hex(" ", -4)


def test_the_worked_example_is_what_is_stored() -> None:
    row = [0, 0, 0, 0, 1, -2, 3, -4, *[0] * 8, 0, 5, 0, 0, 7, 7, 7, 7]
    assert stream(row, 4) == "01fe03fc 00050000 07070707 00010301"
    assert stream(row, 2) == "000100fe 00000002 0300fc05 07070707 01050201"
    assert stream(row, 1) == "00000001 00000004 fe03fc05 0101010a 07070707 03010101"
    kernel = np.array([[[1, -2, 3], [0, 0, 0], [0, 5, -6]]], np.int8)
    along = encode(kernel, WIDTH_BLOCK).words.astype("<i4").tobytes().hex(" ", -4)
    assert along == "01fe0300 0005fa02"
    text = (ROOT / "docs" / "encoding.md").read_text().replace(" ", "")
    for word in f"{stream(row, 4)} {stream(row, 2)} {along}".split():
        assert f"`{word}`" in text


def test_zero_blocks_bridge_long_distances() -> None:
    weight = np.zeros((1, 1, 4 * 600), np.int8)
    weight[0, 0, [4 * 255, 4 * 511]] = 1
    encoded = encode(weight, 4)
    assert encoded.blocks.tolist() == [3]  # at 255, 510 and 511
    assert encoded.words[-1:].view(np.uint8).tolist() == [0, 255, 255, 1]
    np.testing.assert_array_equal(decode(encoded, weight.shape), weight)


def test_a_layer_of_zeros_has_no_blocks() -> None:
    encoded = encode(np.zeros((3, 2, 5), np.int8), 2)
    assert encoded.blocks.tolist() == [0, 0, 0]
    assert encoded.weights == 0
    assert not decode(encoded, (3, 2, 5)).any()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("shape", [(384, 1, 192), (192, 9, 192)], ids=["linear", "conv"])
def test_size_is_that_of_the_papers_equation_5(shape: tuple[int, int, int], sparsity: float, block: int) -> None:
    weight = random_weight(shape, block, sparsity)
    ratio = 1 / ((1 - sparsity) * (1 + 1 / block))
    expected = weight.size / ratio
    encoded = encode(weight, block)
    assert expected * 0.99 <= encoded.words.nbytes <= expected * 1.01 + 6 * shape[0]
    assert encoded.weights == np.count_nonzero(weight)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (5, 5), (2, 7)])
def test_blocks_along_the_width_take_a_word_each(kernel: tuple[int, int]) -> None:
    random = np.random.default_rng(4)
    across = -(-kernel[1] // WIDTH_BLOCK)
    kept = random.random((40, kernel[0], across)) < 0.5
    weight = (random.integers(1, 128, (40, *kernel)) * kept.repeat(WIDTH_BLOCK, axis=2)[..., : kernel[1]]).astype(
        np.int8
    )
    encoded = encode(weight, WIDTH_BLOCK)
    assert encoded.words.nbytes == 4 * np.count_nonzero(kept)
    np.testing.assert_array_equal(decode(encoded, weight.shape), weight)


def depthwise(sparsity: float, *, dilation: int = 1) -> DepthwiseConv2D:
    weight = random_weight((48, 3, 3), WIDTH_BLOCK, sparsity).transpose(1, 2, 0)
    last = Requantization.from_real(0.001, 0)
    return DepthwiseConv2D(weight, np.zeros(48, np.int32), 0, last, padding=(1, 1, 1, 1), dilation=(dilation, dilation))


@pytest.mark.parametrize("dsp", [False, True])
def test_depthwise_convolutions_become_smaller(dsp: bool) -> None:
    dense, sparse = kernel_calls(depthwise(0.6), ((8, 8, 48),), dsp=dsp)
    assert (sparse.kernel, sparse.sparse_block) == ("tnf_depthwise_conv2d_sparse", WIDTH_BLOCK)
    assert sparse.constant_bytes < dense.constant_bytes
    assert len(kernel_calls(depthwise(0.6, dilation=2), ((8, 8, 48),), dsp=dsp)) == 1


def linear(sparsity: float, block: int = 4) -> Linear:
    weight = random_weight((96, 1, 128), block, sparsity)[:, 0]
    return Linear(weight, np.zeros(96, np.int32), 0, Requantization.from_real(0.001, 0))


def test_missing_rows_of_a_tile_are_work_too() -> None:
    op = linear(0.5)
    _, sparse, *_ = kernel_calls(op, ((8 + SPARSE_FEW + 1, 128),))
    assert sparse.work == 2 * SPARSE_ROWS * np.count_nonzero(op.weight)


def test_few_rows_are_computed_one_at_a_time() -> None:
    op = linear(0.5)
    for rows in (1, SPARSE_FEW, SPARSE_ROWS + 1):
        _, sparse, *_ = kernel_calls(op, ((rows, 128),))
        assert sparse.work == rows * np.count_nonzero(op.weight)
        assert sparse.scratch_bytes == 2 * 128 * (1 if rows <= SPARSE_FEW else SPARSE_ROWS)


def test_convolutions_in_groups_have_no_sparse_kernel() -> None:
    op = Conv2D(np.zeros((4, 3, 3, 8), np.int8), np.zeros(4, np.int32), 0, Requantization.from_real(0.1, 0), groups=2)
    assert len(kernel_calls(op, ((8, 8, 16),), dsp=True)) == 1


@pytest.mark.parametrize("optimise", Optimise)
def test_a_generated_model_equals_the_golden_one(optimise: Optimise, tmp_path: Path) -> None:
    b = Builder("sparse")
    last = Requantization.from_real(0.001, -3)
    kernel = random_weight((24, 9, 16), 2, 0.7).reshape(24, 3, 3, 16)
    conv = Conv2D(kernel, np.zeros(24, np.int32), -3, last, padding=(1, 1, 1, 1))
    tokens = b.add("conv", conv, b.input("image", (5, 5, 16)))
    head = Linear(random_weight((20, 1, 24), 4, 0.5)[:, 0], np.zeros(20, np.int32), -3, last)
    graph = b.graph(b.add("head", head, tokens))
    model = generate(graph, load_target("stm32f746"), tmp_path / "out", optimise=optimise)
    readme = (model.folder / "README.md").read_text()
    assert "| conv | conv2d | 5x5x24 | sparse, blocks of 2 |" in readme
    assert "| head | linear | 5x5x20 | sparse, blocks of 4 |" in readme
    image = np.random.default_rng(3).integers(-128, 128, (4, 5, 5, 16)).astype(np.int8)
    expected = refsim.run(graph, image, trace=True)
    for name, tensor in run_traced(model, tmp_path, {"image": image}).items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
