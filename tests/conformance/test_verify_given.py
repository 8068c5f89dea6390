"""Images that somebody else linked: a linker script, start-up code and an arena of their own."""

import subprocess
from pathlib import Path

import pytest

from codegen.generate import GeneratedModel, generate
from codegen.target import load_target
from conformance.models import ModelUnderTest, random_samples
from conformance.toolchain import NATIVE, arm_toolchains
from conformance.verify.given import Given, image_symbols, read_map
from conformance.verify.result import Check, Outcome
from conformance.verify.runner import Plan, verify
from refsim.errors import DataError, ToolchainError
from tests.conformance.test_verify_defects import GRAPH

TARGET = "stm32f103"  # Cortex-M3: neither FPU nor DSP extension
SCRIPT = """
ENTRY(reset)
MEMORY { FLASH (rx) : ORIGIN = 0x08000000, LENGTH = 64K  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 20K }
_estack = ORIGIN(RAM) + LENGTH(RAM);
SECTIONS
{
  .isr_vector : { KEEP(*(.isr_vector)) } > FLASH
  .text : { *(.text .text.* .rodata .rodata.*) } > FLASH
  .data : { *(.data .data.*) } > RAM AT > FLASH
  .bss (NOLOAD) : { *(.bss .bss.*) } > RAM
  /DISCARD/ : { *(.ARM.exidx* .comment .note.*) }
}
"""
MAIN = """
#include "model.h"
extern int _estack;
int8_t arena[MODEL_ARENA_BYTES] __attribute__((aligned(MODEL_ARENA_ALIGNMENT)));
int32_t runs = 41;
void reset(void);
__attribute__((section(".isr_vector"), used)) const void *const vectors[] = {&_estack, (void *)reset};
void reset(void)
{
    *(volatile uint32_t *)0x40021000 = 1u; /* a peripheral, which is not there */
    model_run(arena);
    runs++;
    for (;;) {
    }
}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    return generate(GRAPH, load_target(TARGET), tmp_path_factory.mktemp("given") / "out")


@pytest.fixture(scope="module")
def elf(model: GeneratedModel) -> Path:
    """The image, and its map beside it."""
    folder = model.folder.parent
    (folder / "main.c").write_text(MAIN)
    (folder / "own.ld").write_text(SCRIPT)
    zig = next(tool for tool in arm_toolchains() if tool.name == "zig")
    flags = [
        "-target",
        "thumb-freestanding-eabi",
        "-mcpu=cortex_m3",
        "-O2",
        "-g",
        "-fhosted",
        "-fno-sanitize=undefined",
    ]
    sources = [folder / "main.c", NATIVE / "runtime.c", *model.sources]
    flags += [*(f"-I{path}" for path in model.include_dirs), "-Wl,-T,own.ld", "-o", "image.elf"]
    done = subprocess.run(
        [*zig.command, *flags, *map(str, sources)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "image.elf"


def run(model: GeneratedModel, given: Given) -> dict[str, Check]:
    plan = Plan(
        path=model.header,
        model=ModelUnderTest(GRAPH, random_samples(GRAPH, 2)),
        targets=[model.target],
        compilers=[],
        folder=model.folder,
        given=given,
    )
    return {check.name: check for check in verify(plan)[0].checks}


def test_an_image_of_the_users_is_examined(model: GeneratedModel, elf: Path) -> None:
    checks = run(model, Given(elf, image_symbols(elf, None), "model_run", "arena"))
    names = ("flash", "ram", "bit-exact", "memory-access", "alignment", "uninitialised", "deterministic", "stack")
    assert {name: checks[name].outcome for name in (*names, "latency")} == dict.fromkeys((*names, "latency"), "passed")
    ram = checks["ram"].detail
    assert f"arena {model.arena_bytes}" in ram
    assert "stack" in ram


def test_a_wrong_byte_in_its_flash_is_found(model: GeneratedModel, elf: Path, tmp_path: Path) -> None:
    symbols = image_symbols(elf, None)
    wrong = tmp_path / "wrong.elf"
    data = bytearray(elf.read_bytes())
    weight = model.program.graph.nodes[0].op.weight.tobytes()
    at = data.index(weight)
    data[at] ^= 0x40
    wrong.write_bytes(data)
    check = run(model, Given(wrong, symbols, "model_run", "arena"))["bit-exact"]
    assert check.outcome is Outcome.FAILED
    assert "the model's output" in check.detail


def test_an_image_without_the_symbols_is_measured_but_not_run(model: GeneratedModel, elf: Path) -> None:
    checks = run(model, Given(elf, image_symbols(elf, None), "model_run", "nowhere"))
    assert checks["flash"].outcome is Outcome.PASSED
    assert checks["bit-exact"].outcome is Outcome.NOT_RUN
    assert "'nowhere'" in checks["bit-exact"].detail


def test_symbols_come_from_the_map_where_the_image_is_stripped(elf: Path, tmp_path: Path) -> None:
    symbols = image_symbols(elf, None)
    gnu, lld = tmp_path / "gnu.map", tmp_path / "lld.map"
    run_at, arena_at = symbols["model_run"], symbols["arena"]
    gnu.write_text(
        f" .text.model_run\n                0x{run_at:016x}      0x120 model.o\n"
        f"                0x{run_at:016x}                model_run\n"
        f"                0x{arena_at:08x}                arena\n"
    )
    lld.write_text(
        "     VMA      LMA     Size Align Out     In      Symbol\n"
        f"{run_at:8x} {run_at:8x}      120     1                 model_run\n"
        f"{arena_at:8x} {arena_at:8x}      200     1                 arena\n"
    )
    for path in (gnu, lld):
        found = read_map(path)
        assert (found["model_run"], found["arena"]) == (run_at, arena_at)


def test_what_is_no_image_and_no_map(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("nothing of the kind\n")
    with pytest.raises(DataError, match="no map of GNU ld or LLD"):
        read_map(text)
    with pytest.raises(ToolchainError, match="is no ELF file"):
        image_symbols(text, None)
