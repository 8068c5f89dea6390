"""What the tests of networks share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Networks this small lose time on more threads, above all where several processes share the processors."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
