"""The networks of Table II: as large as their originals, trainable, and exported as they compute."""

from __future__ import annotations

import numpy as np
import pytest

from nas.baselines import BASELINES
from nas.layers import Kind
from nas.writer import random_weights, write_network

# Of the originals for ten classes, in thousands: MobileNetV2 2237 (its folded form has no statistics of batch
# normalisation), CCT-7/3x1 3760 with 65 for positions, MobileViT-XS about 1950.
PARAMETERS = {"mobilenetv2": (2200, 2300), "cct-7-3x1": (3650, 3760), "mobilevit-xs": (1500, 2100), "cnn": (400, 500)}


@pytest.mark.parametrize("name", BASELINES)
def test_sizes(name: str) -> None:
    least, most = PARAMETERS[name]
    assert least <= BASELINES[name]().parameter_count / 1000 <= most


def test_depths() -> None:
    kinds = {name: [layer.kind for layer in build().layers] for name, build in BASELINES.items()}
    assert kinds["mobilenetv2"].count(Kind.CONV) == 1 + 2 + 16 * 3 + 1
    assert kinds["mobilenetv2"].count(Kind.ADD) == 10
    assert kinds["cct-7-3x1"].count(Kind.ATTENTION) == 7
    assert kinds["mobilevit-xs"].count(Kind.ATTENTION) == 2 + 4 + 3
    assert set(kinds["cnn"]) == {Kind.CONV, Kind.MEAN, Kind.LINEAR}


@pytest.mark.parametrize("name", ["mobilevit-xs", "cnn"])
def test_torch_computes_what_is_written(name: str) -> None:
    torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime")
    from nas.network import PathNetwork, weights

    model = PathNetwork(BASELINES[name]()).eval()
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    file = write_network(model.network, weights(model)).SerializeToString()
    (found,) = onnxruntime.InferenceSession(file).run(None, {"image": images})
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_random_weights_fill_a_baseline() -> None:
    network = BASELINES["cnn"]()
    assert random_weights(network, np.random.default_rng(0)).keys() == network.parameters.keys()
