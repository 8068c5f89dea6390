"""`python -m tests.codegen.fuzz_guided`: as `tests.codegen.fuzz`, but led by what of the importers has run (Atheris).

libFuzzer keeps each file that reached something new and mutates it further; it ends at the first finding, which it
leaves in the folder of failures. It imports in its own process, so the float road is left to the other fuzzer. Linux
only, as Atheris's wheels are.
"""

import argparse
import atexit
import contextlib
import logging
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np
import onnx

with atheris.instrument_imports(include=["codegen"]):  # not refsim, whose loops Numba compiles
    from tests.codegen.fuzz import Fuzzer, import_file

from refsim.errors import TinyFormerError
from tests.codegen.fuzz_worker import MEGABYTES, SECONDS
from tests.codegen.mutations import Mutator, mutate
from tests.codegen.onnx_models import PATTERNS

LARGEST = 2**18
"""Bytes of a file."""


def suffix(data: bytes) -> str:
    """What a file is, by its identifier."""
    return ".tflite" if data[4:8] == b"TFL3" else ".onnx"


def mutated(data: bytes, largest: int, seed: int) -> bytes:
    """A third each: an ONNX model's fields, the other fuzzer's changes to bytes, libFuzzer's own."""
    rng = np.random.default_rng(seed)
    how = rng.integers(3)
    if how == 0 and suffix(data) == ".onnx":
        with contextlib.suppress(Exception):  # corrupt already, or nothing left to change
            model = onnx.ModelProto.FromString(data)
            Mutator(seed).mutate(model)
            return bytes(model.SerializeToString()[:largest])
    if how == 1 and len(data) > 1:
        return mutate(data, rng)[:largest]
    return bytes(atheris.Mutate(data, largest))


def main() -> None:
    """Fuzz until the time is over or something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.codegen.fuzz_guided", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="wall time; 60 by default")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="of all that is drawn")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for what is found")
    parser.add_argument("files", type=Path, nargs="*", help="more valid .onnx and .tflite files to start from")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # advice of ONNX Runtime's quantiser
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)  # libFuzzer ends the process
    fuzzer = Fuzzer(folder, given.seed, given.files, PATTERNS)
    corpus = folder / "corpus"
    corpus.mkdir()
    for index, (name, data) in enumerate(fuzzer.originals):
        if name != "float.onnx":
            (corpus / f"{index}-{name}").write_bytes(data)

    def one(data: bytes) -> None:
        path = fuzzer.folder / f"model{suffix(data)}"
        path.write_bytes(data)
        with contextlib.suppress(TinyFormerError):
            import_file(path)

    given.failures.mkdir(parents=True, exist_ok=True)
    limits = (f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}")
    files = (f"-max_len={LARGEST}", f"-artifact_prefix={given.failures}/", str(corpus))
    options = (f"-max_total_time={given.seconds}", f"-seed={given.seed}", "-print_final_stats=1", *limits, *files)
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
