"""Block masks and the schedule of gradual pruning, worked by hand; zeros that outlive training and quantisation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from nas.layers import Kind, Layer, describe
from nas.network import PathNetwork, recalibrate, weights
from nas.pruning import (
    Agp,
    KeepZeros,
    block_mask,
    block_sums,
    fine_tune,
    iterative_prune,
    magnitude,
    one_shot_prune,
    sparsity,
)
from nas.space import Pruning
from nas.training import TrainingConfig, batches
from refsim.errors import DataError
from tests.nas.tiny import architecture, dark_and_bright

CONFIG = TrainingConfig(epochs=4, batch_size=16, warmup_epochs=0, peak_lr=3e-3, bfloat16=False)


def layer(shape: tuple[int, ...], *, share: float, block: int, groups: int = 1) -> Layer:
    kind = Kind.CONV if len(shape) == 4 else Kind.LINEAR
    return Layer("x", kind, ("input",), shape[:1], weight=shape, groups=groups, pruning=Pruning(share, block))


def path(seed: int = 3) -> PathNetwork:
    torch.manual_seed(seed)
    model = PathNetwork(describe(architecture(seed)))
    assert any(pruned.pruned_blocks for pruned in model.network.layers)
    return model


def test_agp_by_hand() -> None:
    """s_f = 0.8, s_i = 0, t_0 = 2, delta t = 3, n = 4: 0.8 (1 - (1 - k / 4)^3) at t = 2 + 3 k."""
    agp = Agp(begin=2, every=3, times=4)
    assert agp.end == 14
    assert [t for t in range(20) if agp.due(t)] == [2, 5, 8, 11, 14]
    expected = [0.0, 0.8 * (1 - 27 / 64), 0.8 * (1 - 8 / 64), 0.8 * (1 - 1 / 64), 0.8]
    assert [agp.sparsity(t, 0.8) for t in (2, 5, 8, 11, 14)] == pytest.approx(expected)
    assert [agp.sparsity(t, 0.8, 0.2) for t in (0, 2, 5, 14, 99)] == pytest.approx(
        [0.2, 0.2, 0.8 - 0.6 * 27 / 64, 0.8, 0.8]
    )


@given(st.integers(1, 500))
def test_agp_over_a_number_of_steps(steps: int) -> None:
    agp = Agp.over(steps)
    assert agp.begin == 0
    assert 1 <= agp.times <= 20
    assert steps - agp.every < agp.end <= steps
    curve = [agp.sparsity(t, 0.7) for t in range(agp.end + 1)]
    assert curve[0] == 0
    assert curve[-1] == 0.7
    assert all(a <= b for a, b in itertools.pairwise(curve))


def test_impossible_schedules() -> None:
    with pytest.raises(DataError, match="AGP from step 0 every 0 steps"):
        Agp(0, 0, 3)
    with pytest.raises(DataError, match=r"AGP prunes until step 100, the training has 8"):
        iterative_prune(path(), dark_and_bright(32), config=CONFIG, agp=Agp(0, 10, 10))


def test_linear_mask_by_hand() -> None:
    """Two rows of two blocks of 2; sums 3, 9 and 5, 1: half of them go, 1 and 3."""
    weight = np.array([[1, -2, 4, 5], [-5, 0, 1, 0]], np.float32)
    pruned = layer((2, 4), share=0.5, block=2)
    sums = block_sums(np.abs(weight), pruned)
    assert sums.tolist() == [3, 9, 5, 1]
    assert block_mask(sums, pruned, pruned.pruned_blocks).tolist() == [
        [False, False, True, True],
        [True, True, False, False],
    ]


def test_convolution_blocks_lie_along_the_input_channels() -> None:
    """One output, 4 inputs, a kernel of 1 x 2: the blocks of 2 are channels 0-1 and 2-3 of each kernel position."""
    weight = np.array([[[[1, 9]], [[1, 9]], [[8, 2]], [[8, 1]]]], np.float32)
    pruned = layer((1, 4, 1, 2), share=0.5, block=2)
    sums = block_sums(np.abs(weight), pruned)
    assert sums.tolist() == [2, 16, 18, 3]
    mask = block_mask(sums, pruned, 2)
    assert mask[0, :, 0, :].tolist() == [[False, True], [False, True], [True, False], [True, False]]


def test_depthwise_blocks_are_kernel_rows() -> None:
    weight = np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3)
    pruned = layer((2, 1, 3, 3), share=0.5, block=3, groups=2)
    mask = block_mask(block_sums(weight, pruned), pruned, pruned.pruned_blocks)
    assert mask[0].tolist() == [[[False] * 3] * 3]
    assert mask[1].tolist() == [[[True] * 3] * 3]
    assert block_mask(block_sums(weight, pruned), pruned, 2)[0].tolist() == [[[False] * 3, [False] * 3, [True] * 3]]


@given(
    st.sampled_from([((6, 8), 2, 1), ((6, 8), 4, 1), ((4, 8, 3, 3), 4, 1), ((4, 2, 1, 3), 2, 1), ((6, 1, 3, 3), 3, 6)]),
    st.sampled_from([0.0, 0.4, 0.5, 0.6, 0.7, 0.8]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_masks_are_whole_blocks_of_the_lowest_scores(
    form: tuple[tuple[int, ...], int, int], share: float, seed: int, ties: bool
) -> None:
    shape, block, groups = form
    pruned = layer(shape, share=share, block=block, groups=groups)
    rng = np.random.default_rng(seed)
    weight = rng.integers(-2, 3, shape).astype(np.float32) if ties else rng.standard_normal(shape).astype(np.float32)
    mask = block_mask(block_sums(np.abs(weight), pruned), pruned, pruned.pruned_blocks)
    # Blocks, one by one, from the definition.
    along = 3 if groups > 1 else 1
    moved, kept = np.moveaxis(np.abs(weight), along, -1), np.moveaxis(mask, along, -1)
    moved, kept = moved.reshape(-1, block), kept.reshape(-1, block)
    assert (kept.all(axis=1) | ~kept.any(axis=1)).all()
    kept = kept[:, 0]
    assert (~kept).sum() == pruned.pruned_blocks == round(share * weight.size / block)
    if pruned.pruned_blocks:
        sums = moved.astype(np.float64).sum(axis=1)
        assert sums[~kept].max() <= sums[kept].min()


def zero_blocks(model: PathNetwork) -> dict[str, int]:
    """How many whole blocks of each pruned layer are zero in the folded weights."""
    parameters = weights(model)
    return {
        pruned.name: int((block_sums(np.abs(parameters[f"{pruned.name}.weight"]), pruned) == 0).sum())
        for pruned in model.network.layers
        if pruned.pruned_blocks
    }


def wanted(model: PathNetwork) -> dict[str, int]:
    return {pruned.name: pruned.pruned_blocks for pruned in model.network.layers if pruned.pruned_blocks}


def test_one_shot_reaches_the_description() -> None:
    model = path()
    assert sparsity(model) == 0
    one_shot_prune(model)
    assert zero_blocks(model) == wanted(model)
    pruned = sum(entry.pruned_blocks * entry.pruning.block for entry in model.network.layers)
    total = sum(module.weight.numel() for entry, module in model.layers() if entry.kind is not Kind.LAYER_NORM)
    assert sparsity(model) == pytest.approx(pruned / total)


def test_iterative_pruning_follows_agp_and_ends_at_the_description(monkeypatch: pytest.MonkeyPatch) -> None:
    model = path()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[dict[str, int]] = []

    def watched(pruned: PathNetwork) -> Any:
        seen.append(zero_blocks(pruned))
        return magnitude(pruned)

    agp = Agp(begin=1, every=2, times=3)
    result, history = iterative_prune(model, dark_and_bright(48), config=CONFIG, agp=agp, criterion=watched)
    assert len(history) == CONFIG.epochs
    # What is zero when the criterion is asked is what the pruning before left.
    for k, zeros in enumerate(seen):
        for entry in model.network.layers:
            if entry.name in zeros:
                share = 0 if k == 0 else agp.sparsity(agp.begin + (k - 1) * agp.every, entry.pruning.sparsity)
                assert zeros[entry.name] == min(round(share * entry.blocks), entry.pruned_blocks)
    assert len(seen) == 4
    assert zero_blocks(result) == wanted(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "the network handed in is left alone"


def test_statistics_in_the_end_are_those_of_the_last_weights() -> None:
    data = dark_and_bright(48)
    for result, _ in (iterative_prune(path(), data, config=CONFIG), fine_tune(path(), data, config=CONFIG)):
        state = {name: tensor.clone() for name, tensor in result.state_dict().items() if "running" in name}
        assert state
        recalibrate(result, batches(data, 48, CONFIG.seed))
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, result.state_dict()[name])


def test_what_is_pruned_stays_pruned_whatever_the_scores() -> None:
    """A criterion that turns round at each pruning cannot bring a block back."""
    order = 1.0
    zeros: list[set[tuple[str, int]]] = []

    def fickle(model: PathNetwork) -> dict[str, Any]:
        nonlocal order
        order = -order
        scores = {entry.name: order * np.arange(entry.blocks) for entry in model.network.layers if entry.pruned_blocks}
        zeros.append({(name, int(i)) for name, sums in magnitude(model).items() for i in np.flatnonzero(sums == 0)})
        return scores

    model = path()
    result, _ = iterative_prune(model, dark_and_bright(48), config=CONFIG, agp=Agp(0, 2, 4), criterion=fickle)
    assert all(a <= b for a, b in itertools.pairwise(zeros))
    assert len(zeros[-1]) > 0
    assert zero_blocks(result) == wanted(model)


def test_interrupted_pruning_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dark_and_bright(48)
    straight, _ = iterative_prune(path(), data, config=CONFIG, folder=tmp_path / "straight")

    calls = 0

    def interrupted(model: PathNetwork) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return magnitude(model)

    with pytest.raises(KeyboardInterrupt):
        iterative_prune(path(), data, config=CONFIG, folder=tmp_path / "resumed", criterion=interrupted)
    resumed, _ = iterative_prune(path(), data, config=CONFIG, folder=tmp_path / "resumed")
    for (name, expected), found in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, found), name


@pytest.mark.parametrize("masks", ["given", "present"])
def test_fine_tuning_keeps_the_zeros_and_changes_the_rest(masks: str) -> None:
    model = path()
    taken = one_shot_prune(model)
    hook: Callable[[], KeepZeros] = (lambda: KeepZeros(taken)) if masks == "given" else KeepZeros
    tuned, _ = fine_tune(model, dark_and_bright(48), config=replace(CONFIG, epochs=1), hooks=[hook()])
    assert zero_blocks(tuned) == wanted(model)
    for entry, module in tuned.layers():
        if entry.name in taken:
            old = model.get_parameter(f"{entry.name}.weight")
            assert (module.weight[taken[entry.name]] != old[taken[entry.name]]).float().mean() > 0.9
