"""Writes tflite_golden.npz: small models and what LiteRT's reference kernels make of random samples.

    python -m tests.codegen.make_tflite_golden

Needs ai-edge-litert. For each kind of operator the first four networks of `tflite_cases`, and the first one where
rounding the other way (once for twice) changes a byte, if there is one.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import refsim
from codegen.tflite import read_graph
from codegen.tflite.lowering import lower
from codegen.tflite.profiles import Profile, find_profile
from codegen.tflite.reader import read_file
from conformance.litert import ReferenceKernels
from refsim.errors import QuantizationError
from refsim.numerics import Rounding
from tests.codegen.tflite_cases import CASES, build, samples

GOLDEN = Path(__file__).with_name("tflite_golden.npz")
SAMPLES = 2


def seeds(kind: str, path: Path) -> Iterator[int]:
    yield from range(4)
    once = find_profile("litert").of(kind) is Rounding.SINGLE
    other = Profile("litert", {kind: Rounding.DOUBLE if once else Rounding.SINGLE})
    for seed in range(4, 400):
        net = build(kind, seed)
        net.write(path)
        inputs = samples(net, np.random.default_rng(seed), SAMPLES)
        try:
            flipped = refsim.run(lower(read_file(path), "flipped", other), inputs)
        except QuantizationError:  # a multiplier that single rounding has no use for
            continue
        if any((flipped[name] != y).any() for name, y in refsim.run(read_graph(path), inputs).items()):
            yield seed
            return


def main() -> None:
    stored: dict[str, NDArray[np.generic]] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        for kind in CASES:
            for seed in seeds(kind, path):
                net = build(kind, seed)
                net.write(path)
                inputs = samples(net, np.random.default_rng(seed), SAMPLES)
                kernels = ReferenceKernels(path)
                outputs = []
                for index in range(SAMPLES):
                    kernels.run({name: x[index] for name, x in inputs.items()})
                    outputs.append(kernels.tensor(f"t{net.outputs[0]}").reshape(-1))
                key = f"{kind}/{seed}"
                stored[f"{key}/model"] = np.frombuffer(path.read_bytes(), np.uint8)
                stored[f"{key}/output"] = np.stack(outputs)
                for name, x in inputs.items():
                    stored[f"{key}/input/{name}"] = x
    np.savez_compressed(GOLDEN, **stored)
    print(f"{len(stored)} arrays, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
