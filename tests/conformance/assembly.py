"""Thumb instructions from their text, for the tests of the timing models."""

import subprocess
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

from conformance.timing.core import Block
from conformance.timing.instructions import decode
from conformance.toolchain import available_toolchains


def assemble(*snippets: str) -> list[bytes]:
    """Machine code of each snippet: lines, or instructions separated by ";", with labels of its own ("1:")."""
    zig = next(s.toolchain for s in available_toolchains() if (s.name, s.kind) == ("zig", "cortex-m"))
    assert zig is not None
    lines = [".syntax unified", ".thumb", ".text"]
    for number, snippet in enumerate(snippets):
        lines += [".balign 4", f"begin_{number}:", *snippet.split(";"), f"end_{number}:"]
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "code.s", Path(folder) / "code.o"
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        cpu = ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16"]
        subprocess.run([*zig.command, *cpu, "-c", str(source), "-o", str(output)], check=True)
        with output.open("rb") as stream:
            file = ELFFile(stream)
            text = file.get_section_by_name(".text").data()
            symbols = {s.name: s["st_value"] for s in file.get_section_by_name(".symtab").iter_symbols()}
    return [text[symbols[f"begin_{n}"] : symbols[f"end_{n}"]] for n in range(len(snippets))]


def block(code: bytes, start: int = 0) -> Block:
    """Decoded code as a block at an address."""
    return Block(start, len(code), decode(code, start))
