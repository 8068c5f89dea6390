"""`python -m tests.codegen.fuzz`: import mutated model files for as long as is asked; exits with 1 at a finding.

Only the project's own errors may leave an importer, within ten seconds of processor time and 2 GB, and no external
data may be read from outside the model's folder. Linux only: the limits are the kernel's.
"""

import argparse
import contextlib
import hashlib
import logging
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import QuantFormat, quantize_static
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from codegen import onnx as onnx_files
from codegen import tflite
from tests.codegen.fuzz_worker import Outcome, Worker
from tests.codegen.mutations import Mutator, mutate
from tests.codegen.onnx_models import PATTERNS
from tests.codegen.test_onnx_patterns import Reader
from tests.codegen.tflite_cases import CASES, build

FEW = ("convolutional", "attention", "class_token", "pooled_and_cut", "gated", "shape_arithmetic")
"""Patterns that begin quickly."""

QOPERATOR = ("convolutional", "attention", "class_token", "pooled_and_cut", "gated")
"""Patterns that ONNX Runtime's quantiser writes in the other format too."""

OUTSIDE = (
    *("../outside.bin", "link.bin", "folder/../../outside.bin", "/etc/hostname", "//etc/hostname", "..", ""),
    *("link.bin\0", "link.bin/" * 1000),
)
"""Places of external data that an importer must not read; link.bin leads outside."""


@dataclass
class Tally:
    """What a run found.

    Attributes:
        counts: of (road, kind of outcome).
        findings: first file of each distinct finding.
        seconds, slowest: processor time, in all and of the slowest import.
        megabytes: most memory that one import added.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0
    slowest: float = 0
    megabytes: float = 0

    def add(self, road: str, outcome: Outcome) -> None:
        self.counts[road, outcome.kind] += 1
        self.seconds += outcome.seconds
        self.slowest = max(self.slowest, outcome.seconds)
        self.megabytes = max(self.megabytes, outcome.megabytes)


def import_file(path: Path) -> None:
    """As a user would: a float model through the quantiser first, a .tflite file in both numerics."""
    if path.suffix == ".tflite":
        tflite.load(path)
        tflite.load(path, profile="cmsis-nn")
        return
    if path.stem == "float":
        with np.load(path.with_suffix(".npz")) as samples:
            proto = onnx_files.quantize(path, samples["x"])
    else:
        onnx_files.load(path)
        proto = onnx.load(path, load_external_data=False)
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise AssertionError("external data was read from outside the folder")


class Fuzzer:
    """Draws mutated files.

    Args:
        folder: for the valid files, and the one under test.
        seed: of all that is drawn.
        files: more valid files, beside the tests' own.
        patterns: names of the tests' ONNX models to begin with.
    """

    def __init__(self, folder: Path, seed: int, files: list[Path], patterns: Iterable[str] = FEW) -> None:
        self.rng = np.random.default_rng(seed)
        self.mutator = Mutator(seed)
        self.folder = folder / "models"
        self.folder.mkdir()
        (folder / "outside.bin").write_bytes(bytes(2**16))
        (self.folder / "link.bin").symlink_to(folder / "outside.bin")
        (self.folder / "folder").mkdir()
        self.originals: list[tuple[str, bytes]] = []  # name of the file under test, content
        self.samples: list[bytes | None] = []
        for name in patterns:
            net = PATTERNS[name].write(self.folder / "float.onnx")
            np.savez(self.folder / "float.npz", x=net.samples(4))
            quantised = onnx_files.quantize(self.folder / "float.onnx", net.samples(4))
            self._keep("float.onnx", (self.folder / "float.onnx").read_bytes(), "float.npz")
            self._keep("quantised.onnx", quantised.SerializeToString())
            if name in QOPERATOR:
                source, written = self.folder / "float.onnx", self.folder / "quantised.onnx"
                quantize_static(source, written, Reader(net.samples(4)), quant_format=QuantFormat.QOperator)
                self._keep("quantised.onnx", written.read_bytes())
        for kind in CASES:
            self._keep("m.tflite", build(kind, 3).data())
        for file in files:
            self._keep("m.tflite" if file.suffix == ".tflite" else "quantised.onnx", file.read_bytes())

    def _keep(self, name: str, data: bytes, samples: str = "") -> None:
        self.originals.append((name, data))
        self.samples.append((self.folder / samples).read_bytes() if samples else None)

    def draw(self) -> Path:
        """The next file to import."""
        index = int(self.rng.integers(len(self.originals)))
        name, data = self.originals[index]
        how = int(self.rng.integers(4))
        if name.endswith(".onnx") and how < 3:
            data = self._fields(data)
        elif how == 3 and self.rng.integers(2):
            data = self._spliced(data, name)
        if not name.endswith(".onnx") or how >= 2:
            data = mutate(data, self.rng)
        if (samples := self.samples[index]) is not None:
            (self.folder / "float.npz").write_bytes(samples)
        path = self.folder / name
        path.write_bytes(data)
        return path

    def _fields(self, data: bytes) -> bytes:
        model = onnx.ModelProto.FromString(data)
        for _ in range(int(self.rng.integers(1, 4))):
            with contextlib.suppress(ValueError):  # nothing of that kind is left to change
                self.mutator.mutate(model)
        if self.rng.integers(8) == 0 and model.graph.initializer:
            tensor = model.graph.initializer[int(self.rng.integers(len(model.graph.initializer)))]
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            tensor.external_data.add(key="location", value=OUTSIDE[int(self.rng.integers(len(OUTSIDE)))])
        return bytes(model.SerializeToString())

    def _spliced(self, data: bytes, name: str) -> bytes:
        """The head of this file and the tail of another of its kind."""
        others = [other for kind, other in self.originals if kind == name]
        other = others[int(self.rng.integers(len(others)))]
        return data[: int(self.rng.integers(9, len(data)))] + other[int(self.rng.integers(len(other))) :]


def fuzz(fuzzer: Fuzzer, worker: Worker, seconds: float, failures: Path, progress: Progress) -> Tally:
    """Import drawn files until they have taken so much processor time, or Ctrl-C.

    Args:
        fuzzer: draws.
        worker: imports.
        seconds: processor time.
        failures: folder for the first file of each distinct finding.
        progress: shown meanwhile.
    """
    tally, task = Tally(), progress.add_task("importing", total=seconds)
    with contextlib.suppress(KeyboardInterrupt):  # a run that is ended early says what it has found
        while tally.seconds < seconds:
            path = fuzzer.draw()
            outcome = worker.run(path)
            tally.add(path.name, outcome)
            if outcome.kind not in ("read", "refused"):
                what = f"{path.name}: {outcome.kind}: {' '.join(outcome.message.split())[:120]}"
                if what not in tally.findings:
                    tally.findings[what] = _save(path, failures / hashlib.sha256(path.read_bytes()).hexdigest()[:12])
            files = sum(tally.counts.values())
            progress.update(
                task, completed=tally.seconds, description=f"{files:,} files, {len(tally.findings)} findings"
            )
    progress.remove_task(task)
    return tally


def _save(path: Path, folder: Path) -> Path:
    """Keep a file that was found, with the samples that go with it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in [path, *([path.with_suffix(".npz")] if path.stem == "float" else [])]:
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / path.name


def main() -> None:
    """Fuzz, print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.codegen.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="processor time of the imports; 60 by default")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="of all that is drawn")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for what is found")
    parser.add_argument("files", type=Path, nargs="*", help="more valid .onnx and .tflite files to start from")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # advice of ONNX Runtime's quantiser
    console = Console()
    console.print(f"Seed {given.seed}.", highlight=False)
    worker = Worker("tests.codegen.fuzz:import_file")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        try:
            fuzzer = Fuzzer(Path(folder), given.seed, given.files, PATTERNS)
            tally = fuzz(fuzzer, worker, given.seconds, given.failures, progress)
        finally:
            worker.close()
    roads = sorted({road for road, _ in tally.counts})
    kinds = ("read", "refused", "escaped", "died", "hung", "memory")
    table = Table("file", *kinds, title="Mutated files by what became of their import")
    for road in roads:
        table.add_row(road, *(f"{tally.counts[road, kind]:,}" for kind in kinds))
    console.print(table)
    console.print(
        f"{sum(tally.counts.values()):,} files in {tally.seconds:,.0f} s of processor time; the slowest took "
        f"{tally.slowest:.1f} s, the largest added {tally.megabytes:,.0f} MB.",
        highlight=False,
    )
    for what, kept in tally.findings.items():
        console.print(f"{what}\n    {kept}", style="red", markup=False, highlight=False)
    sys.exit(bool(tally.findings))


if __name__ == "__main__":
    main()
