"""Two processes train as one does: each on half of every batch, with the same weights."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "tinyformer[nas]"')

from torch import multiprocessing, nn

from nas import parallel
from nas.training import TrainingConfig, train
from tests.nas.tiny import dark_and_bright

CONFIG = TrainingConfig(epochs=2, batch_size=16, warmup_epochs=0, bfloat16=False)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2))


def run(folder: Path | None) -> tuple[Any, Any]:
    torch.set_num_threads(1)
    return train(network, dark_and_bright(64), dark_and_bright(30, seed=1), config=CONFIG, folder=folder)


def process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    parallel.join()
    assert (parallel.rank(), parallel.size()) == (rank, 2)
    model, history = run(folder / "checkpoints")
    torch.save({"model": model.state_dict(), "history": [vars(line) for line in history]}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(process, (port, tmp_path), nprocs=2)
    model, history = run(None)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, expected in model.state_dict().items():
        assert torch.equal(first["model"][name], second["model"][name])
        torch.testing.assert_close(first["model"][name], expected, atol=1e-5, rtol=1e-4)
    assert first["history"][-1]["validation_accuracy"] == history[-1].validation_accuracy
    assert (tmp_path / "checkpoints" / "checkpoint.pt").exists()


def test_a_process_alone_is_a_group_of_one() -> None:
    values = torch.tensor([1.0, 2.0])
    parallel.average([values])
    assert values.tolist() == [1, 2]
    assert (parallel.rank(), parallel.size()) == (0, 1)
