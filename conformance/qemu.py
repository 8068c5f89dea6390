"""QEMU as a second emulator, independent of Unicorn's use here: whole firmware, from reset, on a board of its own.

The image is another one than that under Unicorn: the same generated C, linked for the board whose memory stands in for
the target's, with vector table and semihosting (see `conformance.firmware`). Unicorn checks what the chip's memory
allows; QEMU checks that the firmware boots, computes the same bytes and does not fault.
"""

import functools
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codegen.generate import GeneratedModel
from codegen.target import Target
from conformance.firmware.build import board_for, boards, build_board_firmware
from conformance.models import ModelPlace, Trace, trace_difference
from conformance.source_lines import SourceLines
from conformance.toolchain import Toolchain, arm_toolchains, elf_symbols
from conformance.verify.divergence import first_divergence
from conformance.verify.result import Check, Divergence, Outcome
from conformance.verify.samples import Sample
from refsim.errors import EmulationError, TargetError, ToolchainError
from refsim.numerics import Int8Array

NAME = "qemu"
"""Of the check in a report."""

SECONDS = 60.0
"""A firmware that has not ended by then is stopped: start-up, and as much again for each sample."""

_COMMAND = "qemu-system-arm"
_ADVICE = "install QEMU's emulator of Arm systems (Debian: apt install qemu-system-arm)"
_FAULT = 3  # exit code TNF_FAULT of firmware/boot.h
_EXCEPTIONS = {2: "NMI", 3: "HardFault", 4: "MemManage", 5: "BusFault", 6: "UsageFault", 7: "SecureFault"}
# ARMv7-M ARM, section B3.2.15; STKOF is of ARMv8-M.
_STATUS = {
    0: "instruction fetch where nothing may be executed",
    1: "stack overflow, into the guard at its end",
    4: "stack overflow while an exception was entered",
    8: "instruction fetch where there is no memory",
    9: "data access where there is no memory",
    10: "data access where there is no memory, some instructions earlier",
    12: "stack overflow while an exception was entered",
    16: "undefined instruction",
    17: "jump to code that is not Thumb",
    19: "FPU or other coprocessor that is not enabled",
    20: "stack overflow",
    24: "unaligned access",
    25: "division by zero",
}


@dataclass(frozen=True)
class Qemu:
    """The emulator that was found.

    Attributes:
        command: its path.
        version: its own words, one line.
    """

    command: str
    version: str


@functools.cache
def find_qemu() -> Qemu | None:
    """qemu-system-arm on PATH; None where it is absent or does not start."""
    command = shutil.which(_COMMAND)
    if command is None:
        return None
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return Qemu(command, done.stdout.split("\n")[0])


def why_not(target: Target) -> str:
    """Why a target's code cannot run under QEMU here, and what to do; empty where it can."""
    if board_for(target) is None:
        cores = ", ".join(sorted(boards()))
        return f"QEMU emulates no board with a {target.core} and memory for models; it has boards with {cores}"
    if find_qemu() is None:
        return f"{_COMMAND} was not found or does not start; {_ADVICE}"
    return ""


def run_image(elf: Path, board: Target, folder: Path, *, seconds: float = SECONDS) -> tuple[int, str]:
    """Boot an image and wait for its end.

    Args:
        elf: linked by `conformance.firmware.build`.
        board: that it was linked for.
        folder: where its semihosting files lie.
        seconds: after which it is stopped.

    Returns:
        (exit code, what it printed).

    Raises:
        ToolchainError: QEMU is absent.
        EmulationError: it did not end, or a fault ended it; the message says where.
    """
    qemu = find_qemu()
    if qemu is None:
        raise ToolchainError(f"{_COMMAND} was not found or does not start; {_ADVICE}")
    devices = ["-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config", "enable=on,target=native"]
    command = [qemu.command, "-machine", board.name, *devices, "-kernel", str(elf.absolute())]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EmulationError(f"QEMU {board.name}: the firmware had not ended after {seconds:g} s") from error
    except OSError as error:
        raise ToolchainError(f"{_COMMAND} does not start: {error}; {_ADVICE}") from error
    # Semihosting's console is QEMU's standard output or, in other versions, its standard error.
    text = (done.stdout + done.stderr).strip()
    if done.returncode == _FAULT and (fault := re.search("^fault:(.*)", text, re.MULTILINE)):
        raise EmulationError(f"QEMU {board.name}: {_explain(fault[1], elf)}")
    if done.returncode < 0 or (done.returncode == 1 and "qemu" in text):
        raise EmulationError(
            f"QEMU {board.name} ended with {done.returncode}: {' '.join(text.split()) or 'no message'}"
        )
    return done.returncode, text


class QemuModel(ModelPlace):
    """A firmware around a generated model on a board that QEMU emulates.

    Attributes:
        board: whose memory it is linked for.
        elf: the image.

    Args:
        model: the generated folder; the core of its target says which board.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        extra_flags: more compiler flags.

    Raises:
        ToolchainError: QEMU is absent, or the firmware cannot be built.
        TargetError: there is no such board, or the model does not fit its memory.
    """

    def __init__(
        self,
        model: GeneratedModel,
        toolchain: Toolchain | None = None,
        *,
        opt: str = "-O2",
        extra_flags: Sequence[str] = (),
    ) -> None:
        super().__init__(model)
        board, reason = board_for(model.target), why_not(model.target)
        if board is None:
            raise TargetError(reason)
        if reason:
            raise ToolchainError(reason)
        self.board = board
        self.elf = build_board_firmware(model, board, toolchain=toolchain, opt=opt, extra_flags=extra_flags)

    def run(self, sample: Mapping[str, Int8Array]) -> Trace:
        """Boot, and run one sample."""
        return self.run_all([sample])[0]

    def run_all(self, samples: Sequence[Mapping[str, Int8Array]]) -> list[Trace]:
        """Boot once, and run samples one after the other.

        Args:
            samples: of each, int8 of each input's shape by tensor name.

        Raises:
            EmulationError: the firmware faulted, did not end or did not write what it should.
        """
        model = self.model
        sizes = [self.log_bytes, *(port.bytes for port in model.outputs)]
        with tempfile.TemporaryDirectory(prefix="tinyformer-qemu-") as name:
            folder = Path(name)
            inputs = (sample[port.tensor].tobytes() for sample in samples for port in model.inputs)
            (folder / "inputs.bin").write_bytes(b"".join(inputs))
            code, text = run_image(self.elf, self.board, folder, seconds=SECONDS * (1 + len(samples)))
            written = (folder / "trace.bin").read_bytes() if (folder / "trace.bin").exists() else b""
        if code or len(written) != sum(sizes) * len(samples):
            raise EmulationError(
                f"QEMU {self.board.name}: the firmware ended with {code} after {len(written)} of "
                f"{sum(sizes) * len(samples)} bytes: {text or 'no message'}"
            )
        traces, at = [], 0
        for _ in samples:
            parts = []
            for size in sizes:
                parts.append(written[at : at + size])
                at += size
            traces.append(Trace(parts[0], tuple(parts[1:])))
        return traces


def place_name(target: Target, compiler: str) -> str:
    """Of a check under QEMU, such as "qemu mps2-an500 zig -O2 (stm32f746)".

    Args:
        target: whose board it is.
        compiler: in words, with its flags.
    """
    board = board_for(target)
    return f"qemu {board.name if board else target.core} {compiler} ({target.name})"


def qemu_check(
    generated: GeneratedModel,
    samples: Sequence[Sample],
    toolchain: Toolchain | None = None,
    *,
    opt: str = "-O2",
    extra_flags: Sequence[str] = (),
    attachments: MutableMapping[str, bytes] | None = None,
) -> tuple[Check, Divergence | None]:
    """Boot a firmware around a model under QEMU, run samples and compare every tensor with the golden model.

    Args:
        generated: the model's C.
        samples: at least one; all run in one boot.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        extra_flags: more compiler flags.
        attachments: files of the report by name, to which a reproducer is added; None for none.

    Returns:
        The check, with the samples that differ as its figure, and the first divergence, if any. NOT_RUN with the reason
        where QEMU is absent, has no such board, or the model does not fit it.

    Raises:
        ToolchainError: the firmware cannot be built.
    """
    start = time.perf_counter()
    tool = toolchain or arm_toolchains()[0]
    place = place_name(generated.target, " ".join((tool.name, opt, *extra_flags)))

    def check(outcome: Outcome, detail: str, figure: int | None = None) -> Check:
        limit = None if figure is None else 0
        return Check(NAME, place, outcome, detail, figure, limit, "samples", time.perf_counter() - start)

    if reason := why_not(generated.target):
        return check(Outcome.NOT_RUN, reason), None
    try:
        firmware = QemuModel(generated, tool, opt=opt, extra_flags=extra_flags)
    except TargetError as error:
        return check(Outcome.NOT_RUN, f"the firmware does not fit the board: {error}"), None
    try:
        traces = firmware.run_all([sample.inputs for sample in samples])
    except EmulationError as error:
        return check(Outcome.FAILED, str(error)), None
    runs = zip(samples, traces, strict=True)
    wrong = [(s, trace, found) for s, trace in runs if (found := trace_difference(generated, s.golden, trace))]
    if wrong:
        sample, trace, found = wrong[0]
        divergence = first_divergence(generated, sample, trace, place=place, attachments=attachments)
        return check(Outcome.FAILED, f"sample {sample.name}: {found}", len(wrong)), divergence
    tensors = f"{len(generated.steps)} tensors of {len(samples)} samples"
    return check(Outcome.PASSED, f"booted from reset; {tensors} equal the golden model", 0), None


def _explain(registers: str, elf: Path) -> str:
    """A fault in words, from the registers that `firmware/boot.c` prints."""
    values = {name: int(value, 16) for name, value in re.findall(r"(\w+) 0x([0-9a-f]{8})", registers)}
    status = values.get("cfsr", 0)
    causes = [words for bit, words in _STATUS.items() if status >> bit & 1] or [f"CFSR {status:#010x}"]
    exception = _EXCEPTIONS.get(values["exception"], f"exception {values['exception']}")
    address = f", address {values['address']:#010x}" if status & (1 << 7 | 1 << 15) else ""
    at = f", {_function(elf, values['pc'])}" if "pc" in values else ""
    return f"{exception}: {' and '.join(causes)}{address}{at}"


def _function(elf: Path, pc: int) -> str:
    """Where an address of code lies, such as "tnf_add+0x1c (add.c:31) at 0x00000b1c"."""
    starts = {address & ~1: name for name, address in elf_symbols(elf).items() if address & 1}
    start = max((address for address in starts if address <= pc), default=None)
    name = "" if start is None else f"{starts[start]}+{pc - start:#x} "
    line = SourceLines(elf).of(pc, 2)
    return f"{name}{f'({line}) ' if line else ''}at {pc:#010x}"
