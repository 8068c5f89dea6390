"""Compilers: which are here, and how they build kernels for the host and for a Cortex-M.

`zig cc`, from the `ziglang` wheel, builds for the host and for every core, so nothing has to be installed system-wide.
`cc`, `gcc`, `clang` and `arm-none-eabi-gcc` are used where they are installed.

Results are cached under a name that hashes everything they depend on (sources, headers, flags, compiler version), in
`TINYFORMER_CACHE`, else `$XDG_CACHE_HOME/tinyformer`, else `~/.cache/tinyformer`. A file appears there whole or not at
all, so several processes may build at once.
"""

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from codegen.target import Target
from refsim.compiled import cache_folder
from refsim.errors import TargetError, ToolchainError

NATIVE = Path(__file__).parent / "native"
"""Folder of the C sources that belong to this package."""

GUARD_BYTES = 1024
"""Size and alignment of a guard: the smallest page of Unicorn's ARM machine."""

_ZIG_FPUS = {  # zig's own models of these cores have no FPU
    ("cortex-m4", "single"): "+vfp4d16sp",
    ("cortex-m7", "single"): "+fp_armv8d16sp",
    ("cortex-m7", "double"): "+fp_armv8d16",
    ("cortex-m33", "single"): "+fp_armv8d16sp",
}
_GCC_FPUS = {
    ("cortex-m4", "single"): "fpv4-sp-d16",
    ("cortex-m7", "single"): "fpv5-sp-d16",
    ("cortex-m7", "double"): "fpv5-d16",
    ("cortex-m33", "single"): "fpv5-sp-d16",
}
_FIRMWARE_FLAGS = (
    "-std=c99",
    "-g",  # also keeps zig from stripping the symbols at -Os
    "-mthumb",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-common",
    "-fomit-frame-pointer",
    "-fno-stack-protector",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-Wl,--gc-sections",
)


@dataclass(frozen=True)
class Toolchain:
    """A compiler that was found.

    Attributes:
        name: "zig", "cc", "gcc", "clang" or "arm-none-eabi-gcc".
        kind: What it builds for: "host" or "cortex-m".
        command: How it is started.
        version: Its own words, one line.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class ToolchainStatus:
    """Whether a compiler is here.

    Attributes:
        name: As in `Toolchain`.
        kind: As in `Toolchain`.
        toolchain: None where the compiler is absent or is another one's second name.
        detail: The version, or why it is absent and what to do.
    """

    name: str
    kind: str
    toolchain: Toolchain | None
    detail: str


@functools.cache
def available_toolchains() -> tuple[ToolchainStatus, ...]:
    """Every compiler that the toolkit can use, present or absent, in order of preference for each kind."""
    statuses = [_status(kind, "zig", _zig_command(), "pip install ziglang") for kind in ("host", "cortex-m")]
    seen: dict[Path, str] = {}
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        known = seen.setdefault(Path(found).resolve(), name) if found else name
        if known == name:
            statuses.append(_status("host", name, (found,) if found else None, "optional: install a C compiler"))
        else:
            statuses.append(ToolchainStatus(name, "host", None, f"the same program as {known}"))
    arm = shutil.which("arm-none-eabi-gcc")
    statuses.append(_status("cortex-m", "arm-none-eabi-gcc", (arm,) if arm else None, "optional: install GCC for Arm"))
    return tuple(statuses)


def host_toolchains() -> tuple[Toolchain, ...]:
    """The compilers here that build for this machine, the preferred one first.

    Raises:
        ToolchainError: There is none.
    """
    return _of_kind("host")


def arm_toolchains() -> tuple[Toolchain, ...]:
    """The compilers here that build for Cortex-M, the preferred one first.

    Raises:
        ToolchainError: There is none.
    """
    return _of_kind("cortex-m")


def _of_kind(kind: str) -> tuple[Toolchain, ...]:
    found = tuple(s.toolchain for s in available_toolchains() if s.kind == kind and s.toolchain is not None)
    if not found:
        raise ToolchainError(
            f"no C compiler for {kind} was found; install the one this package depends on: pip install ziglang"
        )
    return found


def _zig_command() -> tuple[str, ...] | None:
    return (sys.executable, "-m", "ziglang") if importlib.util.find_spec("ziglang") else None


def _status(kind: str, name: str, command: tuple[str, ...] | None, advice: str) -> ToolchainStatus:
    if command is None:
        return ToolchainStatus(name, kind, None, f"not found ({advice})")
    asked = (*command, "version") if name == "zig" else (*command, "--version")
    try:
        version = subprocess.run(asked, capture_output=True, text=True, check=True, env=_environment()).stdout.split(
            "\n"
        )[0]
    except (OSError, subprocess.CalledProcessError) as error:
        return ToolchainStatus(name, kind, None, f"found, but does not start: {error}")
    command = (*command, "cc") if name == "zig" else command
    return ToolchainStatus(name, kind, Toolchain(name, kind, command, version), version)


def build_shared_library(
    sources: Sequence[Path],
    *,
    include_dirs: Sequence[Path] = (),
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    defines: Mapping[str, str | int] | None = None,
    extra_flags: Sequence[str] = (),
    sanitize: bool = False,
    name: str = "library",
) -> Path:
    """Build C99 sources into a shared library for this machine.

    Args:
        sources: The C files.
        include_dirs: Folders of their headers.
        toolchain: One of `host_toolchains()`; the first by default.
        opt: Optimisation flag.
        defines: Macros and their values.
        extra_flags: More compiler flags, such as warnings.
        sanitize: Check for undefined behaviour at run time: it ends the process, and says why with all but clang.
        name: Start of the file's name.

    Returns:
        The library's path in the cache, which is another one whenever any input is another.

    Raises:
        ToolchainError: A source cannot be read or does not compile, or there is no compiler.
    """
    tool = toolchain or host_toolchains()[0]
    flags = ["-std=c99", "-shared", "-fPIC", opt, *_define_flags(defines), *extra_flags]
    if sanitize:
        # clang links no sanitizer runtime, and so no messages, into a shared library.
        reaction = "-fsanitize-trap=undefined" if "clang" in tool.version else "-fno-sanitize-recover=undefined"
        flags += ["-fsanitize=undefined", reaction]
    elif tool.name == "zig":
        flags += ["-fno-sanitize=undefined"]
    if tool.name == "zig":
        flags += ["-mcpu=baseline"]
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    return _build(tool, sources, include_dirs, flags, f"{name}{suffix}")


def build_sanitized(
    sources: Sequence[Path],
    *,
    include_dirs: Sequence[Path] = (),
    toolchain: Toolchain | None = None,
    opt: str = "-O1",
    defines: Mapping[str, str | int] | None = None,
    name: str = "program",
) -> tuple[Path, tuple[str, ...]]:
    """Build C99 sources into a program for this machine that stops, and says why, where its behaviour is undefined.

    Args:
        sources: The C files, one with `main`.
        include_dirs: Folders of their headers.
        toolchain: One of `host_toolchains()`; the first by default.
        opt: Optimisation flag.
        defines: Macros and their values.
        name: Start of the file's name.

    Returns:
        The program's path in the cache, and the sanitizers in it: "undefined", and "address" where the compiler has it.

    Raises:
        ToolchainError: A source cannot be read or does not compile, the compiler has no sanitizer, or there is none.
    """
    tool = toolchain or host_toolchains()[0]
    suffix = ".exe" if sys.platform == "win32" else ""
    flags = ["-std=c99", "-g", opt, *_define_flags(defines), "-fno-omit-frame-pointer"]
    if tool.name == "zig":
        checked = ["-mcpu=baseline", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
        return _build(tool, sources, include_dirs, [*flags, *checked], f"{name}{suffix}"), ("undefined",)
    for sanitizers in (("address", "undefined"), ("undefined",)):
        checked = [f"-fsanitize={','.join(sanitizers)}", "-fno-sanitize-recover=all"]
        try:
            return _build(tool, sources, include_dirs, [*flags, *checked], f"{name}{suffix}"), sanitizers
        except ToolchainError:
            if len(sanitizers) == 1:
                raise
    raise AssertionError("unreachable")


def build_firmware(
    sources: Sequence[Path],
    target: Target,
    entry_points: Sequence[str],
    *,
    include_dirs: Sequence[Path] = (),
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    defines: Mapping[str, str | int] | None = None,
    extra_flags: Sequence[str] = (),
    stack_bytes: int | None = None,
    arena_bytes: int = 0,
    name: str = "firmware",
    must_fit: bool = True,
) -> Path:
    """Build C99 sources into a verification image: freestanding, with start-up code, laid out for the target's memory.

    The image holds the entry points and what they reach. Stack and arena are laid out between guards (see
    `native/link.ld.in`); where RAM is too small for guards they are left out, which the symbol `tnf_guard_bytes` tells.

    Args:
        sources: The C files.
        target: What to build for.
        entry_points: Functions that will be called from outside.
        include_dirs: Folders of their headers.
        toolchain: One of `arm_toolchains()`; the first by default.
        opt: Optimisation flag.
        defines: Macros and their values.
        extra_flags: More compiler flags, such as warnings.
        stack_bytes: Stack to reserve, rounded up to 16; the target's default when None.
        arena_bytes: Bytes of the arena `tnf_arena`, which also takes variables of the section ".tnf_arena".
        name: Start of the file's name.
        must_fit: Refuse an image that is too large for the target, which is linked all the same.

    Returns:
        The ELF file's path in the cache.

    Raises:
        ToolchainError: A source cannot be read, does not compile or link, or there is no compiler.
        TargetError: The image is larger than the target's flash or RAM; the message says by how much.
    """
    tool = toolchain or arm_toolchains()[0]
    stack = target.stack_bytes if stack_bytes is None else -(-stack_bytes // 16) * 16
    flags = _firmware_flags(target, tool, opt, defines, extra_flags)
    every_source = [*sources, NATIVE / "startup.c", NATIVE / "runtime.c"]
    for guard in (GUARD_BYTES, 0):
        script = _link_script(target, entry_points, stack, arena_bytes, guard)
        elf = _build(tool, every_source, include_dirs, flags, f"{name}.elf", script)
        symbols = elf_symbols(elf)
        undefined = [point for point in entry_points if point not in symbols]
        if undefined:
            raise ToolchainError(f"{name}: no source defines the entry points {', '.join(undefined)}")
        if symbols["tnf_arena_end"] <= target.data.end:
            break
    if must_fit:
        image_usage(elf, target)
        over = symbols["tnf_arena_end"] - target.data.end
        if over > 0:
            raise TargetError(
                f"{name} needs {over} bytes more RAM than the {target.data.size} of {target.name}'s {target.data.name}"
            )
    return elf


def stack_usage(
    sources: Sequence[Path],
    target: Target,
    *,
    include_dirs: Sequence[Path] = (),
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    extra_flags: Sequence[str] = (),
) -> dict[str, int]:
    """Stack that each function takes by itself, by the compiler's own account (-fstack-usage).

    Args:
        sources: The C files.
        target: What to build for.
        include_dirs: Folders of their headers.
        toolchain: One of `arm_toolchains()`; the first by default.
        opt: Optimisation flag.
        extra_flags: More compiler flags, such as warnings.

    Returns:
        Bytes by the function's name; of functions of one name the largest. Functions without a known size, and those
        that were inlined everywhere, are missing; all are where the compiler keeps no account.

    Raises:
        ToolchainError: A source cannot be read or does not compile, or there is no compiler.
    """
    tool = toolchain or arm_toolchains()[0]
    flags = _firmware_flags(target, tool, opt, None, extra_flags)
    found: dict[str, int] = {}
    for source in [*sources, NATIVE / "startup.c", NATIVE / "runtime.c"]:
        account = _build(tool, [source], include_dirs, [*flags, "-c", "-fstack-usage"], f"{source.stem}.su")
        for line in account.read_text(encoding="utf-8").splitlines():
            where, size, kind = line.rsplit("\t", 2)
            function = where.rsplit(":", 1)[-1]
            if kind != "dynamic":
                found[function] = max(found.get(function, 0), int(size))
    return found


def elf_symbols(elf: Path) -> dict[str, int]:
    """Address of each named symbol of an ELF file; a function's has bit 0 set, as Thumb code has it.

    Raises:
        ToolchainError: The file is no ELF file with symbols.
    """
    with elf.open("rb") as stream:
        table = _open_elf(elf, stream).get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            raise ToolchainError(f"{elf} has no symbol table; link it without stripping")
        return {s.name: int(s["st_value"]) for s in table.iter_symbols() if s.name and s["st_shndx"] != "SHN_UNDEF"}


def image_usage(elf: Path, target: Target) -> tuple[int, int]:
    """Flash and RAM that a linked image takes.

    Args:
        elf: The image, however it was linked.
        target: What it was linked for.

    Returns:
        (flash bytes: code, constants, initial values of variables; RAM bytes: variables, and the stack and arena that
        the image reserves). Gaps for alignment between sections are not counted.

    Raises:
        TargetError: One of them is more than the target has; the message says by how much.
        ToolchainError: The file is no ELF file.
    """
    flash = ram = 0
    with elf.open("rb") as stream:
        for section in _open_elf(elf, stream).iter_sections():
            alloc, write = section["sh_flags"] & 2, section["sh_flags"] & 1
            stored = section["sh_type"] != "SHT_NOBITS"
            if alloc:
                flash += section["sh_size"] if stored else 0
                ram += section["sh_size"] if write or not stored else 0
    for kind, used, region in (("flash", flash, target.code), ("RAM", ram, target.data)):
        if used > region.size:
            raise TargetError(
                f"the image needs {used} bytes of {kind}, {used - region.size} more than the {region.size} of "
                f"{target.name}'s {region.name}"
            )
    return flash, ram


def _open_elf(path: Path, stream: IO[bytes]) -> ELFFile:
    try:
        return ELFFile(stream)
    except ELFError as error:
        raise ToolchainError(f"{path} is no ELF file: {error}") from error


def _firmware_flags(
    target: Target, tool: Toolchain, opt: str, defines: Mapping[str, str | int] | None, extra: Sequence[str]
) -> list[str]:
    flags = [*_core_flags(target, tool), *_FIRMWARE_FLAGS, opt, *_define_flags(defines), *extra]
    # A freestanding compiler turns each memcpy of a word into a call. zig sets -ffreestanding and drops -fbuiltin.
    if tool.name == "zig":
        return [*flags, "-fhosted", "-fno-sanitize=undefined"]
    return [*flags, "-ffreestanding", "-fbuiltin", "-nostdlib", "-nostartfiles"]


def _core_flags(target: Target, tool: Toolchain) -> list[str]:
    hard = target.fpu != "none"
    defines = [f"-D{name}" for name in target.definitions]
    if tool.name == "zig":
        dsp = "+dsp" if target.dsp else ""  # zig's own model of a Cortex-M33 lacks it
        cpu = target.core.replace("-", "_") + dsp + _ZIG_FPUS.get((target.core, target.fpu), "")
        return ["-target", f"thumb-freestanding-{'eabihf' if hard else 'eabi'}", f"-mcpu={cpu}", *defines]
    fpu = [f"-mfpu={_GCC_FPUS[target.core, target.fpu]}"] if hard else []
    return [f"-mcpu={target.core}", f"-mfloat-abi={'hard' if hard else 'soft'}", *fpu, *defines]


def _define_flags(defines: Mapping[str, str | int] | None) -> list[str]:
    return [f"-D{name}={value}" for name, value in (defines or {}).items()]


def _link_script(target: Target, roots: Sequence[str], stack: int, arena: int, guard: int) -> str:
    values = {
        "ROOTS": " ".join(f'"{root}"' for root in roots),  # quoted, since GNU ld takes some plain names for keywords
        "FLASH_ORIGIN": target.code.origin,
        "RAM_ORIGIN": target.data.origin,
        "STACK_BYTES": stack,
        "ARENA_BYTES": arena,
        "ARENA_START": max(target.data.origin, (target.data.end - arena) // 16 * 16),
        "GUARD": guard,
        "ALIGN": guard or 16,
    }
    text = (NATIVE / "link.ld.in").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def _environment() -> dict[str, str]:
    zig = str(cache_folder() / "zig")
    return os.environ | {"ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig, "LC_ALL": "C"}


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:20]


def _build(
    tool: Toolchain,
    sources: Sequence[Path],
    include_dirs: Sequence[Path],
    flags: Sequence[str],
    file_name: str,
    link_script: str = "",
) -> Path:
    """Compile and link in one command, in a temporary folder, unless the cache holds the result already."""
    sources = [path.absolute() for path in sources]
    folders = [path.absolute() for path in include_dirs]
    headers = sorted({h for d in folders for h in d.rglob("*.h")} | {h for s in sources for h in s.parent.glob("*.h")})
    try:
        contents = [part for path in (*sources, *headers) for part in (path.name, path.read_bytes())]
    except OSError as error:
        raise ToolchainError(f"source {error.filename} cannot be read: {error.strerror}") from error
    key = _digest([tool.name, tool.version, link_script, *flags, *contents])
    result = cache_folder() / "build" / f"{Path(file_name).stem}-{key}{Path(file_name).suffix}"
    if result.exists():
        return result
    result.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=result.parent, prefix="tmp-") as folder:
        output = Path(folder) / file_name
        environment, made = _environment(), output
        if output.suffix == ".su":  # an account of the stack lies beside the object, or where zig compiles it
            made = output.with_suffix(".o")
            environment["ZIG_LOCAL_CACHE_DIR"] = folder
        command = [*tool.command, *flags, *(f"-I{d}" for d in folders), *map(str, sources), "-o", str(made)]
        if link_script:
            (Path(folder) / "link.ld").write_text(link_script, encoding="utf-8")
            command += ["-Wl,-T,link.ld"]
            command += [] if tool.name == "zig" else ["-lgcc"]  # zig adds its own compiler-rt
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if made is not output:
            output = next(Path(folder).rglob("*.su"), output)
        if done.returncode != 0 or not output.exists():
            raise ToolchainError(f"{tool.name} cannot build {file_name}: {_first_errors(done.stderr)}")
        output.replace(result)
    return result


def _first_errors(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "undefined reference" in line] or lines
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    return "; ".join(errors[:3]) + more
