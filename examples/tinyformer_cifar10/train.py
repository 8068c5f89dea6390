"""Train the example network and export it: ``python train.py DATA_FOLDER [OUT_FOLDER]``; needs ``tinyformer[nas]``."""

from __future__ import annotations

import sys
from pathlib import Path

from nas.pipeline import train_to_onnx
from refsim.errors import TinyFormerError

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: {sys.argv[0]} DATA_FOLDER [OUT_FOLDER]")
    try:
        train_to_onnx(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else "out/tinyformer_cifar10"))
    except TinyFormerError as error:
        sys.exit(f"error: {error}")
