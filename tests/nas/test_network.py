"""The torch network computes what the ONNX file written from the same description and weights computes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from nas.layers import Kind, describe
from nas.network import PathNetwork, folded, recalibrate, weights
from nas.space import Space, StageSpace
from nas.writer import write_network
from tests.nas.tiny import SPACE, architecture

ODD = replace(SPACE, name="odd", input_shape=(3, 9, 7))
SIGNAL = Space("signal", (4, 1, 30), 3, (StageSpace(dims=(8,)), StageSpace(dims=(16,))), heads=(1, 2), last_linear=(8,))


def trained_looking(network: PathNetwork, seed: int = 0) -> PathNetwork:
    """Parameters and statistics away from their initial values, activations spread over their range."""
    generator = torch.Generator().manual_seed(seed)
    recalibrate(network, [torch.rand(16, *network.network.input_shape, generator=generator) * 2 - 1])
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("bias"):
                tensor.normal_(0, 0.1, generator=generator)
            elif name.endswith(("bn.weight", "norm.weight", "norm1.weight", "norm2.weight")):
                tensor.uniform_(0.5, 2, generator=generator)
    return network.eval()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("space", [SPACE, ODD, SIGNAL], ids=lambda space: space.name)
def test_same_as_the_onnx_file(space: Space, seed: int) -> None:
    torch.manual_seed(seed)
    model = trained_looking(PathNetwork(describe(architecture(seed, space))), seed)
    x = torch.rand(3, *space.input_shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    parameters = weights(model)
    assert {name: value.shape for name, value in parameters.items()} == model.network.parameters
    session = ort.InferenceSession(write_network(model.network, parameters).SerializeToString())
    (found,) = session.run(None, {"image": x.numpy()})
    with torch.no_grad():
        expected = model(x).numpy()
        without = folded(model)(x).numpy()
    assert expected.shape == (3, space.classes)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
    np.testing.assert_allclose(without, expected, atol=1e-4 * scale)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * scale  # the input matters


def test_parameters_are_those_of_the_description() -> None:
    model = folded(PathNetwork(describe(architecture(0))))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == model.network.parameters


def test_state_goes_back_and_forth() -> None:
    first, second = (PathNetwork(describe(architecture(1))) for _ in range(2))
    trained_looking(first)
    second.load_state_dict(first.state_dict())
    x = torch.rand(2, *SPACE.input_shape)
    assert torch.equal(first.eval()(x), second.eval()(x))
    assert torch.equal(first(x), copy.deepcopy(first)(x))


def test_rounding_that_does_nothing_changes_nothing_but_float_rounding() -> None:
    class Nothing:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def activation(self, name: str, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(name)
            return x

        def weight(self, layer: object, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return weight

    model = trained_looking(PathNetwork(describe(architecture(2))))
    x = torch.rand(2, *SPACE.input_shape)
    expected = model(x)
    model.rounding = Nothing()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    moves = (Kind.TO_TOKENS, Kind.TO_MAP, Kind.MAX_POOL)
    assert {name for name in model.rounding.seen if "." not in name} == {"input"}
    operators = {layer.name for layer in model.network.layers if layer.kind not in moves}
    assert operators <= set(model.rounding.seen)


def test_recalibrate_takes_the_mean_over_the_batches() -> None:
    model = PathNetwork(describe(architecture(0)))
    first = next(module for _, module in model.layers() if getattr(module, "bn", None) is not None)
    batches = [torch.rand(4, *SPACE.input_shape) * 2 - 1 for _ in range(3)]
    momentum = first.bn.momentum
    with torch.no_grad():
        outputs = [
            torch.nn.functional.conv2d(x, first.weight, stride=first.stride, padding=first.padding) for x in batches
        ]
    recalibrate(model, batches)
    expected = torch.stack([y.mean(dim=(0, 2, 3)) for y in outputs]).mean(dim=0)
    torch.testing.assert_close(first.bn.running_mean, expected, rtol=1e-4, atol=1e-5)
    assert first.bn.momentum == momentum
