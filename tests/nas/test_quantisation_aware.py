"""Rounding in training is that of the integer model: values tie for tie, ranges tensor for tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from codegen.onnx.constants import affine
from codegen.onnx.quantizer import quantize
from nas.data import LabelledImages
from nas.evaluate import integer_accuracy, integer_model
from nas.layers import describe
from nas.network import PathNetwork, folded, recalibrate, weights
from nas.pruning import one_shot_prune, present_masks
from nas.quantisation_aware import (
    FakeQuantisation,
    fake_quantise,
    fake_quantise_weight,
    round_half_away,
    train_quantised,
)
from nas.training import TrainingConfig, accuracy, batches, train
from nas.writer import write_network
from refsim import TensorType
from refsim.errors import ModelError
from tests.nas.tiny import architecture, dark_and_bright

SCALES = st.floats(2.0**-20, 2.0**10, width=32)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50), SCALES, st.integers(-128, 127))
def test_activations_round_as_the_integer_model_does(values: list[float], scale: float, zero_point: int) -> None:
    ties = [(k + 0.5) * scale for k in range(-4, 4)]
    x = np.array([*values, *ties, -0.0, np.nextafter(np.float32(0.5 * scale), np.float32(0))], np.float32)
    kind = TensorType(x.shape, scale, zero_point)
    found = fake_quantise(torch.from_numpy(x), scale, zero_point).numpy()
    np.testing.assert_array_equal(found, kind.dequantize(kind.quantize(x)))


def test_ties_go_away_from_zero() -> None:
    x = torch.tensor([-2.5, -1.5, -0.5, -0.49999997, 0.49999997, 0.5, 1.5, 2.5])
    assert round_half_away(x).tolist() == [-3, -2, -1, 0, 0, 1, 2, 3]


def test_gradients_stop_at_the_clamp_only() -> None:
    x = torch.tensor([-200.0, -128.4, 0.3, 127.4, 200.0], requires_grad=True)
    (fake_quantise(x, 1.0, 0) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 0]
    weight = torch.tensor([[1.0, -0.3]], requires_grad=True)
    (fake_quantise_weight(weight) * torch.tensor([2.0, 3.0])).sum().backward()
    assert weight.grad.tolist() == [[2, 3]]


def trained(seed: int, data: LabelledImages) -> PathNetwork:
    """A network with one-shot pruned weights and one all-zero output channel."""
    torch.manual_seed(seed)
    model = PathNetwork(describe(architecture(seed)))
    one_shot_prune(model)
    with torch.no_grad():
        next(module for _, module in model.layers()).weight[0] = 0
    recalibrate(model, batches(data, 32, 0))
    return model.eval()


@pytest.mark.parametrize("seed", range(4))
def test_weights_and_ranges_are_the_quantisers(tmp_path: Path, seed: int) -> None:
    data = dark_and_bright(32)
    model = trained(seed, data)
    calibration = torch.cat(list(batches(data, 32, 0)))
    path = tmp_path / "float.onnx"
    path.write_bytes(write_network(model.network, weights(model)).SerializeToString())
    quantized = quantize(path, calibration.numpy())
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}

    aware = folded(model)
    rounding = FakeQuantisation(calibration)
    rounding.attach(aware)
    compared = 0
    for layer, module in aware.layers():
        name = f"{layer.name}.weight"
        if f"{name}_quantized" not in stored:
            continue  # a layer norm's, which stays real here
        integers, scale = stored[f"{name}_quantized"], stored[f"{name}_scale"]
        if len(layer.weight or ()) == 2:
            integers = integers.T
        expected = integers.astype(np.float32) * scale.reshape(-1, *[1] * (integers.ndim - 1))
        np.testing.assert_array_equal(fake_quantise_weight(module.weight).detach().numpy(), expected)
        compared += 1
    assert compared > 10

    # Each activation's scale and zero point: the last tensor that carries the layer's name in the file.
    pairs = {node.input[0]: node.input[1:] for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    for name in rounding.ranges:
        operator, _, inner = name.rpartition(".")
        if name == "input":
            tensor = "image"
        elif name == "head.classifier":
            tensor = "logits_unquantized"
        elif inner == "softmax":
            tensor = f"{operator}/Softmax"
        elif inner == "scores":
            continue  # scaled there, and so compared in the next test only
        else:
            kinds = ("Clip", "Relu", "Conv", "Add", "LayerNormalization", "MatMul_1", "MatMul", "GlobalAveragePool")
            tensor = next(f"{name}/{kind}" for kind in kinds if f"{name}/{kind}" in pairs)
        scale, zero_point = (stored[parameter] for parameter in pairs[tensor])
        assert rounding.quantisation(name)[0] == pytest.approx(float(scale), rel=1e-4), name
        assert abs(rounding.quantisation(name)[1] - int(zero_point)) <= 1, name
        compared += 1
    assert compared > 30


CONFIG = TrainingConfig(epochs=5, batch_size=32, warmup_epochs=0, bfloat16=False)


@pytest.fixture(scope="module")
def learnt() -> PathNetwork:
    """A network that has learnt to tell dark from bright."""
    torch.set_num_threads(1)
    model, _ = train(lambda: PathNetwork(describe(architecture(1))), dark_and_bright(256), None, config=CONFIG)
    assert isinstance(model, PathNetwork)
    assert accuracy(model, dark_and_bright(128, 1)) > 0.95
    return model


def test_logits_are_the_integer_models(learnt: PathNetwork) -> None:
    """But for a few steps: integer layer norms and softmaxes have roundings of their own."""
    data, model = dark_and_bright(64, 2), learnt
    calibration = data.take(slice(0, 32))
    aware = folded(model)
    rounding = FakeQuantisation(torch.cat(list(batches(calibration, 32, 0))))
    rounding.attach(aware)
    integers = integer_model(model.network, weights(model), calibration.images, threads=1)
    x = torch.cat(list(batches(data, 64, 0)))
    with torch.no_grad():
        expected = aware(x).numpy()
        real = model(x).numpy()
    found = integers.predict(x.numpy())
    scale, _ = rounding.quantisation("head.classifier")
    assert np.abs(found - expected).mean() < 2 * scale
    assert len(np.unique(np.round(expected / scale))) > 10
    assert np.abs(expected - real).max() > 0


def test_training_keeps_zeros_and_ends_without_rounding() -> None:
    data = dark_and_bright(64)
    model = trained(3, data)
    zeros = {name: ~mask for name, mask in present_masks(folded(model)).items()}
    assert sum(int(mask.sum()) for mask in zeros.values()) > 100
    config = TrainingConfig(epochs=2, batch_size=16, warmup_epochs=0, peak_lr=1e-3)
    tuned, history = train_quantised(model, data, data, config=config)
    assert len(history) == 2
    assert tuned.rounding is None
    assert not tuned.batch_norm
    parameters = weights(tuned)
    for name, mask in zeros.items():
        assert (parameters[f"{name}.weight"][mask.numpy()] == 0).all()
    assert any(
        not torch.equal(module.weight, old.weight)
        for (_, module), (_, old) in zip(tuned.layers(), folded(model).layers(), strict=True)
    )


def test_training_makes_up_for_what_quantisation_costs(learnt: PathNetwork) -> None:
    """A huge weight that meets a channel that is always 0: nothing to the real network, to the integer one everything.

    The other weights of its row, all rounded to 0, have to grow into the coarse steps.
    """
    data, unseen = dark_and_bright(256), dark_and_bright(128, 1)
    model = folded(learnt)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        parameters["head.last.weight"][0], parameters["head.last.bias"][0] = 0, -1
        parameters["head.classifier.weight"][:, 0] = 300 * parameters["head.classifier.weight"].abs().max()
    assert accuracy(model, unseen) > 0.95
    calibration = data.images[:64]
    before = integer_accuracy(model.network, weights(model), calibration, unseen, threads=1)
    tuned, _ = train_quantised(model, data, config=replace(CONFIG, peak_lr=0.02))
    after = integer_accuracy(tuned.network, weights(tuned), calibration, unseen, threads=1)
    assert before < 0.7
    assert after > 0.9


def test_batch_normalisation_must_be_folded() -> None:
    model = PathNetwork(describe(architecture(0)))
    with pytest.raises(ModelError, match="fold it first"):
        FakeQuantisation(torch.zeros(1, 3, 8, 8)).attach(model)


def test_affine_holds_zero() -> None:
    """Ranges on one side of zero are widened to it, as in the quantiser."""
    scale, zero_point = affine(2.0, 4.0)
    assert fake_quantise(torch.zeros(1), scale, zero_point).item() == 0
