"""The C compilers that the tests look for."""

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import ckernels

# What every kernel and header must pass without a warning.
STRICT = (
    *("-std=c99", "-ffreestanding", "-pedantic", "-Werror", "-Wall", "-Wextra"),
    *("-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wundef", "-Wcast-qual"),
)


@dataclass(frozen=True)
class Compiler:
    """A C compiler, by the name the tests show and the command that runs it (None where it is not installed)."""

    name: str
    command: tuple[str, ...] | None

    def run(self, *arguments: str | Path) -> None:
        """Run it; skip the test where it is not installed, fail with its messages where it fails."""
        if self.command is None:
            pytest.skip(f"{self.name} is not installed")
        command = [*self.command, f"-I{ckernels.include_dir()}", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@cache
def _zig() -> tuple[str, ...] | None:
    return (sys.executable, "-m", "ziglang", "cc") if importlib.util.find_spec("ziglang") else None


def _installed(name: str) -> Compiler:
    path = shutil.which(name)
    return Compiler(name, (path,) if path else None)


def _cross(cpu: str) -> Compiler:
    zig = _zig()
    return Compiler(f"zig-{cpu}", (*zig, "-target", "thumb-freestanding-eabi", f"-mcpu={cpu}") if zig else None)


GCC = _installed("gcc")
CLANG = _installed("clang")
ZIG = Compiler("zig", _zig())
HOST = (GCC, CLANG, ZIG)
CROSS = tuple(_cross(cpu) for cpu in ("cortex_m0plus", "cortex_m4", "cortex_m7", "cortex_m33"))
