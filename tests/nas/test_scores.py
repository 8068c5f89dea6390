"""Scores on networks where it is known what matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from torch.nn import functional

from nas.compression import CRITERIA
from nas.data import LabelledImages
from nas.layers import Kind, describe
from nas.network import PathNetwork, recalibrate
from nas.pruning import apply_masks, block_sums, magnitude, make_masks, one_shot_prune, pruned_weights
from nas.scores import fisher, input_norms, unit_importance, unit_masks, units_first, units_of, wanda
from nas.training import batches
from nas.writer import from_blocks
from tests.nas.tiny import SPACE, architecture, dark_and_bright

DATA = dark_and_bright(40)


def network(seed: int = 3) -> PathNetwork:
    torch.manual_seed(seed)
    model = PathNetwork(describe(architecture(seed)))
    recalibrate(model, batches(DATA, 40, 0))
    return model.eval()


def inputs_of(model: PathNetwork, name: str, data: LabelledImages) -> torch.Tensor:
    """What enters a layer with all images in one batch, through torch's own hook on the layer before it."""
    seen = {}

    class Record:
        def activation(self, name: str, x: torch.Tensor) -> torch.Tensor:
            return x

        def weight(self, layer: object, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            seen[layer.name] = x
            return weight

    model.rounding = Record()
    with torch.no_grad():
        model(torch.from_numpy(data.images).permute(0, 3, 1, 2).float().div(128).sub(1))
    model.rounding = None
    return seen[name]


def test_channels_of_a_module_that_does_not_expand_are_no_units() -> None:
    """They are the residual stream, which other modules read too."""
    space = replace(SPACE, stages=tuple(replace(stage, expansions=(1,)) for stage in SPACE.stages))
    model = PathNetwork(describe(architecture(3, space)))
    depthwise = {layer.name for layer, _ in model.layers() if layer.depthwise and "expand" not in str(layer.inputs)}
    assert depthwise and not depthwise & {units.name for units in units_of(model)}


def test_wanda_is_magnitude_times_input_norm() -> None:
    model = network()
    scores = wanda(DATA.images)(model)
    layers = {layer.name: layer for layer, _ in pruned_weights(model)}
    kinds = set()
    for name, layer in layers.items():
        x = inputs_of(model, name, DATA).double()
        weight = model.get_parameter(f"{name}.weight").detach().double()
        expected = np.empty(weight.shape)
        for index in np.ndindex(*weight.shape):
            channel = index[0] if layer.depthwise else index[1]
            values = x[..., channel] if layer.kind is Kind.LINEAR else x[:, channel]
            expected[index] = abs(float(weight[index])) * float(values.norm())
        np.testing.assert_allclose(scores[name], block_sums(expected, layer), rtol=1e-5)
        kinds.add((layer.kind, layer.depthwise))
    assert kinds == {(Kind.LINEAR, False), (Kind.CONV, False), (Kind.CONV, True)}


@pytest.mark.parametrize("name", ["magnitude", "wanda", "fisher", "units"])
def test_scores_leave_a_training_as_it_was(name: str) -> None:
    """Gradual pruning asks for them between two steps: mode, statistics and gradients are the training's own."""
    criterion = CRITERIA[name](DATA.take(slice(0, 8)))
    for training in (True, False):
        model = network().train(training)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        criterion(model)
        assert all(module.training is training for module in model.modules())
        assert model.rounding is None
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_wanda_drops_what_meets_silence() -> None:
    """The largest weights of the layer behind ReLU channels that never fire."""
    model = network()
    fc2 = next(layer for layer, _ in pruned_weights(model) if layer.name.endswith(".fc2"))
    fc1 = model.get_submodule(fc2.name.removesuffix("2") + "1")
    block = fc2.pruning.block
    with torch.no_grad():
        fc1.weight[:block], fc1.bias[:block] = 0, -1
        model.get_parameter(f"{fc2.name}.weight")[:, :block] = 50.0
    assert input_norms(model, DATA.images)[fc2.name][:block].tolist() == [0] * block
    per_row = (fc2.weight or (0, 0))[1] // block
    by_magnitude = make_masks(model, magnitude(model))[fc2.name]
    by_wanda = make_masks(model, wanda(DATA.images)(model))[fc2.name]
    assert by_magnitude[:, :block].all()
    assert fc2.pruned_blocks >= (fc2.weight or (0, 0))[0], "enough go for the silent ones to be among them"
    assert not by_wanda[:, :block].any()
    assert per_row > 1


class Doubled(PathNetwork):
    """In float64, though images come in float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.double())


def doubled() -> PathNetwork:
    model = network().double()
    model.__class__ = Doubled
    return model


def squared_slope(model: PathNetwork, weight: torch.Tensor, inside: torch.Tensor, data: LabelledImages) -> float:
    """Mean square of a sample's dL/dm, m scaling a weight where `inside` is 1."""
    x = torch.from_numpy(data.images).permute(0, 3, 1, 2).double().div(128).sub(1)
    kept, step = weight.detach().clone(), 1e-7
    losses = []
    with torch.no_grad():
        for h in (step, -step):
            weight.copy_(kept * (1 + h * inside))
            losses.append(functional.cross_entropy(model(x), torch.from_numpy(data.labels), reduction="none"))
        weight.copy_(kept)
    return float((((losses[0] - losses[1]) / (2 * step)) ** 2).mean())


def test_fisher_of_blocks_by_finite_differences() -> None:
    """dL/dm of a mask m in front of a block: the loss at m = 1 + h and 1 - h."""
    model = doubled()
    data = DATA.take(slice(0, 3))
    scores = fisher(data)(model)
    rng = np.random.default_rng(0)
    for layer, weight in pruned_weights(model):
        for block in rng.integers(0, layer.blocks, 2):
            chosen = np.zeros((layer.blocks, layer.pruning.block))
            chosen[block] = 1
            expected = squared_slope(model, weight, torch.from_numpy(from_blocks(chosen, layer)), data)
            assert scores[layer.name][block] == pytest.approx(expected, rel=1e-3, abs=1e-12)


def useless(model: PathNetwork, name: str, unit: int) -> None:
    """Let nobody read a unit."""
    units = next(units for units in units_of(model) if units.name == name)
    weight = model.get_parameter(f"{units.consumer.name}.weight")
    width = weight.shape[1] // units.count
    with torch.no_grad():
        weight[:, unit * width : (unit + 1) * width] = 0


def test_units_are_heads_and_hidden_channels() -> None:
    model = network()
    found = {units.name.rpartition(".")[2]: units for units in units_of(model)}
    assert set(found) == {"attention", "fc1", "depthwise"}
    attention = found["attention"]
    assert attention.count == 2
    assert [layer.name.rpartition(".")[2] for layer in attention.producers] == ["query", "key", "value"]
    assert attention.consumer.name.endswith(".out")
    tokens, dim = attention.consumer.shape
    assert attention.cost == tokens * dim * dim * 4 // 2
    fc1 = found["fc1"]
    assert fc1.cost == fc1.consumer.shape[0] * fc1.consumer.shape[1] * 2
    assert fc1.count == fc1.producers[0].shape[-1]


def test_the_useless_head_and_channel_go_first() -> None:
    model = network()
    units = {units.name: units for units in units_of(model)}
    attention = next(name for name in units if name.endswith(".attention"))
    fc1 = next(name for name in units if name.endswith(".fc1"))
    useless(model, attention, 1)
    useless(model, fc1, 5)
    importance = unit_importance(model, DATA)
    assert importance[attention][1] == 0 < importance[attention][0]
    assert importance[fc1][5] == 0 < np.delete(importance[fc1], 5).max()

    total = sum(group.cost * group.count for group in units.values())
    dead = {name: np.flatnonzero(values == 0) for name, values in importance.items()}
    share = sum(units[name].cost * len(indices) for name, indices in dead.items()) / total
    masks = unit_masks(model, importance, share)
    head = masks[f"{attention.removesuffix('.attention')}.query"]
    half = head.shape[0] // 2
    assert head[:half].all()
    assert not head[half:].any()
    assert not masks[fc1][5].any()
    x = torch.cat(list(batches(DATA, 40, 0)))
    with torch.no_grad():
        expected = model(x)
        apply_masks(model, masks)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_unit_importance_by_finite_differences() -> None:
    """A mask in front of a head is the same as its columns of the projection behind scaled."""
    model = doubled()
    data = DATA.take(slice(0, 4))
    importance = unit_importance(model, data)
    for units in units_of(model):
        unit = int(importance[units.name].argmax())
        weight = model.get_parameter(f"{units.consumer.name}.weight")
        width = weight.shape[1] // units.count
        inside = torch.zeros_like(weight)
        inside[:, unit * width : (unit + 1) * width] = 1
        expected = squared_slope(model, weight, inside, data)
        assert importance[units.name][unit] == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_every_module_keeps_a_unit() -> None:
    model = network()
    masks = unit_masks(model, unit_importance(model, DATA), 0.999)
    for units in units_of(model):
        kept = masks[units.consumer.name].flatten(1).any(dim=0).reshape(units.count, -1).all(dim=1)
        assert kept.sum() == 1


def test_units_first_prunes_as_many_blocks_as_magnitude() -> None:
    model, other = network(), network()
    one_shot_prune(model)
    one_shot_prune(other, units_first(DATA, 0.3))
    for (layer, first), (_, second) in zip(pruned_weights(model), pruned_weights(other), strict=True):
        zeros = [int((block_sums(w.detach().abs().numpy(), layer) == 0).sum()) for w in (first, second)]
        assert zeros == [layer.pruned_blocks] * 2
    assert any(
        not torch.equal(a, b) for (_, a), (_, b) in zip(pruned_weights(model), pruned_weights(other), strict=True)
    )
