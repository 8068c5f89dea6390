"""The emulated Cortex-M: results, guards, messages, and instruction counts that are exact."""

import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import arm_const, unicorn_const

from codegen.target import MemoryRegion, Target, load_target
from conformance.emulator import HOST_WINDOW, CortexM, StrayAccess
from conformance.host import HostLibrary
from conformance.toolchain import (
    Toolchain,
    available_toolchains,
    build_firmware,
    build_shared_library,
)
from refsim.errors import EmulationError, TargetError

SOURCE = Path(__file__).with_name("firmware.c")
ENTRY_POINTS = [
    "answer",
    "statics",
    "six",
    "wide",
    "sum",
    "three_operators",
    "half_rounded",
    "copy",
    "poke",
    "peek",
    "poke_in_operator",
    "past_arena",
    "recurse",
    "jump",
    "forever",
    "load_multiple",
    "divide",
    "add_bytes",
    "add_floats",
]
TARGETS = ("stm32f746", "stm32f407", "stm32u575", "rp2040")
COMPILERS = tuple(status.name for status in available_toolchains() if status.kind == "cortex-m")
ARENA_BYTES = 5003


def compiler(name: str) -> Toolchain:
    """The Cortex-M compiler of that name; the test is skipped, and says so, where it is not installed."""
    for status in available_toolchains():
        if status.kind == "cortex-m" and status.name == name:
            if status.toolchain is None:
                pytest.skip(f"{name}: {status.detail}")
            return status.toolchain
    raise AssertionError(name)


@cache
def image(target: Target, compiler_name: str = "zig", arena_bytes: int = ARENA_BYTES) -> Path:
    extra = () if target.core == "cortex-m0plus" else ("conditional_poke",)
    return build_firmware(
        [SOURCE],
        target,
        [*ENTRY_POINTS, *extra],
        toolchain=compiler(compiler_name),
        arena_bytes=arena_bytes,
        stack_bytes=2000,
        extra_flags=("-Wall", "-Wextra", "-Werror"),
        name="emulator_test",
    )


@pytest.fixture(scope="module", params=[(t, c) for t in TARGETS for c in COMPILERS], ids="-".join)
def machine(request: pytest.FixtureRequest) -> CortexM:
    target_name, compiler_name = request.param
    target = load_target(target_name)
    return CortexM(target, image(target, compiler_name))


@pytest.fixture
def m7() -> CortexM:
    target = load_target("stm32f746")
    return CortexM(target, image(target))


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFFFFFF for value in values))


# Results


def test_calls_pass_and_return_values(machine: CortexM) -> None:
    assert machine.call("answer").r0 == 42
    assert machine.call("six", 1, 2, 3, 4, 5, 6).r0 == 654321
    assert machine.call("six", -1, 0, 0, 0, 0, 0).r0 == 0xFFFFFFFF
    numerator = -123456789012345
    result = machine.call("wide", numerator & 0xFFFFFFFF, numerator >> 32, 1000, 0)
    assert struct.unpack("<q", words(result.r0, result.r1)) == (-123456789012,)


def test_structures_and_constant_data_in_flash(machine: CortexM) -> None:
    data = random.Random(1).randbytes(777)
    flash, arena = machine.flash_free[0], machine.arena[0]
    machine.write(flash, data)
    machine.write(arena, words(len(data), flash, 9))
    expected = 9
    for byte in data:
        expected = (expected * 31 + byte) % 2**32
    assert machine.call("sum", arena).r0 == expected
    assert machine.read(flash, len(data)) == data


def test_start_up_initialises_statics_and_reset_does_so_again(machine: CortexM) -> None:
    machine.reset()
    assert [machine.call("statics").r0 for _ in range(3)] == [4321, 4323, 4325]
    machine.reset()
    assert machine.call("statics").r0 == 4321


def test_floating_point_runs(machine: CortexM) -> None:
    assert machine.call("half_rounded", -2001).r0 == -1000 & 0xFFFFFFFF


def test_fpu_is_used_where_the_target_has_one(machine: CortexM) -> None:
    assert ("__aeabi_fmul" in machine.symbols) == (machine.target.fpu == "none")


def test_memory_functions_of_the_runtime(machine: CortexM) -> None:
    generator = random.Random(2)
    arena = machine.arena[0]
    for _ in range(50):
        size, to, source = generator.randrange(70), generator.randrange(8), 1000 + generator.randrange(8)
        before = generator.randbytes(2000)
        machine.write(arena, before)
        machine.call("copy", arena + to, arena + source, size)
        expected = bytearray(before)
        expected[to : to + size] = before[source : source + size]
        assert machine.read(arena, 2000) == expected


# Guards and messages


def stray(machine: CortexM, function: str, *arguments: int) -> StrayAccess:
    for _ in range(2):  # the second time around, the address is in the emulator's caches
        with pytest.raises(StrayAccess) as caught:
            machine.call(function, *arguments)
    assert machine.call("answer").r0 == 42, "a fault must not harm the next call"
    return caught.value


def test_guards_are_pages(machine: CortexM) -> None:
    assert machine.guards == machine.call("answer").guards == "pages"
    assert machine.stack[0] == machine.target.data.origin
    assert machine.target.data.end - machine.arena[1] < 16


def test_write_past_the_arena(machine: CortexM) -> None:
    end = machine.target.data.end
    error = stray(machine, "poke", end)
    assert (error.kind, error.address, error.size, error.operator) == ("write", end, 1, None)
    assert f"byte {end - machine.arena[1] + 1} past the end of the arena" in str(error)
    assert f"poke+0x{error.pc - (machine.symbols['poke'] & ~1):x} `str" in str(error)
    with pytest.raises(EmulationError, match="byte 1 past the end of the arena"):
        machine.call("past_arena", 0)
    assert machine.call("answer").r0 == 42


def test_access_below_the_arena(machine: CortexM) -> None:
    start = machine.arena[0]
    with pytest.raises(EmulationError, match="1 bytes below the arena"):
        machine.call("poke", start - 1)
    page = start // 1024 * 1024
    assert stray(machine, "poke", page - 1).address == page - 1
    assert stray(machine, "peek", page - 4).kind == "read"


def test_access_between_stack_and_statics(machine: CortexM) -> None:
    error = stray(machine, "peek", machine.symbols["tnf_data_start"] - 4)
    assert "4 bytes below the static data" in str(error)
    with pytest.raises(EmulationError, match="byte 1 past the end of the stack"):
        machine.call("poke", machine.stack[1])


def test_stack_overflow(machine: CortexM) -> None:
    assert machine.call("recurse", 5).r0 == 15
    assert 5 * 64 <= machine.call("recurse", 5).stack_bytes <= 1000
    error = stray(machine, "recurse", 1000)
    assert error.kind == "write" and error.address < machine.stack[0]
    assert "below the stack" in str(error) and "recurse+" in str(error)


def test_flash_is_read_only(machine: CortexM) -> None:
    before = machine.read(machine.target.code.origin, 4)
    error = stray(machine, "poke", machine.target.code.origin)
    assert error.kind == "write" and "image, which is read-only" in str(error)
    assert "free flash, which is read-only" in str(stray(machine, "poke", machine.flash_free[0]))
    assert machine.read(machine.target.code.origin, 4) == before


@pytest.mark.parametrize("address", [0, 0x4000_0000, 0xE000_ED88, HOST_WINDOW])
def test_nothing_else_is_mapped(machine: CortexM, address: int) -> None:
    error = stray(machine, "poke", address)
    assert error.address == address and "where no memory is" in str(error)
    assert stray(machine, "peek", address).size == 4


def test_jump_to_where_no_code_is(machine: CortexM) -> None:
    for address in (0x6000_0000, machine.arena[0]):
        error = stray(machine, "jump", address | 1)
        assert (error.kind, error.address) == ("fetch", address)
        assert "jump+" in str(error)


def test_fault_inside_an_it_block(m7: CortexM) -> None:
    assert stray(m7, "conditional_poke", 0).kind == "write"


def test_operator_is_named(m7: CortexM) -> None:
    error = stray(m7, "poke_in_operator", 0x30)
    assert error.operator == 1 and str(error).startswith("operator 1: poke_in_operator+")
    m7.operator_names = ("stem", "attention/softmax")
    assert str(stray(m7, "poke_in_operator", 0x30)).startswith("operator attention/softmax: ")


def test_endless_loop_ends(machine: CortexM) -> None:
    with pytest.raises(EmulationError, match=r"forever\+.* had not ended after 5000 instructions"):
        machine.call("forever", max_instructions=5000)
    assert machine.call("answer").r0 == 42


def test_protect_makes_a_page_inaccessible(m7: CortexM) -> None:
    page = m7.arena[0] // 1024 * 1024 + 1024
    m7.call("poke", page)
    m7.protect(page, 1024)
    assert stray(m7, "poke", page).address == page
    with pytest.raises(EmulationError, match="Unicorn refuses"):
        m7.protect(0, 1024)


def test_unknown_function_and_memory(m7: CortexM) -> None:
    with pytest.raises(EmulationError, match="no function 'nowhere'"):
        m7.call("nowhere")
    for address in (0, m7.target.data.end - 1):
        with pytest.raises(EmulationError, match="stm32f746 has no memory for 2 bytes"):
            m7.read(address, 2)
        with pytest.raises(EmulationError, match="stm32f746 has no memory for 2 bytes"):
            m7.write(address, b"ab")


def test_host_window_exists_on_request() -> None:
    target = load_target("stm32f746")
    machine = CortexM(target, image(target), host_window=3000)
    machine.call("poke", HOST_WINDOW + 2999)
    assert machine.read(HOST_WINDOW + 2998, 2) == b"\0\1"


# Small RAM


def small(kilobytes: int) -> Target:
    target = load_target("stm32f407")
    ram = MemoryRegion("sram", "ram", "rw", 0x2000_0000, kilobytes * 1024, "test")
    return replace(target, memory=(target.code, ram), stack_bytes=1024)


def test_guards_fall_back_to_canaries_and_say_so() -> None:
    target = small(8)
    machine = CortexM(target, image(target, arena_bytes=6000))
    assert machine.guards == machine.call("answer").guards == "canaries"
    with pytest.raises(EmulationError, match="1 bytes below the arena"):
        machine.call("poke", machine.arena[0] - 1)
    assert stray(machine, "recurse", 1000).address < machine.stack[0]


def test_no_room_for_canaries_is_said() -> None:
    target = small(8)
    free = 8192 - 2000 - 32
    machine = CortexM(target, image(target, arena_bytes=free))
    assert machine.call("answer").guards == "none"
    with pytest.raises(TargetError, match="16 more than the 8192"):
        image(target, arena_bytes=free + 16)


def test_bordering_memory_is_no_guard() -> None:
    target = load_target("stm32f407")
    more = MemoryRegion("more", "ram", "rw", target.data.end, 1024, "test")
    bordered = replace(target, memory=(*target.memory, more))
    assert CortexM(bordered, image(bordered)).guards == "none"


# Strict mode


@pytest.fixture(scope="module", params=TARGETS)
def strict(request: pytest.FixtureRequest) -> CortexM:
    target = load_target(request.param)
    return CortexM(target, image(target), strict=True)


def test_strict_mode_gives_the_same_results_and_counts(strict: CortexM) -> None:
    plain = CortexM(strict.target, image(strict.target))
    for name, arguments in (
        ("answer", ()),
        ("statics", ()),
        ("recurse", (5,)),
        ("three_operators", ()),
        ("wide", (9, 9, 2, 0)),
    ):
        assert strict.call(name, *arguments) == plain.call(name, *arguments)


def test_strict_mode_checks_each_byte(strict: CortexM) -> None:
    start, end = strict.arena
    assert stray(strict, "past_arena", 0).address == end
    assert "across the end of the arena" in str(stray(strict, "peek", end // 4 * 4)) or end % 4 == 0
    strict.allow(readable=[(start, 8)], writable=[(start + 8, 8)])
    strict.call("peek", start + 4)
    strict.call("poke", start + 8)
    assert stray(strict, "poke", start + 7).kind == "write"
    assert stray(strict, "peek", start + 16).kind == "read"
    strict.reset()
    strict.call("poke", start + 7)


def test_strict_mode_allows_what_lies_inside_a_range(strict: CortexM) -> None:
    generator = random.Random(0)
    start = strict.arena[0] + -strict.arena[0] % 4
    bounds = [4, 11, 24, 32, 32, 47]  # in fours and not, apart and side by side
    spans = [(start + low, high - low) for low, high in zip(bounds[::2], bounds[1::2], strict=True)]
    readable, writable = [spans[0], spans[2]], [spans[1]]
    generator.shuffle(readable)
    strict.allow(readable, writable)
    for kind, function, size, ranges in (("read", "peek", 4, spans), ("write", "poke", 1, writable)):
        for address in range(start, start + 64, size):
            if any(low <= address and address + size <= low + count for low, count in ranges):
                strict.call(function, address)
            else:
                with pytest.raises(StrayAccess) as caught:
                    strict.call(function, address)
                assert (caught.value.kind, caught.value.address, caught.value.size) == (kind, address, size)
    strict.reset()


def test_strict_mode_traps_what_a_chip_traps(strict: CortexM) -> None:
    start = strict.arena[0]
    strict.call("load_multiple", start + 4)
    assert "unaligned" in str(stray(strict, "load_multiple", start + 2))
    if strict.target.core == "cortex-m0plus":
        assert "unaligned" in str(stray(strict, "peek", start + 1))
    else:
        strict.call("peek", start + 1)


def test_armv6m_traps_unaligned_accesses_in_any_mode() -> None:
    target = load_target("rp2040")
    plain = CortexM(target, image(target))
    found = stray(plain, "peek", plain.arena[0] + 1)
    assert (found.unaligned, found.kind, found.address, found.size) == (True, "read", plain.arena[0] + 1, 4)
    assert stray(plain, "load_multiple", plain.arena[0] + 2).address == plain.arena[0] + 2


@pytest.mark.parametrize("function", ["divide", "add_bytes", "add_floats"])
@pytest.mark.parametrize("name", [*TARGETS, "stm32f103"])
def test_a_core_has_its_own_instructions_and_no_others(name: str, function: str) -> None:
    target = load_target(name)
    chip = CortexM(target, image(target))
    has = {"divide": target.core != "cortex-m0plus", "add_bytes": target.dsp, "add_floats": target.fpu != "none"}
    if has[function]:
        chip.call(function)
    else:
        with pytest.raises(EmulationError, match="nvalid instruction|exception"):
            chip.call(function)


# Counting


def test_marks_divide_the_count_by_operator(machine: CortexM) -> None:
    result = machine.call("three_operators")
    assert [mark.index for mark in result.marks] == [0, 1, 2]
    counts = [count for _, count in result.operator_instructions]
    assert sum(counts) == result.instructions - result.marks[0].instructions
    assert counts[1] - counts[0] == pytest.approx(counts[2] - counts[1], rel=0.02)
    assert counts[2] == pytest.approx(3 * counts[0], rel=0.05)
    assert machine.call("three_operators") == result, "counts are deterministic"


def test_count_of_a_known_sequence(m7: CortexM) -> None:
    assert m7.call("answer").instructions == 2  # MOVS, BX
    assert m7.call("answer").blocks == 1


def random_program(generator: random.Random, functions: int) -> str:
    """C functions of loops, branches, 64-bit products and memory: what kernels are made of."""

    def expression(depth: int) -> str:
        if depth == 0:
            return generator.choice(["a", "b", "c", "i", "m[i & 15u]", str(generator.randrange(1, 5000)) + "u"])
        left, right = expression(depth - 1), expression(depth - 1)
        form = generator.choice(
            [
                "({0} + {1})",
                "({0} * {1})",
                "({0} ^ {1})",
                "({0} >> ({1} & 31u))",
                "({0} < {1} ? {0} : {1})",
                "(uint32_t)(((int64_t)(int32_t){0} * (int32_t){1}) >> 20)",
                "({0} / ({1} | 1u))",
                "(({0} & 4u) != 0u ? {1} : 7u)",
            ]
        )
        return form.format(left, right)

    text = "#include <stdint.h>\n"
    for index in range(functions):
        body = f"""
uint32_t f{index}(uint32_t a, uint32_t b) {{
    uint32_t c = a ^ b, m[16];
    for (uint32_t i = 0; i < 16u; i++) {{ m[i] = {expression(1).replace("m[i & 15u]", "b")}; }}
    for (uint32_t i = 0; i < {generator.randrange(1, 40)}u; i++) {{
        c = {expression(3)};
        if ({expression(1)} > {expression(1)}) {{ m[(i * 3u) & 15u] = {expression(2)}; }}
        else {{ b += {expression(1)}; }}
        switch (c & 7u) {{
        case 0: a++; break;
        case 1: a += c; break;
        case 2: b ^= 5u; break;
        case 5: a *= 3u; break;
        default: c += 2u;
        }}
    }}
    return a + b + c + m[3];
}}
"""
        text += body
    return text


def instruction_size(code: bytes) -> int:
    return 4 if code[1] >> 3 in (0b11101, 0b11110, 0b11111) else 2


def it_block_length(code: bytes) -> int:
    """How many instructions an IT instruction covers (ARMv7-M ARM, A7.7.37); 0 for any other instruction."""
    mask = code[0] & 15
    return 4 - (mask & -mask).bit_length() + 1 if code[1] == 0xBF and mask else 0


def count_by_instruction(target: Target, elf: Path, address: int, a: int, b: int, exit_address: int) -> tuple[int, int]:
    """(result, instructions) by Unicorn's own hook of each instruction, plus those it skips in IT blocks."""
    models = {"cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7, "cortex-m0plus": arm_const.UC_CPU_ARM_CORTEX_M0}
    uc: Any = unicorn.Uc(unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS)
    uc.ctl_set_cpu_model(models[target.core])
    for region in target.memory:
        uc.mem_map(region.origin, region.size)
    with elf.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            uc.mem_write(segment["p_paddr"], segment.data())
    seen: list[int] = []
    uc.hook_add(unicorn_const.UC_HOOK_CODE, lambda _uc, at, _size, _data: seen.append(at))
    for register, value in (
        (arm_const.UC_ARM_REG_R0, a),
        (arm_const.UC_ARM_REG_R1, b),
        (arm_const.UC_ARM_REG_SP, target.data.end),
        (arm_const.UC_ARM_REG_LR, exit_address | 1),
    ):
        uc.reg_write(register, value)
    uc.emu_start(address | 1, exit_address)
    skipped = 0
    for position, at in enumerate(seen):
        if length := it_block_length(uc.mem_read(at, 2)):
            covered = [at := at + instruction_size(uc.mem_read(at, 2)) for _ in range(length)]
            skipped += sum(address not in seen[position + 1 : position + 1 + length] for address in covered)
    return uc.reg_read(arm_const.UC_ARM_REG_R0), len(seen) + skipped


@pytest.fixture(scope="module", params=[("stm32f746", "-O2"), ("stm32f746", "-O1"), ("rp2040", "-Os")], ids="-".join)
def programs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[CortexM, CortexM, Path, HostLibrary]]:
    name, opt = request.param
    folder = tmp_path_factory.mktemp("programs")
    (folder / "programs.c").write_text(random_program(random.Random(2024), 8))
    (folder / "programs.h").write_text("".join(f"uint32_t f{i}(uint32_t a, uint32_t b);\n" for i in range(8)))
    target = load_target(name)
    elf = build_firmware([folder / "programs.c"], target, [f"f{i}" for i in range(8)], opt=opt, name="programs")
    host = HostLibrary(build_shared_library([folder / "programs.c"], name="programs"), [folder / "programs.h"])
    yield CortexM(target, elf), CortexM(target, elf, strict=True), elf, host


def test_counts_are_exact_and_results_those_of_the_host(programs: tuple[CortexM, CortexM, Path, HostLibrary]) -> None:
    machine, strict, elf, host = programs
    generator = random.Random(7)
    for index in range(8):
        for _ in range(3):
            a, b = generator.getrandbits(32), generator.getrandbits(generator.choice([3, 16, 32]))
            result = machine.call(f"f{index}", a, b)
            entry, exit_address = machine.symbols[f"f{index}"] & ~1, machine.symbols["tnf_exit"] & ~1
            assert (result.r0, result.instructions) == count_by_instruction(
                machine.target, elf, entry, a, b, exit_address
            )
            assert strict.call(f"f{index}", a, b) == result
            assert result.r0 == getattr(host.lib, f"f{index}")(a, b)
