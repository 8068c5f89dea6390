"""Every switch of the compression does what it says, from the same weights, and the sizes stay as described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from nas import compression
from nas.compression import CRITERIA, Compression, ablate, compress, variants
from nas.evaluate import integer_model
from nas.layers import describe
from nas.network import PathNetwork, weights
from nas.pruning import block_sums
from nas.training import TrainingConfig, train
from refsim.errors import DataError
from tests.nas.tiny import architecture, dark_and_bright, int8_weights

SHORT = TrainingConfig(epochs=2, batch_size=32, warmup_epochs=0, bfloat16=False)
SETTINGS = Compression(prune=SHORT, tune=replace(SHORT, epochs=1, peak_lr=1e-3))
DATA, UNSEEN = dark_and_bright(192), dark_and_bright(64, 1)


@pytest.fixture(scope="module")
def learnt() -> PathNetwork:
    torch.set_num_threads(1)
    config = replace(SHORT, epochs=8, peak_lr=5e-3)
    model, _ = train(lambda: PathNetwork(describe(architecture(3))), DATA, None, config=config)
    assert isinstance(model, PathNetwork)
    return model


def zero_blocks(model: PathNetwork) -> dict[str, int]:
    parameters = weights(model)
    return {
        layer.name: int((block_sums(np.abs(parameters[f"{layer.name}.weight"]), layer) == 0).sum())
        for layer in model.network.layers
        if layer.pruned_blocks
    }


def test_every_switch(learnt: PathNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """All end at the described sparsity, each with other weights; the network handed in is left alone."""
    ways = variants(SETTINGS)
    assert {way.criterion for way in ways} == set(CRITERIA)
    assert {way.distillation for way in ways} == {None, "forward", "reverse"}
    assert {way.quantisation_aware for way in ways} == {True, False}
    assert len({way.name for way in ways}) == len(ways) == 8
    before = {name: value.copy() for name, value in weights(learnt).items()}
    results: list[PathNetwork] = []

    def watched(*args: Any, **options: Any) -> PathNetwork:
        results.append(compress(*args, **options))
        return results[-1]

    monkeypatch.setattr(compression, "compress", watched)
    monkeypatch.setattr(compression, "CALIBRATION_IMAGES", 16)
    rows = list(ablate(learnt, learnt, DATA, UNSEEN, settings=ways))
    assert [row.settings for row in rows] == ways
    assert rows[0].accuracy > 0.8
    expected = {layer.name: layer.pruned_blocks for layer in learnt.network.layers if layer.pruned_blocks}
    assert [zero_blocks(result) for result in results] == [expected] * len(ways)
    parameters = [weights(result) for result in results]
    assert len({value["head.last.weight"].tobytes() for value in parameters}) == len(ways)
    for result, value in ((results[0], parameters[0]), (results[-1], parameters[-1])):
        integers = int8_weights(integer_model(result.network, value, DATA.images[:16], threads=1).graph)
        zeros = sum(int((array == 0).sum()) for array in integers)
        assert zeros >= sum(layer.pruned_blocks * layer.pruning.block for layer in result.network.layers) > 0
    again = weights(compress(learnt, DATA, settings=SETTINGS))
    for name, value in weights(learnt).items():
        np.testing.assert_array_equal(value, before[name])
        np.testing.assert_array_equal(parameters[0][name], again[name])


def test_interrupted_compression_goes_on(learnt: PathNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = compress(learnt, DATA, settings=SETTINGS, folder=tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(compression, "fine_tune", None)
        with pytest.raises(TypeError):
            compress(learnt, DATA, settings=SETTINGS, folder=tmp_path / "resumed")
    with monkeypatch.context() as patch:
        patch.setattr(compression, "magnitude", None)
        resumed = compress(learnt, DATA, settings=SETTINGS, folder=tmp_path / "resumed")
    for name, value in weights(straight).items():
        np.testing.assert_array_equal(weights(resumed)[name], value)


def test_unknown_settings(learnt: PathNetwork) -> None:
    with pytest.raises(DataError, match="'luck' is not known; known are magnitude, wanda, fisher, units"):
        Compression(criterion="luck")
    with pytest.raises(DataError, match="distillation needs a teacher"):
        compress(learnt, DATA, settings=replace(SETTINGS, distillation="forward"))
