"""The host's part: kernels built by clang with counters (source-based coverage), and what the counters say."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from conformance.coverage.result import Branch, Place, SourceFile
from conformance.places import HostPlace, Library, find_toolchain
from conformance.toolchain import Toolchain
from refsim.errors import ToolchainError

BUILDS = {"host-coverage": (), "host-coverage-no-builtins": ("-DTNF_NO_BUILTINS",)}
"""Places and what they are built with beside counters: what the preprocessor leaves out of one is in the other."""

_FLAGS = ("-fprofile-instr-generate", "-fcoverage-mapping")
_CODE = 0  # kind of a region that holds code; the others are gaps, macros and what the preprocessor left out


class Counters:
    """Builds with counters, and their profiles.

    Args:
        library: the sources.
        folder: for the profiles.

    Raises:
        ToolchainError: clang, llvm-profdata or llvm-cov is missing.
    """

    def __init__(self, library: Library, folder: Path) -> None:
        self._library = library
        self._folder = folder
        self._clang = find_toolchain("clang", "host")
        self._profdata, self._cov = (_beside(self._clang, name) for name in ("llvm-profdata", "llvm-cov"))
        self.places = [self._place(name, flags) for name, flags in BUILDS.items()]

    def read(self, files: dict[str, SourceFile]) -> None:
        """Add what was counted to the files; the places must have been closed.

        Raises:
            ToolchainError: a tool fails.
        """
        for place in self.places:
            merged = self._folder / f"{place.name}.profdata"
            raw = sorted(map(str, self._folder.glob(f"{place.name}.*.profraw")))
            _run([self._profdata, "merge", "-o", str(merged), *raw])
            export = [self._cov, "export", str(place.built), f"-instr-profile={merged}"]
            _add_lines(files, _run([*export, "-format=lcov"]))
            _add_branches(files, _run(export))

    def _place(self, name: str, flags: Sequence[str]) -> HostPlace:
        profile = {"LLVM_PROFILE_FILE": str(self._folder / f"{name}.%p.profraw")}
        return HostPlace(
            name, self._library, toolchain=self._clang, opt="-O1", extra_flags=[*_FLAGS, *flags], environment=profile
        )


def paths(library: Library) -> dict[str, Path]:
    """Headers and sources by their names in the library's folder, such as "src/softmax.c"."""
    found = [*sorted(library.include.rglob("*.h")), *library.sources]
    return {path.relative_to(library.include.parent).as_posix(): path for path in found}


def _beside(clang: Toolchain, name: str) -> str:
    """A tool of the same version as the compiler."""
    path = _run([*clang.command, f"--print-prog-name={name}"]).strip()
    if not shutil.which(path):
        raise ToolchainError(f"{name} is not found beside clang; install LLVM's tools of its version ({clang.version})")
    return path


def _run(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise ToolchainError(f"{Path(command[0]).name} fails: {said.strip().splitlines()[0]}") from error


def _named(files: dict[str, SourceFile], path: str) -> SourceFile:
    """The file at a path, whose first part is of the folder where the build, which is cached, was first made."""
    return next(file for name, file in files.items() if path.endswith(f"/{name}"))


def _add_lines(files: dict[str, SourceFile], lcov: str) -> None:
    lines: dict[int, int] = {}
    for entry in lcov.splitlines():
        kind, _, rest = entry.partition(":")
        if kind == "SF":
            lines = _named(files, rest).lines
        elif kind == "DA":
            line, count = map(int, rest.split(",")[:2])
            lines[line] = lines.get(line, 0) + count


def _add_branches(files: dict[str, SourceFile], export: str) -> None:
    """Each condition and each piece of code; copies of an inline function are one."""
    (data,) = json.loads(export)["data"]
    for function in data["functions"]:
        name = function["name"].rpartition(":")[2]
        for *place, count, file_id, _, kind in function["regions"]:
            if kind == _CODE:
                regions = _named(files, function["filenames"][file_id]).regions
                regions[tuple(place)] = regions.get(tuple(place), 0) + count
        for *place, true, false, file_id, _, _ in function["branches"]:
            file = _named(files, function["filenames"][file_id])
            branch = file.branches.setdefault(tuple(place), Branch(name, _text(file, tuple(place))))
            branch.taken = (branch.taken[0] + true, branch.taken[1] + false)


def _text(file: SourceFile, place: Place) -> str:
    first, start, last, end = place
    lines = file.text[first - 1 : last]
    lines[-1] = lines[-1][: end - 1]
    lines[0] = lines[0][start - 1 :]
    return " ".join(line.strip() for line in lines)
