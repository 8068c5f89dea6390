"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Compiled kernels make a first call slow and later ones quick: wall time says nothing here.
settings.register_profile(
    "default", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")

# Shells start jobs in the background with SIGINT ignored, which they and their children would keep.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of development data; skips where TINYFORMER_DATA does not name one."""
    folder = os.environ.get("TINYFORMER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TINYFORMER_DATA does not name a folder with the development data (CIFAR-10, ONNX networks)")
    return Path(folder)
