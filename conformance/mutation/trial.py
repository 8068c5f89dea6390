"""A mutant on trial: built from its one changed file, and run on the suite's calls place by place until one differs.

Each run has a process of its own, forked from one that holds the calls ready, so that a mutant may crash or hang.
POSIX systems alone have that.
"""

import faulthandler
import gc
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cffi import FFI
from elftools.elf.elffile import ELFFile

import ckernels
from codegen.target import Target, load_target
from conformance.host_process import Memory, Request, passed
from conformance.mutation.corpus import Corpus, Run
from conformance.mutation.mutants import Mutant, users
from conformance.places import ARENA_BYTES, CortexMPlace, Library
from conformance.primitives import PRIMITIVES, SOURCE
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware, build_shared_library, host_toolchains
from refsim.errors import ConformanceError, TinyFormerError, ToolchainError

KILLED, SURVIVED, SAME_CODE, NOT_COMPILED, ABSENT = "killed", "survived", "same code", "not compiled", "absent"
"""What becomes of a mutant. Same code: compilers make of it what they make of the original. Absent: no place compiles
its line."""

_DIFFERS, _STRAYS, _FAILS = 90, 91, 92
_WORDS = {_DIFFERS: "a byte differs", _STRAYS: "writes where it must not", _FAILS: "strays, faults or does not return"}


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        status: killed, survived, same code, not compiled or absent.
        place: where it was killed.
        how: by what.
    """

    status: str
    place: str = ""
    how: str = ""


class _Place(ABC):
    """Builds a kernel's source and runs the suite's calls of it.

    Attributes:
        name: of the place.
        slack: CPU seconds that a call may take beside ten times those of the original's slowest.
    """

    name: str
    slack: float

    def __init__(self, corpus: Corpus, original: Path) -> None:
        self._corpus = corpus
        self._original = original
        self._code: dict[str, bytes] = {}
        self._limit: dict[str, float] = {}

    def runs(self, kernel: str) -> Sequence[Run]:
        """The suite's calls of this kernel here."""
        return self._corpus.runs.get(kernel, [])

    def prepare(self, kernel: str) -> None:
        """Build the original and run it: what it is made of, and how long its slowest call may take.

        What is built stays in the cache, from which other processes take it.

        Raises:
            ConformanceError: it fails.
        """
        library = library_of(self._corpus.sources[kernel], self._original)
        built = self.build(library)
        self._code[kernel] = self.code(built)
        before = os.times()
        status = self._forked(kernel, library, built, 60.0)
        after = os.times()
        if status:
            raise ConformanceError(f"{kernel} at {self.name}: the kernels as they are fail: {_words(status)}")
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        self._limit[kernel] = self.slack + spent

    def differs(self, kernel: str, library: Library) -> Path | None:
        """Build the mutant's source: what was built, or None where it is the original's code.

        Raises:
            ToolchainError: it does not compile.
        """
        if kernel not in self._code:
            self.prepare(kernel)
        built = self.build(library)
        if self.code(built) != self._code[kernel]:
            return built
        built.unlink()
        return None

    def fails(self, kernel: str, library: Library) -> tuple[bool, str]:
        """Build the mutant's source and run it: whether it is other code than the original's, and how it fails.

        Raises:
            ToolchainError: it does not compile.
        """
        built = self.differs(kernel, library)
        if built is None:
            return False, ""
        status = self._forked(kernel, library, built, self._limit[kernel])
        built.unlink()
        return True, _words(status) if status else ""

    def _forked(self, kernel: str, library: Library, built: Path, limit: float) -> int:
        """The exit status of a process that runs the calls: 0 where all of them are right."""
        pid = os.fork()
        if pid:
            return os.waitpid(pid, 0)[1]
        code = _FAILS
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            faulthandler.disable()  # which pytest has enabled: dying is no news here
            code = self.run(kernel, library, built, lambda: signal.setitimer(signal.ITIMER_PROF, limit))
        finally:
            os._exit(code)

    @abstractmethod
    def build(self, library: Library) -> Path:
        """Build a library of one source, into the cache."""

    def code(self, built: Path) -> bytes:
        """What is the same for two builds of the same meaning: code and constants, not what debuggers read."""
        with built.open("rb") as stream:
            if stream.read(4) != b"\x7fELF":
                return built.read_bytes()
            sections = ELFFile(stream).iter_sections()
            return b"".join(s.data() for s in sections if s["sh_flags"] & 2 and s["sh_type"] == "SHT_PROGBITS")

    @abstractmethod
    def run(self, kernel: str, library: Library, built: Path, wind: Callable[[], object]) -> int:
        """Run the calls, winding the alarm before each; 0 where all are right."""


def _words(status: int) -> str:
    """The exit status of a run that failed, in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "does not return" if number == signal.SIGPROF else f"dies of {signal.Signals(number).name}"
    return _WORDS.get(os.WEXITSTATUS(status), "is stopped by UBSan")


def _preferred(tools: Sequence[Toolchain]) -> Toolchain:
    """A compiler that is installed, where one is: zig, which is always the first, takes several times as long."""
    return (*tools[1:], tools[0])[0]


class _Host(_Place):
    slack = 0.1

    def __init__(self, corpus: Corpus, original: Path, *, opt: str, sanitize: bool = False) -> None:
        super().__init__(corpus, original)
        self.name = "host-ubsan" if sanitize else "host"
        self._opt, self._sanitize = opt, sanitize
        self._tool = _preferred(host_toolchains())
        self._ffi = FFI()
        self._ffi.cdef(library_of((PRIMITIVES,), original).declarations)
        self._ffi.cdef("int mprotect(void *address, size_t length, int protection);")
        largest = max((len(run.layout.image) for runs in corpus.runs.values() for run in runs), default=1)
        self._memory = Memory(self._ffi, largest)
        self._calls: dict[str, list[_Call]] = {}

    def prepare(self, kernel: str) -> None:
        self._calls[kernel] = [_Call(self._ffi, self._memory, run) for run in self.runs(kernel)]
        gc.freeze()  # processes to come share what is there
        super().prepare(kernel)

    def build(self, library: Library) -> Path:
        return build_shared_library(
            library.compiled,
            include_dirs=[library.include],
            toolchain=self._tool,
            opt=self._opt,
            sanitize=self._sanitize,
            name="mutant",
        )

    def run(self, kernel: str, library: Library, built: Path, wind: Callable[[], object]) -> int:
        function = getattr(self._ffi.dlopen(str(built)), f"tnf_{kernel}")
        for call in self._calls[kernel]:
            wind()
            code = call.check(self._ffi, function)
            if code:
                return code
        return 0


class _Call:
    """A call whose parameters are where C finds them, and what memory must hold afterwards."""

    def __init__(self, ffi: FFI, memory: Memory, run: Run) -> None:
        layout = run.layout
        self._image = layout.image
        self._start = memory.bytes + (memory.size - len(layout.image))
        scratch = layout.scratch
        inputs = tuple(span.start for span in layout.inputs)
        request = Request(
            run.call.kernel,
            run.call.params,
            run.call.variadic,
            layout.image,
            inputs,
            layout.output.start,
            scratch.start if scratch else None,
        )
        self._arguments, self._kept = passed(ffi, self._start, request)
        expected = bytearray(layout.image)
        expected[layout.output.start : layout.output.end] = run.golden
        cut = (scratch.start, scratch.end) if scratch else (len(expected), len(expected))
        self._expected = ((0, bytes(expected[: cut[0]])), (cut[1], bytes(expected[cut[1] :])))
        self._output = (layout.output.start, run.golden)

    def check(self, ffi: FFI, function: Any) -> int:
        """Run it; 0 where memory is as it must be."""
        ffi.memmove(self._start, self._image, len(self._image))
        function(*self._arguments)
        after = ffi.buffer(self._start, len(self._image))
        if all(after[at : at + len(data)] == data for at, data in self._expected):
            return 0
        at, golden = self._output
        return _STRAYS if after[at : at + len(golden)] == golden else _DIFFERS


class _Chip(_Place):
    slack = 1.0

    def __init__(self, corpus: Corpus, original: Path, name: str, target: str) -> None:
        super().__init__(corpus, original)
        self.name = name
        self._target: Target = load_target(target)
        self._tool = _preferred(arm_toolchains())

    def runs(self, kernel: str) -> Sequence[Run]:
        return [run for run in super().runs(kernel) if self._target.dsp in run.kinds]

    def build(self, library: Library) -> Path:
        return build_firmware(
            library.compiled,
            self._target,
            library.kernels,
            include_dirs=[library.include],
            toolchain=self._tool,
            arena_bytes=ARENA_BYTES,
            name="kernels",
        )

    def run(self, kernel: str, library: Library, built: Path, wind: Callable[[], object]) -> int:
        place = CortexMPlace(self.name, library, self._target, toolchain=self._tool)  # which finds what was built
        for run in self.runs(kernel):
            wind()
            try:
                found = run.layout.collect(place.run(run.call, run.layout))
            except TinyFormerError:
                return _FAILS
            if found != run.golden:
                return _DIFFERS
        return 0


class Trial:
    """Tries mutants, one after the other, in a copy of the kernels of its own.

    Args:
        corpus: the suite's calls.
        folder: for the copy; made anew.
    """

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self._original, self._mutant = folder / "original", folder / "mutant"
        for copy in (self._original, self._mutant):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(ckernels.include_dir(), copy / "include")
            for path in ckernels.sources().values():
                (copy / "src").mkdir(exist_ok=True)
                shutil.copy(path, copy / "src")
            for path in (SOURCE, SOURCE.with_suffix(".h")):
                shutil.copy(path, copy)
        self._corpus = corpus
        self._seen: dict[tuple[str, str, int], bool] = {}
        self._host = _Host(corpus, self._original, opt="-O1")
        self._optimised = _Host(corpus, self._original, opt="-O2")
        self._sanitized = _Host(corpus, self._original, opt="-O1", sanitize=True)
        chips = {"cortex-m7": "stm32f746", "cortex-m4": "stm32f407", "cortex-m0plus": "rp2040"}
        self._chips = [_Chip(corpus, self._original, name, target) for name, target in chips.items()]

    def judge(self, mutant: Mutant) -> Verdict:
        """Try a mutant.

        Raises:
            ConformanceError: the kernels as they are fail.
        """
        kernels = kernels_with(mutant, self._corpus)
        try:
            return self._judge(mutant, kernels)
        except ToolchainError as error:
            return Verdict(NOT_COMPILED, how=str(error).splitlines()[0])
        finally:
            self._write(mutant.file)

    def _judge(self, mutant: Mutant, kernels: Sequence[str]) -> Verdict:
        places: list[_Place] = []
        other = False
        for place in (self._host, *self._chips):
            if not self._sees(place, mutant, kernels):
                continue
            places.append(place)
            self._write(mutant.file, mutant)
            for kernel in filter(place.runs, kernels):
                library = library_of(self._corpus.sources[kernel], self._mutant)
                differs, failure = place.fails(kernel, library)
                if failure:
                    return Verdict(KILLED, place.name, failure)
                if differs and place is self._host:  # where optimisers see no difference either, there is none
                    differs, failure = self._checked(kernel, library)
                    if failure:
                        return Verdict(KILLED, self._sanitized.name, failure)
                other |= differs
            if place is self._host and not other:
                return Verdict(SAME_CODE)
        if not places:
            return Verdict(ABSENT)
        return Verdict(SURVIVED if other else SAME_CODE)

    def _checked(self, kernel: str, library: Library) -> tuple[bool, str]:
        """Whether optimisers make other code of it than of the original, and what UBSan says then."""
        built = self._optimised.differs(kernel, library)
        if built is None:
            return False, ""
        built.unlink()
        return True, self._sanitized.fails(kernel, library)[1]

    def _sees(self, place: _Place, mutant: Mutant, kernels: Sequence[str]) -> bool:
        """Whether a place compiles the mutant's line: whether it notices an error there."""
        at = (place.name, mutant.file, mutant.line)
        if at not in self._seen:
            self._write(mutant.file, replace(mutant, new="#error"))
            found = list(filter(place.runs, kernels))
            # Whoever uses the function has the line. Between functions it may be anyone's.
            tried = found[:1] if mutant.function else found
            self._seen[at] = any(not self._builds(place, kernel) for kernel in tried)
        return self._seen[at]

    def _builds(self, place: _Place, kernel: str) -> bool:
        try:
            built = place.build(library_of(self._corpus.sources[kernel], self._mutant))
            built.unlink(missing_ok=True)  # another process may have had the same question
        except ToolchainError:
            return False
        return True

    def _write(self, file: str, mutant: Mutant | None = None) -> None:
        """Write a file of the copy, changed or as it was."""
        text = (self._original / file).read_text(encoding="utf-8")
        (self._mutant / file).write_text(mutant.apply(text) if mutant else text, encoding="utf-8")


def library_of(names: Sequence[str], folder: Path) -> Library:
    """A library of some sources, of the copy of the kernels in a folder."""
    callers = (folder / SOURCE.name,) if PRIMITIVES in names else ()
    sources = tuple(folder / "src" / f"{name}.c" for name in names if name != PRIMITIVES)
    return Library(sources, folder / "include", callers)


def kernels_with(mutant: Mutant, corpus: Corpus) -> list[str]:
    """The kernels that hold a mutant's line and that the suite calls: "primitives", then those with few calls first."""
    path = Path(mutant.file)
    stems = {path.stem} if path.suffix == ".c" else set(users(mutant.function))
    found = (kernel for kernel, names in corpus.sources.items() if stems & set(names))
    return sorted(found, key=lambda kernel: (kernel != PRIMITIVES, corpus.sizes[kernel]))
