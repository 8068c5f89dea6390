"""Compilers: found or reported absent, builds cached, errors clear, images measured against their target."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.target import MemoryRegion, Target, load_target
from conformance.emulator import CortexM
from conformance.toolchain import (
    NATIVE,
    Toolchain,
    ToolchainStatus,
    arm_toolchains,
    available_toolchains,
    build_firmware,
    build_shared_library,
    elf_symbols,
    host_toolchains,
    image_usage,
)
from refsim.errors import TargetError, ToolchainError

STATUSES = available_toolchains()
ROOT = Path(__file__).parents[2]


def present(status: ToolchainStatus) -> Toolchain:
    """The status's compiler; the test is skipped, and says so, where it is not installed."""
    if status.toolchain is None:
        pytest.skip(f"{status.name} for {status.kind}: {status.detail}")
    return status.toolchain


def identify(status: ToolchainStatus) -> str:
    return f"{status.name}-{status.kind}"


@pytest.fixture(params=[s for s in STATUSES if s.kind == "host"], ids=identify)
def host(request: pytest.FixtureRequest) -> Toolchain:
    return present(request.param)


@pytest.fixture(params=[s for s in STATUSES if s.kind == "cortex-m"], ids=identify)
def arm(request: pytest.FixtureRequest) -> Toolchain:
    return present(request.param)


@pytest.fixture
def no_compilers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", "")
    available_toolchains.cache_clear()
    yield
    monkeypatch.undo()
    available_toolchains.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.c"
    path.write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    (tmp_path / "answer.h").write_text("#define ANSWER 42\nint answer(void);\n")
    return path


# Which compilers are here


def test_every_compiler_is_reported_present_or_absent() -> None:
    assert [(s.name, s.kind) for s in STATUSES] == [
        ("zig", "host"),
        ("zig", "cortex-m"),
        ("cc", "host"),
        ("gcc", "host"),
        ("clang", "host"),
        ("arm-none-eabi-gcc", "cortex-m"),
    ]
    assert all(status.detail for status in STATUSES)


@pytest.mark.usefixtures("no_compilers")
def test_zig_alone_is_enough_and_absence_is_reported() -> None:
    assert [t.name for t in host_toolchains()] == [t.name for t in arm_toolchains()] == ["zig"]
    absent = [s for s in available_toolchains() if s.toolchain is None]
    assert [s.name for s in absent] == ["cc", "gcc", "clang", "arm-none-eabi-gcc"]
    assert all(s.detail.startswith("not found (optional: install") for s in absent)


@pytest.mark.usefixtures("no_compilers")
def test_no_compiler_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ToolchainError, match="no C compiler for host was found; .* pip install ziglang"):
        host_toolchains()
    with pytest.raises(ToolchainError, match="no C compiler for cortex-m was found"):
        arm_toolchains()


# The cache


def test_same_content_is_built_once(source: Path, host: Toolchain) -> None:
    first = build_shared_library([source], toolchain=host, name="once")
    stamp = first.stat().st_mtime_ns
    copy = source.parent / "elsewhere"
    copy.mkdir()
    for path in list(source.parent.glob("answer.*")):
        (copy / path.name).write_bytes(path.read_bytes())
    assert build_shared_library([copy / "answer.c"], toolchain=host, name="once") == first
    assert first.stat().st_mtime_ns == stamp


def test_any_change_gives_another_file(source: Path) -> None:
    tool = host_toolchains()[0]
    built = {build_shared_library([source], toolchain=tool)}
    built.add(build_shared_library([source], toolchain=tool, opt="-O1"))
    built.add(build_shared_library([source], toolchain=tool, defines={"MORE": 1}))
    built.add(build_shared_library([source], toolchain=tool, extra_flags=["-Wall"]))
    built.add(build_shared_library([source], toolchain=replace(tool, version="other")))
    (source.parent / "answer.h").write_text("#define ANSWER 43\nint answer(void);\n")
    built.add(build_shared_library([source], toolchain=tool))
    assert len(built) == 6


def test_two_processes_build_the_same_at_once(source: Path, tmp_path: Path) -> None:
    tool = host_toolchains()[-1]
    marker = source.parent.name.replace("-", "_")
    script = (
        "import sys; from pathlib import Path; from conformance.toolchain import *;"
        "tool = next(t for t in host_toolchains() if t.name == sys.argv[2]);"
        "print(build_shared_library([Path(sys.argv[1])], toolchain=tool, defines={'M': sys.argv[3]}))"
    )
    command = [
        sys.executable,
        "-c",
        script,
        str(source),
        tool.name,
        f"{marker}{tmp_path.parent.name}".replace("-", "_"),
    ]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(outputs) == 1
    built = Path(outputs.pop())
    assert built.stat().st_size > 0
    built.unlink()


def test_nothing_is_left_behind(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: Toolchain) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    build_shared_library([source], toolchain=host, name="clean")
    source.write_text("int f(void) { return }\n")
    with pytest.raises(ToolchainError):
        build_shared_library([source], toolchain=host, name="clean")
    assert list(work.iterdir()) == []
    assert sorted(p.name for p in source.parent.iterdir()) == ["answer.c", "answer.h", "work"]


# Errors of the compiler


def test_compile_error_is_one_message(source: Path, host: Toolchain) -> None:
    source.write_text("int f(void) { return undeclared; }\n")
    with pytest.raises(
        ToolchainError, match=rf"^{host.name} cannot build wrong\.\w+: .*answer\.c:1.*undeclared"
    ) as caught:
        build_shared_library([source], toolchain=host, name="wrong")
    assert "\n" not in str(caught.value)


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"source .*absent\.c cannot be read: No such file"):
        build_shared_library([tmp_path / "absent.c"])


def test_sanitizer_stops_undefined_behaviour(tmp_path: Path, host: Toolchain) -> None:
    path = tmp_path / "shift.c"
    path.write_text("int shift(int by) { return 1 << by; }\n")
    built = build_shared_library([path], toolchain=host, sanitize=True, name="sanitized")
    call = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).shift(int(sys.argv[2])))"
    good, bad = (
        subprocess.run([sys.executable, "-c", call, str(built), by], capture_output=True, text=True, check=False)
        for by in ("3", "33")
    )
    assert (good.returncode, good.stdout) == (0, "8\n")
    assert bad.returncode != 0
    assert "shift exponent 33" in bad.stderr or "clang" in host.version


# Firmware


def test_own_c_is_free_of_warnings(arm: Toolchain, host: Toolchain) -> None:
    strict = ["-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wmissing-prototypes", "-Werror"]
    for name in ("stm32f746", "rp2040"):
        build_firmware([], load_target(name), ["tnf_start"], toolchain=arm, extra_flags=strict)
    build_shared_library([NATIVE / "block_hook.c"], toolchain=host, extra_flags=strict)


def test_usage_is_that_of_the_sections(tmp_path: Path, arm: Toolchain) -> None:
    target = load_target("stm32f746")
    path = tmp_path / "sizes.c"
    path.write_text(
        "const unsigned char table[3000] = {1}; unsigned char state[500] = {1}; unsigned char zeroed[700];\n"
        "int get(int i) { return table[i] + state[i]++ + zeroed[i]++; }\n"
        "unsigned char unused[9999]; int unreached(int i) { return unused[i]++; }\n"
    )

    def usage(entry: str) -> tuple[int, int]:
        built = build_firmware([path], target, [entry], toolchain=arm, stack_bytes=1024, arena_bytes=4096)
        return image_usage(built, target)

    flash, ram = usage("get")
    assert 0 <= ram - (1024 + 4096 + 500 + 700) < 64
    assert 3500 < flash < 3500 + 1000
    assert usage("unreached")[1] - (1024 + 4096 + 9999) in range(64)


@pytest.mark.parametrize("statics", ["", "int zeroed[9];", "int set[9] = {1};", "int zeroed[9], set[9] = {1};"])
def test_statics_lie_between_the_guards(statics: str, tmp_path: Path, arm: Toolchain) -> None:
    path = tmp_path / "statics.c"
    used = " + ".join(f"{name}[i]++" for name in ("zeroed", "set") if name in statics) or "0"
    path.write_text(f"{statics}\nint get(int i) {{ return i + {used}; }}\n")
    symbols = elf_symbols(build_firmware([path], load_target("stm32f746"), ["get"], toolchain=arm))
    guard = symbols["tnf_guard_bytes"]
    assert symbols["tnf_stack_top"] + guard <= symbols["tnf_data_start"] <= symbols["tnf_data_end"]
    assert symbols["tnf_data_end"] == symbols["tnf_bss_start"] <= symbols["tnf_bss_end"]
    assert symbols["tnf_bss_end"] + guard <= symbols["tnf_arena"]


def test_layout_and_vectors(source: Path, arm: Toolchain) -> None:
    target = load_target("stm32f407")
    built = build_firmware([source], target, ["answer"], toolchain=arm, stack_bytes=1000, arena_bytes=100)
    symbols = elf_symbols(built)
    assert symbols["tnf_vectors"] == target.code.origin
    assert symbols["tnf_stack_bottom"] == target.data.origin
    assert symbols["tnf_stack_top"] - symbols["tnf_stack_bottom"] == 1008
    assert symbols["tnf_arena_end"] - symbols["tnf_arena"] == 100
    assert symbols["tnf_arena"] % 16 == symbols["tnf_stack_top"] % 16 == 0
    assert symbols["answer"] & 1


def small(flash_kb: int, ram_kb: int) -> Target:
    regions = (
        MemoryRegion("flash", "flash", "rx", 0x0800_0000, flash_kb * 1024, "test"),
        MemoryRegion("sram", "ram", "rw", 0x2000_0000, ram_kb * 1024, "test"),
    )
    return replace(load_target("stm32f407"), name="small", memory=regions, stack_bytes=1024)


def test_image_larger_than_flash(tmp_path: Path, arm: Toolchain) -> None:
    path = tmp_path / "large.c"
    path.write_text("const unsigned char table[9000] = {1}; int get(int i) { return table[i]; }\n")
    fits = small(16, 8)
    needed, _ = image_usage(build_firmware([path], fits, ["get"], toolchain=arm), fits)
    with pytest.raises(
        TargetError, match=rf"needs {needed} bytes of flash, {needed - 8192} more than the 8192 of small's flash"
    ):
        build_firmware([path], small(8, 8), ["get"], toolchain=arm)


def test_image_larger_than_ram(source: Path, arm: Toolchain) -> None:
    with pytest.raises(TargetError, match=r"needs 9024 bytes of RAM, 832 more than the 8192 of small's sram"):
        build_firmware([source], small(8, 8), ["answer"], toolchain=arm, arena_bytes=8000)


def test_undefined_entry_point_or_function(source: Path, arm: Toolchain) -> None:
    target = load_target("stm32f746")
    with pytest.raises(ToolchainError, match="question"):
        build_firmware([source], target, ["answer", "question"], toolchain=arm)
    source.write_text("int elsewhere(void); int answer(void) { return elsewhere(); }\n")
    with pytest.raises(ToolchainError, match="elsewhere"):
        build_firmware([source], target, ["answer"], toolchain=arm)


def test_word_copies_are_not_calls(tmp_path: Path, arm: Toolchain) -> None:
    path = tmp_path / "word.c"
    path.write_text(
        "#include <stdint.h>\nvoid *memcpy(void *restrict, const void *restrict, __SIZE_TYPE__);\n"
        "uint32_t word(const uint8_t *p) { uint32_t w; memcpy(&w, p, 4); return w; }\n"
    )
    target = load_target("stm32f746")
    machine = CortexM(target, build_firmware([path], target, ["word"], toolchain=arm))
    assert machine.call("word", target.code.origin).instructions == 2  # LDR, BX


def test_files_that_are_no_images(source: Path) -> None:
    for read in (elf_symbols, lambda path: image_usage(path, load_target("stm32f746"))):
        with pytest.raises(ToolchainError, match=r"answer\.c is no ELF file"):
            read(source)
