"""Links a firmware that boots, on a board that QEMU emulates or on a target whose debugger serves semihosting."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from codegen.generate import GeneratedModel
from codegen.program import PortPlace
from codegen.target import Target, load_target
from conformance.toolchain import Toolchain, build_firmware

FIRMWARE = Path(__file__).parent
"""Folder of the C sources."""

_BOOT = (FIRMWARE / "boot.c", FIRMWARE / "semihosting.c")


@functools.cache
def boards() -> Mapping[str, Target]:
    """The boards that QEMU emulates, by core; a board's name is that of QEMU's machine."""
    return {board.core: board for board in map(load_target, sorted((FIRMWARE / "boards").glob("*.toml")))}


def board_for(target: Target) -> Target | None:
    """The board whose memory stands in for a target's: same core, and an FPU that runs its code.

    Returns:
        The board, with the target's FPU, so that the compiler builds the target's code. None where QEMU has no board
        with that core and memory for models.
    """
    board = boards().get(target.core)
    return None if board is None else dataclasses.replace(board, fpu=target.fpu)


def build_board_firmware(
    model: GeneratedModel,
    board: Target,
    *,
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    extra_flags: Sequence[str] = (),
) -> Path:
    """Build a firmware that runs a trace build of a model on every sample of a file (see `firmware/model.c`).

    Args:
        model: the generated folder.
        board: whose memory to link for.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        extra_flags: more compiler flags.

    Returns:
        The ELF file's path in the cache. Its bytes do not depend on the samples.

    Raises:
        ToolchainError: a source does not compile, or there is no compiler.
        TargetError: the image is larger than the board's memory.
    """
    return build_program_firmware(
        [*model.sources, FIRMWARE / "model.c"],
        board,
        include_dirs=model.include_dirs,
        defines={
            "TNF_TRACE": 1,
            "TNF_RUN": f"{model.prefix}_run",
            "TNF_ARENA_BYTES": f"{model.arena_bytes}u",
            "TNF_INPUTS": _ports(model.inputs),
            "TNF_OUTPUTS": _ports(model.outputs),
        },
        toolchain=toolchain,
        opt=opt,
        extra_flags=extra_flags,
        arena_bytes=model.arena_bytes,
        name=f"{model.prefix}-{board.name}",
    )


def build_program_firmware(
    sources: Sequence[Path],
    board: Target,
    *,
    include_dirs: Sequence[Path] = (),
    defines: Mapping[str, str | int] | None = None,
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    extra_flags: Sequence[str] = (),
    arena_bytes: int = 0,
    name: str = "firmware",
) -> Path:
    """Build a firmware around C sources that define `tnf_program` (see `firmware/boot.h`).

    Args:
        sources: the C files.
        board: what to build for.
        include_dirs: folders of their headers.
        defines: macros and their values.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        extra_flags: more compiler flags.
        arena_bytes: of `tnf_arena`.
        name: start of the file's name.

    Returns:
        The ELF file's path in the cache.

    Raises:
        ToolchainError: a source does not compile, or there is no compiler.
        TargetError: the image is larger than the board's memory.
    """
    return build_firmware(
        [*sources, *_BOOT],
        board,
        ["tnf_program"],
        include_dirs=[*include_dirs, FIRMWARE],
        defines={"TNF_BOOT": 1, **(defines or {})},
        toolchain=toolchain,
        opt=opt,
        extra_flags=extra_flags,
        arena_bytes=arena_bytes,
        name=name,
    )


def _ports(ports: Sequence[PortPlace]) -> str:
    return ",".join(f"{{{port.offset}u,{port.bytes}u}}" for port in ports)
