"""Places where kernels run: this machine, and chips under emulation. Each takes many cases from one start."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from cffi import FFI
from numpy.typing import NDArray

import ckernels
from codegen.emit import KernelCall
from codegen.target import Target, load_target
from conformance.emulator import CallResult, CortexM, StrayAccess
from conformance.host import parse_header
from conformance.host_process import Request
from conformance.layout import MARGIN, Layout
from conformance.opinion import Opinion
from conformance.timing.cycles import Timing
from conformance.toolchain import (
    Toolchain,
    arm_toolchains,
    available_toolchains,
    build_firmware,
    build_shared_library,
    host_toolchains,
)
from refsim.errors import ConformanceError, ToolchainError

ARENA_BYTES = 96 * 1024
"""Memory for a case's activations under emulation; every strategy stays within it."""


@dataclass(frozen=True)
class Library:
    """The C sources under test.

    Attributes:
        sources: C files.
        include: folder of the header "tinyformer/kernels.h".
        callers: C files of this package that are called like kernels; each one's header lies beside it.
    """

    sources: tuple[Path, ...] = field(default_factory=lambda: tuple(ckernels.sources().values()))
    include: Path = field(default_factory=ckernels.include_dir)
    callers: tuple[Path, ...] = ()

    @property
    def compiled(self) -> tuple[Path, ...]:
        """Everything that a build takes."""
        return self.sources + self.callers

    @property
    def kernels(self) -> list[str]:
        """What can be called."""
        return [f"tnf_{path.stem}" for path in self.compiled]

    @property
    def declarations(self) -> str:
        """Those of the kernels, for cffi."""
        headers = (self.include / "tinyformer" / "kernels.h", *(path.with_suffix(".h") for path in self.callers))
        return "\n".join(map(parse_header, headers))


class Place(ABC):
    """Runs kernels.

    Attributes:
        name: in reports and on the command line.
        detail: compiler and options.
        dsp: which kernels run here: those for cores without the DSP extension (False), with it (True), or both.
    """

    name: str
    detail: str
    dsp: tuple[bool, ...]

    @abstractmethod
    def run(self, call: KernelCall, layout: Layout) -> bytes:
        """Run one call; the layout's stretch of memory afterwards.

        Raises:
            ConformanceError: the kernel crashed, strayed or did not end.
            EmulationError: the same under emulation.
        """

    def run_all(self, calls: Sequence[tuple[KernelCall, Layout]]) -> list[Callable[[], bytes]]:
        """Run several calls, at once or when they are asked for: for each a function that does what `run` does."""
        return [partial(self.run, *call) for call in calls]

    @abstractmethod
    def close(self) -> None:
        """Release what the place holds."""


class HostPlace(Place):
    """This machine, in a process of its own: a kernel that crashes is a finding and not the end of the run.

    Attributes:
        built: the shared library.

    Args:
        name: in reports.
        library: the sources.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        sanitize: stop at undefined behaviour.
        extra_flags: more compiler flags.
        environment: variables of the process, beside those of this one.

    Raises:
        ToolchainError: the library cannot be built.
    """

    def __init__(
        self,
        name: str,
        library: Library,
        *,
        toolchain: Toolchain | None = None,
        opt: str = "-O2",
        sanitize: bool = False,
        extra_flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.dsp = (False, True)
        toolchain = toolchain or host_toolchains()[0]
        self.detail = f"{toolchain.name} {opt}" + (", UBSan" if sanitize else "")
        self.built = build_shared_library(
            library.compiled,
            include_dirs=[library.include],
            toolchain=toolchain,
            opt=opt,
            extra_flags=extra_flags,
            sanitize=sanitize,
            name="kernels",
        )
        self._environment = environment or {}
        self._declarations = library.declarations
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._ask([])  # starts the process, which takes longer than hundreds of cases

    def run(self, call: KernelCall, layout: Layout) -> bytes:
        return self._ask([(call, layout)])[0]

    def run_all(self, calls: Sequence[tuple[KernelCall, Layout]]) -> list[Callable[[], bytes]]:
        try:
            answers = self._ask(calls)  # at once: handing over to the process and back takes longer than most kernels
        except ConformanceError:
            return super().run_all(calls)  # which of them it was
        return [partial(_given, answer) for answer in answers]

    def _ask(self, calls: Sequence[tuple[KernelCall, Layout]]) -> list[bytes]:
        requests = [
            Request(
                call.kernel,
                dict(call.params),
                call.variadic,
                layout.image,
                tuple(span.start for span in layout.inputs),
                layout.output.start,
                layout.scratch.start if layout.scratch else None,
            )
            for call, layout in calls
        ]
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(pickle.dumps(requests, pickle.HIGHEST_PROTOCOL))
            process.stdin.flush()
            after: list[bytes] = pickle.load(process.stdout)  # noqa: S301 - our own process writes it
        except (EOFError, OSError, pickle.UnpicklingError):
            raise ConformanceError(self._post_mortem(process)) from None
        return after

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            with contextlib.suppress(OSError):  # a dead process has left its pipe broken
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parent.parent)
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "conformance.host_process", str(self.built)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **self._environment, "PYTHONPATH": paths},
        )
        assert self._process.stdin is not None
        pickle.dump(self._declarations, self._process.stdin)
        return self._process

    def _post_mortem(self, process: subprocess.Popen[bytes]) -> str:
        """What became of the process, which the next case starts anew."""
        code = process.wait()
        assert self._errors is not None
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").splitlines()
        self.close()
        reason = [line.strip() for line in said if "runtime error" in line or "panic" in line or "Error" in line][-1:]
        ended = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return ": ".join([f"the kernel's process {ended}", *reason])


def _given(answer: bytes) -> bytes:
    return answer


class CortexMPlace(Place):
    """A chip under emulation: parameters and constants in its flash, activations at the end of its RAM.

    In strict mode every access is checked against the buffers of the case; it costs speed, so large cases do without.

    Attributes:
        elf: the image.
        machines: the chip without and with strict mode.

    Args:
        name: in reports.
        library: the sources.
        target: the chip.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        arena_bytes: memory for a case's activations.
        timing: what `measure` counts cycles of; None for instructions alone.

    Raises:
        ToolchainError: the image cannot be built.
        EmulationError: the image does not start.
    """

    def __init__(
        self,
        name: str,
        library: Library,
        target: Target,
        *,
        toolchain: Toolchain | None = None,
        opt: str = "-O2",
        arena_bytes: int = ARENA_BYTES,
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self.dsp = (target.dsp,)
        toolchain = toolchain or arm_toolchains()[0]
        self.detail = f"{toolchain.name} {opt}, {target.name}"
        ffi = FFI()
        ffi.cdef(library.declarations)
        self._fields = {kernel: ffi.typeof(f"{kernel}_params").fields for kernel in library.kernels}
        self.elf = build_firmware(
            library.compiled,
            target,
            library.kernels,
            include_dirs=[library.include],
            toolchain=toolchain,
            opt=opt,
            arena_bytes=arena_bytes,
            name="kernels",
        )
        self.machines = {strict: CortexM(target, self.elf, strict=strict, timing=timing) for strict in (False, True)}

    def run(self, call: KernelCall, layout: Layout) -> bytes:
        return self.measure(call, layout, strict=len(layout.image) < STRICT_BYTES)[0]

    def measure(self, call: KernelCall, layout: Layout, *, strict: bool = False) -> tuple[bytes, CallResult]:
        """Run one call from empty caches: the layout's stretch of memory afterwards, and what the call cost.

        Raises:
            ConformanceError: the kernel strayed, or the layout does not fit.
            EmulationError: the kernel faulted or did not end.
        """
        machine = self.machines[strict]
        start = machine.arena[1] // 16 * 16 - len(layout.image)
        if start < machine.arena[0]:
            raise ConformanceError(
                f"{len(layout.image)} bytes of activations do not fit the "
                f"{machine.arena[1] - machine.arena[0]} of {self.name}"
            )
        machine.write(start, layout.image)
        constants = _Writer(machine.flash_free[0])
        words = []
        for name, kind in self._fields[call.kernel]:
            value = call.params[name]
            if isinstance(value, np.ndarray):
                words.append(constants.array(value, kind.type.item.cname))
            else:
                words.append(int(value) & 0xFFFFFFFF)
        inputs = [start + span.start for span in layout.inputs]
        if call.variadic:
            inputs = [constants.words(inputs)]
        parameters = constants.words(words)
        machine.write(machine.flash_free[0], constants.data)
        buffers = [*layout.inputs, layout.output, *([layout.scratch] if layout.scratch else [])]
        readable = [(start + span.start, span.size) for span in buffers] + constants.ranges
        writable = [(start + span.start, span.size) for span in buffers[len(layout.inputs) :]]
        machine.allow(readable, writable)
        machine.empty_caches()
        scratch = 0 if layout.scratch is None else start + layout.scratch.start
        try:
            result = machine.call(call.kernel, parameters, *inputs, start + layout.output.start, scratch)
        except StrayAccess as error:
            at = error.address - start
            where = f" ({layout.describe(at)})" if 0 <= at < len(layout.image) else ""
            raise ConformanceError(f"{error}{where}") from error
        return machine.read(start, len(layout.image)), result

    def close(self) -> None:
        self.machines.clear()


STRICT_BYTES = 4096
"""Cases with fewer bytes of activations run in strict mode."""

_CONSTANT_TYPES = {"int8_t": np.int8, "int16_t": np.int16, "int32_t": np.int32}


class _Writer:
    """Collects constant data from an address on: arrays with a margin, aligned as their type asks and no better.

    Attributes:
        data: everything so far.
        ranges: (address, bytes) of each array.
    """

    def __init__(self, address: int) -> None:
        self._address = address
        self.data = bytearray()
        self.ranges: list[tuple[int, int]] = []

    def array(self, values: NDArray[Any], c_type: str) -> int:
        """Append an array; its address."""
        if values.dtype != _CONSTANT_TYPES[c_type]:
            raise ConformanceError(f"the emitter gives {values.dtype} where the kernel's parameters have {c_type}")
        at = len(self.data) + MARGIN
        at += (values.itemsize - at) % (2 * values.itemsize)  # aligned to its size and not to twice that
        self.data += b"\xff" * (at - len(self.data)) + values.tobytes()
        address = self._address + at
        self.ranges.append((address, values.nbytes))
        return address

    def words(self, values: list[int]) -> int:
        """Append 32-bit words; their address."""
        return self.array(np.array(values, np.uint32).view(np.int32), "int32_t")


@dataclass(frozen=True)
class PlaceSpec:
    """A place that can be asked for.

    Attributes:
        name: on the command line.
        build: makes it; raises ToolchainError where a compiler is missing.
        thorough: left out of the ci profile.
        optional: its compiler does not come with the package.
        model: where whole models run for this place: "host" or a target; empty where they do not.
    """

    name: str
    build: Callable[[Library], Place | Opinion]
    thorough: bool = False
    optional: bool = False
    model: str = ""


_GCC = "arm-none-eabi-gcc"

_CHIPS = {
    "cortex-m7": "stm32f746",
    "cortex-m4": "stm32f407",
    "cortex-m33": "stm32u575",
    "cortex-m0plus": "rp2040",
    "cortex-m3": "stm32f103",
}
"""The chip that stands for each core."""

_RAM_BYTES = 128 * 1024
"""Memory of a chip at least, so that every case fits; only the Cortex-M3's has less."""


def place_specs() -> Mapping[str, PlaceSpec]:
    """Every place by name, in the order of reports."""
    specs = [
        PlaceSpec("definition", lambda _: Opinion()),
        PlaceSpec("host", lambda library: HostPlace("host", library), model="host"),
        PlaceSpec("host-ubsan", lambda library: HostPlace("host-ubsan", library, sanitize=True)),
        *(_chip(core, target) for core, target in _CHIPS.items() if core != "cortex-m3"),
        _chip("cortex-m7-gcc", "stm32f746", compiler=_GCC),
        _chip("cortex-m3", "stm32f103", thorough=True),
        *(_chip(f"{core}-Os", target, opt="-Os", thorough=True) for core, target in _CHIPS.items()),
        *(
            _chip(f"{core}-gcc{opt.removeprefix('-O2')}", target, compiler=_GCC, opt=opt, thorough=True)
            for core, target in _CHIPS.items()
            for opt in ("-O2", "-O3", "-Os")
            if (core, opt) != ("cortex-m7", "-O2")
        ),
        *(_host_compiler(compiler) for compiler in ("cc", "clang")),
    ]
    return {spec.name: spec for spec in specs}


def _chip(name: str, target: str, *, compiler: str = "", opt: str = "-O2", thorough: bool = False) -> PlaceSpec:
    def build(library: Library) -> Place:
        toolchain = find_toolchain(compiler, "cortex-m") if compiler else None
        return CortexMPlace(name, library, _with_room(load_target(target)), toolchain=toolchain, opt=opt)

    usual = not compiler and not thorough
    return PlaceSpec(name, build, thorough, optional=bool(compiler), model=target if usual else "")


def _with_room(target: Target) -> Target:
    """The chip with RAM for every case."""
    memory = (
        replace(region, size=max(region.size, _RAM_BYTES), timing=()) if region == target.data else region
        for region in target.memory
    )
    return target if target.data.size >= _RAM_BYTES else replace(target, memory=tuple(memory))


def _host_compiler(compiler: str) -> PlaceSpec:
    name = f"host-{compiler}"

    def build(library: Library) -> Place:
        return HostPlace(name, library, toolchain=find_toolchain(compiler, "host"), opt="-O3")

    return PlaceSpec(name, build, thorough=True, optional=True)


def find_toolchain(name: str, kind: str) -> Toolchain:
    """The compiler of that name.

    Raises:
        ToolchainError: it is not here; says why.
    """
    for status in available_toolchains():
        if (status.name, status.kind) == (name, kind):
            if status.toolchain is None:
                raise ToolchainError(f"{name}: {status.detail}")
            return status.toolchain
    raise ToolchainError(f"{name} is no compiler for {kind} that the toolkit knows")
