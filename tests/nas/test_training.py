"""Schedule, augmentation, checkpoints: an interrupted run ends with the weights of one that was not."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from nas import training as training_module
from nas.augmentation import alternating_mirror, normalise, random_crop_flip, random_mirror
from nas.data import LabelledImages, to_input
from nas.models import TinyFormer, TinyFormerConfig
from nas.training import (
    Hardware,
    Hook,
    TrainingConfig,
    accuracy,
    learning_rate,
    paper_schedule,
    train,
)
from refsim.errors import DataError, TinyFormerError

SMALL = TinyFormerConfig(image_size=16, classes=2, stem_channels=4, dim=8, hidden=8, expansion=1)
CONFIG = TrainingConfig(epochs=4, batch_size=8, warmup_epochs=1, peak_lr=5e-3, seed=3)


def dark_and_bright(count: int = 40) -> LabelledImages:
    """Two classes that differ in brightness: learnt in a few steps."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 128, (count, 16, 16, 3)) + 128 * labels[:, None, None, None]
    return LabelledImages(images.astype(np.uint8), labels.astype(np.int64))


def run(folder: Path, config: TrainingConfig = CONFIG) -> tuple[Any, Any]:
    return train(lambda: TinyFormer(SMALL), dark_and_bright(), dark_and_bright(16), config=config, folder=folder)


def crop(images: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return random_crop_flip(images, random_mirror(len(images), generator), generator)


def test_learning_rate_warms_up_then_follows_a_cosine() -> None:
    config = TrainingConfig(epochs=20, warmup_epochs=4, start_lr=1e-6, peak_lr=1e-3, final_lr=1e-5)
    rates = np.array([learning_rate(step, 10, config) for step in range(200)])
    assert rates[0] == pytest.approx(1e-6)
    assert rates[20] == pytest.approx((1e-6 + 1e-3) / 2)
    assert rates[40] == rates.max() == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5)
    np.testing.assert_allclose(np.diff(rates[:41]), (1e-3 - 1e-6) / 40)
    expected = 1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.linspace(0, np.pi, 160))) / 2
    np.testing.assert_allclose(rates[40:], expected)


def test_learning_rate_falls_in_a_line() -> None:
    config = TrainingConfig(epochs=4, warmup_epochs=1, peak_lr=1e-2, final_lr=1e-3, decay="line")
    rates = [learning_rate(step, 10, config) for step in range(10, 40)]
    np.testing.assert_allclose(rates, np.linspace(1e-2, 1e-3, 30))


def test_no_warm_up() -> None:
    config = TrainingConfig(epochs=2, warmup_epochs=0)
    assert learning_rate(0, 5, config) == config.peak_lr


def test_normalise_is_to_input() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(normalise(torch.from_numpy(images)).numpy(), to_input(images))


def test_every_crop_is_a_shift_of_the_image_or_its_mirror() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    padded = np.full((16, 16, 3), 128, np.uint8)
    padded[4:12, 4:12] = image
    legal = {
        padded[top : top + 8, left : left + 8][:, ::step].tobytes()
        for top in range(9)
        for left in range(9)
        for step in (1, -1)
    }
    assert len(legal) == 162
    batch = torch.from_numpy(np.repeat(image[None], 3000, axis=0))
    crops = crop(batch, 0).numpy()
    assert crops.dtype == np.uint8
    # 3000 draws miss one of 162 outcomes with a probability of about 1e-6.
    assert {crop.tobytes() for crop in crops} == legal


def test_a_margin_bounds_the_shift() -> None:
    images = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 8, 8, 1).repeat(200, 1, 1, 1)
    still = torch.zeros(200, dtype=torch.bool)
    crops = random_crop_flip(images, still, torch.Generator().manual_seed(0), 1)
    # The centre's pixel moves by at most one row of 8 and one column.
    assert {int(centre) - 37 for centre in crops[:, 4, 4, 0]} == {8 * y + x for y in (-1, 0, 1) for x in (-1, 0, 1)}


def test_mirrors_alternate() -> None:
    indices = torch.arange(10_000)
    first, second, third = (alternating_mirror(indices, epoch) for epoch in range(3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 0.45 < float(first.float().mean()) < 0.55
    images = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 4, 1).repeat(2, 2, 1, 1)
    turned = random_crop_flip(images, torch.tensor([False, True]), torch.Generator(), 0)
    assert turned[:, 0, :, 0].tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_signals_are_shifted_in_time_and_never_mirrored() -> None:
    signal = np.arange(1, 13, dtype=np.uint8).reshape(1, 1, 12, 1)
    padded = np.pad(signal[0, 0, :, 0], 4, constant_values=128)
    crops = crop(torch.from_numpy(signal.repeat(500, axis=0)), 0).numpy()
    assert {crop.tobytes() for crop in crops} == {padded[left : left + 12].tobytes() for left in range(9)}


def test_augmentation_repeats_with_its_generator() -> None:
    images = torch.from_numpy(dark_and_bright().images)
    first, again, other = (crop(images, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_learns(tmp_path: Path) -> None:
    data = dark_and_bright()
    model, history = run(tmp_path, replace(CONFIG, epochs=8))
    assert [result.epoch for result in history] == list(range(1, 9))
    assert history[-1].loss < history[0].loss
    assert not model.training
    assert accuracy(model, data) > 0.95


def test_interrupted_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, history = run(tmp_path / "straight")

    train_epoch = training_module._train_epoch

    def interrupted(*args: Any, epoch: int, **kwargs: Any) -> float:
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(*args, epoch=epoch, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "_train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "resumed")
    resumed, resumed_history = run(tmp_path / "resumed")

    assert [result.loss for result in resumed_history] == [result.loss for result in history]
    for (name, expected), found in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, found), name
    assert sorted(path.name for path in (tmp_path / "resumed").iterdir()) == ["checkpoint.pt", "history.json"]


def test_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = run(tmp_path)
    monkeypatch.setattr(training_module, "_train_epoch", None)
    again, _ = run(tmp_path)
    for expected, found in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(expected, found)


def test_every_epoch_has_an_order_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def record(images: Any, *others: Any) -> Any:
        seen.append(images.numpy().tobytes())
        return random_crop_flip(images, *others)

    monkeypatch.setattr(training_module, "random_crop_flip", record)
    run(tmp_path)
    steps = 40 // CONFIG.batch_size
    assert len(seen) == CONFIG.epochs * steps
    assert len({tuple(seen[start : start + steps]) for start in range(0, len(seen), steps)}) == CONFIG.epochs


def test_muon_resumes_and_alternating_mirrors_learn(tmp_path: Path) -> None:
    config = replace(CONFIG, optimiser="muon", decay="line", mirror="alternating", margin=2)
    model, history = run(tmp_path, config)
    assert history[-1].loss < history[0].loss
    again, _ = run(tmp_path, config)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_seed_changes_the_run(tmp_path: Path) -> None:
    losses = [
        run(tmp_path / name, replace(CONFIG, epochs=1, seed=seed))[1][0].loss
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, epochs=1))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(DataError, match=r"other settings \(epochs 1 -> 4\).*empty output folder"):
        run(tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, epochs=1))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"checkpoint\.pt cannot be resumed"):
        run(tmp_path, replace(CONFIG, epochs=1))


def test_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes, writes = Path.write_bytes, 0

    def disk_fills_up(path: Path, data: bytes) -> int:
        nonlocal writes
        writes += 1
        if writes == 3:  # the checkpoint of the second epoch
            write_bytes(path, data[:1000])
            raise OSError(errno.ENOSPC, "no space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", disk_fills_up)
    with pytest.raises(TinyFormerError, match=r"checkpoint\.pt cannot be written: no space left"):
        run(tmp_path)
    monkeypatch.undo()
    assert len(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["history"]) == 1
    assert len(run(tmp_path)[1]) == CONFIG.epochs


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="40 training images do not fill one batch of 64"):
        run(tmp_path, replace(CONFIG, batch_size=64))
    assert list(tmp_path.iterdir()) == []


def test_the_papers_schedule() -> None:
    config = paper_schedule()
    assert (config.epochs, config.batch_size, config.label_smoothing) == (300, 128, 0.1)
    rates = [learning_rate(step, 10, config) for step in range(3000)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[100] == max(rates) == pytest.approx(5.5e-4)
    assert rates[-1] == pytest.approx(1e-5)
    short = paper_schedule(5, batch_size=64)
    assert (short.epochs, short.batch_size, short.warmup_epochs) == (5, 64, 0.5)
    assert max(range(50), key=lambda step: learning_rate(step, 10, short)) == 5


def test_hooks_see_every_step_and_their_state_is_kept(tmp_path: Path) -> None:
    class Record(Hook):
        def __init__(self) -> None:
            self.calls: list[list[Any]] = []

        def before_epoch(self, model: Any, epoch: int) -> None:
            self.calls.append(["epoch", epoch])

        def before_step(self, model: Any, step: int, generator: Any) -> None:
            assert model.training
            self.calls.append(["before", step])

        def after_step(self, model: Any, step: int) -> None:
            self.calls.append(["after", step])

        def state_dict(self) -> dict[str, Any]:
            return {"calls": self.calls}

        def load_state_dict(self, state: Any) -> None:
            self.calls = state["calls"]

    config = replace(CONFIG, epochs=2, batch_size=20)
    hook, again = Record(), Record()
    for each in (hook, again):
        train(lambda: TinyFormer(SMALL), dark_and_bright(), None, config=config, folder=tmp_path, hooks=[each])
    expected = [
        call
        for epoch in range(2)
        for call in (
            ["epoch", epoch],
            *([kind, step] for step in (2 * epoch, 2 * epoch + 1) for kind in ("before", "after")),
        )
    ]
    assert hook.calls == again.calls == expected


def test_without_validation_folder_or_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "random_crop_flip", None)
    config = replace(CONFIG, epochs=1, augment=False)
    _, history = train(lambda: TinyFormer(SMALL), dark_and_bright(), None, config=config)
    assert history[0].validation_accuracy is None
    assert history[0].images_per_second > 0
    assert history[0].seconds * history[0].images_per_second >= 40 * 0.999


def test_hardware() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert Hardware().torch_device.type == expected
    assert Hardware("cpu").torch_device.type == "cpu"
    with pytest.raises(DataError, match="device 'abacus' is not available"):
        _ = Hardware("abacus").torch_device


def test_compile_and_channels_last_change_rounding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler itself is torch's; that the training calls what it returns is ours."""
    compiled = []

    def stand_in(model: Any) -> Any:
        compiled.append(model)
        return model.forward

    monkeypatch.setattr(torch, "compile", stand_in)
    config = replace(CONFIG, epochs=1, bfloat16=False)
    losses = [
        train(lambda: TinyFormer(SMALL), dark_and_bright(), None, config=config, hardware=hardware)[1][0].loss
        for hardware in (Hardware(compile=True), Hardware(channels_last=False))
    ]
    assert len(compiled) == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
