"""The layers compute what their definitions say."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from nas.blocks import ConvBN, EncoderBlock, InvertedResidual, SelfAttention, SeqPool, ToTokens
from nas.models import TinyFormer, TinyFormerConfig
from refsim.errors import ShapeError


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_example_network() -> None:
    model = TinyFormer().eval()
    assert model(torch.zeros(3, 3, 32, 32)).shape == (3, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 55_403


def test_dimensions_follow_the_configuration() -> None:
    config = TinyFormerConfig(
        image_size=16, classes=4, stem_channels=4, dim=12, heads=3, hidden=20, encoders=("gelu", "relu", "relu")
    )
    model = TinyFormer(config).eval()
    assert config.input_shape == (3, 16, 16)
    assert model(torch.zeros(2, *config.input_shape)).shape == (2, 4)
    assert [type(encoder.act).__name__ for encoder in model.encoders] == ["GELU", "ReLU", "ReLU"]


@pytest.mark.parametrize(("kernel", "stride", "size"), [(1, 1, 7), (3, 1, 7), (3, 2, 7), (3, 2, 8), (5, 2, 8)])
def test_convolution_keeps_or_halves_the_size(kernel: int, stride: int, size: int) -> None:
    layer = ConvBN(3, 5, kernel=kernel, stride=stride).eval()
    out = layer(torch.randn(2, 3, size, size) * 10)
    assert out.shape == (2, 5, -(-size // stride), -(-size // stride))
    assert out.min() == 0
    assert out.max() == 6
    assert ConvBN(3, 5, activate=False).eval()(torch.randn(2, 3, size, size)).min() < 0


@pytest.mark.parametrize(("outputs", "stride", "residual"), [(4, 1, True), (6, 1, False), (4, 2, False)])
def test_inverted_residual(outputs: int, stride: int, residual: bool) -> None:
    block = InvertedResidual(4, outputs, stride=stride, expansion=3).eval()
    x = torch.randn(2, 4, 8, 8)
    y = block.project(block.depthwise(block.expand(x)))
    assert y.shape == (2, outputs, 8 // stride, 8 // stride)
    assert block.depthwise.conv.groups == 12
    torch.testing.assert_close(block(x), x + y if residual else y)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_is_the_textbook_formula(heads: int) -> None:
    attention = SelfAttention(12, heads)
    x = torch.randn(2, 5, 12)
    query, key, value = (layer(x) for layer in (attention.query, attention.key, attention.value))
    size = 12 // heads
    context = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for image in range(2):
            scores = query[image, :, part] @ key[image, :, part].T / size**0.5
            weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            context[image, :, part] = weights @ value[image, :, part]
    torch.testing.assert_close(attention(x), attention.out(context))


def test_heads_must_divide_the_dimension() -> None:
    with pytest.raises(ShapeError, match="dimension 10 is not a multiple of the number of heads, 3"):
        SelfAttention(10, 3)


def test_encoder_is_pre_norm() -> None:
    block = EncoderBlock(8, heads=2, hidden=6, activation="gelu")
    x = torch.randn(2, 5, 8)
    y = x + block.attention(block.norm1(x))
    torch.testing.assert_close(block(x), y + block.fc2(torch.nn.functional.gelu(block.fc1(block.norm2(y)))))


def test_sequence_pooling_is_the_weighted_sum_of_tokens() -> None:
    pool = SeqPool(6)
    x = torch.randn(3, 7, 6)
    weights = pool.score(x).exp()
    torch.testing.assert_close(pool(x), (weights * x).sum(dim=1) / weights.sum(dim=1))


def test_order_of_tokens_does_not_matter_after_the_convolutions() -> None:
    model = TinyFormer().eval()
    tokens = torch.randn(2, 64, 48)
    shuffled = tokens[:, torch.randperm(64)]
    first, second = (model.pool(model.norm(model.encoders(x))) for x in (tokens, shuffled))
    torch.testing.assert_close(first, second)


def test_tokens_are_pixels() -> None:
    x = torch.randn(2, 5, 3, 4)
    tokens = ToTokens()(x)
    assert tokens.shape == (2, 12, 5)
    torch.testing.assert_close(tokens[1, 2 * 4 + 3], x[1, :, 2, 3])
