"""The generated C in a program for this machine that stops where its behaviour is undefined."""

import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codegen.generate import GeneratedModel
from conformance.models import Trace
from conformance.toolchain import NATIVE, Toolchain, build_sanitized
from conformance.verify.image import Mismatch, first_mismatch
from conformance.verify.samples import Extreme, Sample
from refsim.errors import ToolchainError

_SECONDS = 600
_REPORT = re.compile(r"(runtime error|panic|ERROR: AddressSanitizer):? *(.*)")
_FRAME = re.compile(r"([\w.]+\.[ch]:\d+)")


@dataclass(frozen=True)
class Sanitized:
    """What a run under sanitizers found.

    Attributes:
        program: that ran.
        sanitizers: that were in the program: "undefined", and "address" where the compiler has it.
        message: what ended it, and where; empty where it ran to its end.
        mismatch: the first byte that is not the golden model's, of a program that ran to its end.
        runs: that were completed.
    """

    program: Path
    sanitizers: tuple[str, ...]
    message: str
    mismatch: Mismatch | None
    runs: int


def run_sanitized(
    model: GeneratedModel, runs: Sequence[Sample | Extreme], toolchain: Toolchain, opt: str = "-O1"
) -> Sanitized:
    """Run a model's C on this machine under the sanitizers that the compiler has.

    Args:
        model: the generated folder.
        runs: what to run it on.
        toolchain: one of `host_toolchains()`.
        opt: optimisation flag.

    Raises:
        ToolchainError: it cannot be built, or the program does not start.
    """
    program, sanitizers = build_sanitized(
        [*model.sources, NATIVE / "sanitized.c"],
        include_dirs=model.include_dirs,
        toolchain=toolchain,
        opt=opt,
        defines={"TNF_TRACE": 1, "TNF_PREFIX": model.prefix, "TNF_ARENA_BYTES": model.arena_bytes},
        name=f"{model.prefix}_sanitized",
    )
    # What a sanitizer prints is read; a stack of calls of its own would only slow the end down.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=0"}
    with tempfile.TemporaryDirectory(prefix="tinyformer-sanitized-") as name:
        given, found = Path(name) / "runs", Path(name) / "results"
        given.write_bytes(b"".join(_encoded(model, run) for run in runs))
        try:
            done = subprocess.run(
                [str(program), str(given), str(found)],
                capture_output=True,
                text=True,
                errors="replace",
                env=environment,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"the program with sanitizers does not run: {error}") from error
        written = found.read_bytes() if found.exists() else b""
    size = sum(step.bytes for step in model.steps)
    if done.returncode != 0:
        return Sanitized(program, sanitizers, _message(done.stderr, done.returncode), None, len(written) // size)
    mismatch = None
    for index, run in enumerate(runs):
        log = written[index * size : (index + 1) * size]
        mismatch = mismatch or first_mismatch(model, run, Trace(log, ()), outputs=False)
    return Sanitized(program, sanitizers, "", mismatch, len(runs))


def _encoded(model: GeneratedModel, run: Sample | Extreme) -> bytes:
    """A run as native/sanitized.c reads it."""
    if isinstance(run, Extreme):
        patches = [(step, at, data) for step, given in enumerate(run.patches) for at, data in given]
    else:
        patches = [(-1, port.offset, run.inputs[port.tensor].tobytes()) for port in model.inputs]
    return struct.pack("=i", len(patches)) + b"".join(
        struct.pack("=iii", step, at, len(data)) + data for step, at, data in patches
    )


def _message(text: str, code: int) -> str:
    """The sanitizer's finding and where it is, in one line."""
    found = _REPORT.search(text)
    place = next((where for where in _FRAME.findall(text) if not where.startswith("sanitized.c")), "")
    if found is None:
        return f"the program ended with {code}: {' '.join(text.split())[:300] or 'no message'}"
    return f"{place or 'somewhere'}: {found[2].strip()[:300]}"
