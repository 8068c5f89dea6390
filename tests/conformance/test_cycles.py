"""Counting instructions and cycles by blocks: exact, the same each time, and adding up."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import unicorn
from elftools.elf.elffile import ELFFile
from test_emulator import random_program
from unicorn import arm_const, unicorn_const

from codegen.generate import GeneratedModel, generate
from codegen.target import Target, load_target
from conformance.emulator import HOST_WINDOW, CallResult, CortexM
from conformance.emulator.unicorn_library import libraries
from conformance.host import HostLibrary
from conformance.models import example_models, random_samples, read_model
from conformance.timing.core import Block, CoreModel
from conformance.timing.cores import core_model
from conformance.timing.cortex_m7 import CortexM7
from conformance.timing.cycles import Cycles, Timing
from conformance.timing.instructions import Kind, decode, it_state_after
from conformance.timing.timer import divisions
from conformance.toolchain import NATIVE, Toolchain, build_firmware, build_shared_library, host_toolchains
from refsim.errors import EmulationError

HERE = Path(__file__).parent
BLOCKS = ["self_loop", "long_run", "long_loop", "pattern", "indirect", "marked", "walk", "fill"]
BLOCKS_V7 = ["unsigned_division", "signed_division", "conditional_division"]
BLOCKS_V7 += ["conditions", "straddling", "straddling_branch"]
TARGETS = ("stm32f746", "stm32f407", "stm32u575", "rp2040")
CPUS = {
    "cortex-m0plus": arm_const.UC_CPU_ARM_CORTEX_M0,
    "cortex-m4": arm_const.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm_const.UC_CPU_ARM_CORTEX_M33,
}
REGISTERS = [getattr(arm_const, f"UC_ARM_REG_R{n}") for n in range(15)]


@cache
def blocks(name: str) -> Path:
    target = load_target(name)
    points = BLOCKS + ([] if target.core == "cortex-m0plus" else BLOCKS_V7)
    return build_firmware([HERE / "blocks.c"], target, points, name="blocks")


@cache
def programs(name: str, opt: str = "-O2") -> Path:
    folder = Path(build_shared_library([HERE / "instruction_count.c"], name="instruction_count")).parent
    path = folder / "random_programs.c"
    path.write_text(random_program(random.Random(99), 6))
    return build_firmware([path], load_target(name), [f"f{i}" for i in range(6)], opt=opt, name="programs")


class Witness:
    """A second machine, without anything of the emulator's: bare Unicorn with an image in its memory."""

    def __init__(self, target: Target, elf: Path) -> None:
        self.target = target
        self.uc: Any = unicorn.Uc(unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(CPUS[target.core])
        for region in target.memory:
            self.uc.mem_map(region.origin, region.size)
        self.uc.mem_map(HOST_WINDOW, 1 << 22)
        with elf.open("rb") as stream:
            file = ELFFile(stream)
            self.symbols = {s.name: s["st_value"] for s in file.get_section_by_name(".symtab").iter_symbols()}
            self.text = file.get_section_by_name(".text")["sh_addr"], file.get_section_by_name(".text").data()
            for segment in file.iter_segments("PT_LOAD"):
                self.uc.mem_write(segment["p_paddr"], segment.data())
                self.uc.mem_write(segment["p_vaddr"], segment.data())  # as start-up code would

    def call(self, function: str, *arguments: int) -> None:
        self.uc.reg_write(arm_const.UC_ARM_REG_SP, self.symbols["tnf_stack_top"] - 64)
        self.uc.reg_write(arm_const.UC_ARM_REG_LR, self.symbols["tnf_exit"] | 1)
        for register, value in zip(REGISTERS, arguments, strict=False):
            self.uc.reg_write(register, value & 0xFFFFFFFF)
        self.uc.emu_start(self.symbols[function] | 1, self.symbols["tnf_exit"] & ~1)

    def count(self, function: str, *arguments: int) -> tuple[int, int]:
        """(instructions, result), the first by a C function that Unicorn calls for each one."""
        library = HostLibrary(
            build_shared_library([HERE / "instruction_count.c"], name="instruction_count"),
            [HERE / "instruction_count.h"],
        )
        ffi = library.ffi
        code = ffi.new("uint8_t[]", self.text[1])
        count = ffi.new("instruction_count *", {"code": code, "origin": self.text[0]})
        _, api = libraries()
        hooks_ffi = libraries()[0].ffi
        machine = hooks_ffi.cast("void *", self.uc._uch.value)
        callback = hooks_ffi.cast("void *", int(ffi.cast("uintptr_t", ffi.addressof(library.lib, "count_instruction"))))
        user = hooks_ffi.cast("void *", int(ffi.cast("uintptr_t", count)))
        bounds = hooks_ffi.cast("uint64_t", 1), hooks_ffi.cast("uint64_t", 0)
        handle = hooks_ffi.new("size_t *")
        assert api.uc_hook_add(machine, handle, unicorn_const.UC_HOOK_CODE, callback, user, *bounds) == 0
        self.call(function, *arguments)
        return int(count.executed + count.skipped), int(self.uc.reg_read(REGISTERS[0]))


def calls(generator: random.Random, target: Target) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every function of blocks.c, with arguments that take its ways."""
    word = generator.getrandbits
    yield from (("self_loop", (n,)) for n in (1, 2, 1000))
    yield from (("long_run", (word(32),)), ("long_loop", (1,)), ("long_loop", (5,)))
    yield from (("pattern", (bits,)) for bits in (0, 0xFFFFFFFF, 0x55555555, word(32)))
    yield from (("indirect", (bits,)) for bits in (0, 0xFF, 0x55, word(8)))
    yield ("marked", (4,))
    yield ("walk", (target.code.origin, 4, 50))
    if target.core != "cortex-m0plus":
        for a, b in (
            (1, 1),
            (0xFFFFFFFF, 1),
            (0x80000000, 0xFFFFFFFF),
            (5, 0),
            (word(32), word(9)),
            (word(9), word(32)),
        ):
            yield from (("unsigned_division", (a, b)), ("signed_division", (a, b)))
            yield from (("conditional_division", (a, b, c)) for c in (0, 1))
        yield from (("conditions", (a,)) for a in (0, 4, 5, 6, 0x80000000))
        yield from ((function, (a,)) for function in ("straddling", "straddling_branch") for a in (0, 5))


def counted(result: CallResult) -> tuple[int, int]:
    return result.instructions, result.r0


# Instructions


@pytest.mark.parametrize("name", TARGETS)
def test_instructions_of_every_kind_of_block_are_counted_exactly(name: str) -> None:
    target = load_target(name)
    machines = [CortexM(target, blocks(name), timing=timing) for timing in (None, *Timing)]
    for function, arguments in calls(random.Random(1), target):
        expected = Witness(target, blocks(name)).count(function, *arguments)
        assert [counted(m.call(function, *arguments)) for m in machines] == [expected] * 3, (function, arguments)


@pytest.mark.parametrize(("name", "opt"), [("stm32f746", "-O1"), ("stm32f407", "-O3"), ("rp2040", "-O2")])
def test_instructions_of_random_programs_are_counted_exactly(name: str, opt: str) -> None:
    target, elf = load_target(name), programs(name, opt)
    machines = [CortexM(target, elf, timing=timing) for timing in (None, *Timing)]
    generator = random.Random(3)
    for index in range(6):
        arguments = generator.getrandbits(32), generator.getrandbits(generator.choice([4, 32]))
        expected = Witness(target, elf).count(f"f{index}", *arguments)
        assert [counted(m.call(f"f{index}", *arguments)) for m in machines] == [expected] * 3


@dataclass(frozen=True)
class Example:
    """The example model with a sample, for a target."""

    model: GeneratedModel
    elf: Path
    sample: dict[str, bytes] = field(repr=False)

    def machine(self, timing: Timing | None) -> CortexM:
        return CortexM(self.model.target, self.elf, host_window=1 << 20, timing=timing)

    def run(self, machine: CortexM) -> CallResult:
        machine.call("tnf_trace_begin", HOST_WINDOW)
        for port in self.model.inputs:
            machine.write(machine.arena[0] + port.offset, self.sample[port.tensor])
        return machine.call(f"{self.model.prefix}_run", machine.arena[0])


@pytest.fixture(scope="module", params=["stm32f746", "rp2040"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    path, _ = next(iter(example_models().items()))
    graph = read_model(path, None, 1).graph
    model = generate(graph, load_target(request.param), tmp_path_factory.mktemp("model"))
    elf = build_firmware(
        [*model.sources, NATIVE / "trace.c"],
        model.target,
        [f"{model.prefix}_run", "tnf_trace_begin"],
        include_dirs=[*model.include_dirs, NATIVE],
        defines={"TNF_TRACE": 1},
        arena_bytes=model.arena_bytes,
        name=model.prefix,
    )
    return Example(model, elf, {name: x[0].tobytes() for name, x in random_samples(graph, 1).items()})


def test_instructions_of_the_example_are_counted_exactly(example: Example) -> None:
    witness = Witness(example.model.target, example.elf)
    witness.call("tnf_trace_begin", HOST_WINDOW)
    arena = witness.symbols["tnf_arena"]
    for port in example.model.inputs:
        witness.uc.mem_write(arena + port.offset, example.sample[port.tensor])
    expected, _ = witness.count(f"{example.model.prefix}_run", arena)
    assert example.run(example.machine(Timing.ZERO_WAIT)).instructions == expected > 10**6


# Cycles


@dataclass
class Trace:
    """Blocks that ran, and the operands of the divisions in each."""

    blocks: list[tuple[int, int]]
    operands: list[list[tuple[int, int, bool]]]


def trace(target: Target, elf: Path, function: str, *arguments: int) -> tuple[Trace, bytes]:
    """What ran, as Python functions saw it that Unicorn called."""
    witness = Witness(target, elf)
    seen = Trace([], [])

    def on_block(_uc: object, address: int, size: int, _data: object) -> None:
        seen.blocks.append((address, size))
        seen.operands.append([])

    def on_division(uc: Any, address: int, _size: int, _data: object) -> None:
        code = uc.mem_read(address, 4)
        seen.operands[-1].append(
            (uc.reg_read(REGISTERS[code[0] & 15]), uc.reg_read(REGISTERS[code[2] & 15]), code[0] >> 4 == 9)
        )

    witness.uc.hook_add(unicorn_const.UC_HOOK_BLOCK, on_block)
    origin, code = witness.text
    for address in divisions(code, origin):  # data that looks like one never runs
        witness.uc.hook_add(unicorn_const.UC_HOOK_CODE, on_division, begin=address, end=address)
    witness.call(function, *arguments)
    return seen, code


def division_cycles(model: CoreModel, a: int, b: int, signed: bool) -> int:
    """Beyond the minimum: one for each `bits_per_cycle` quotient bits, counted on magnitudes."""
    assert model.division is not None
    if signed:
        a, b = (abs(x - (1 << 32) if x >> 31 else x) for x in (a, b))
    bits = max(0, a.bit_length() - b.bit_length()) if b else 0
    return min(-(-bits // model.division.bits_per_cycle), model.division.maximum - model.division.minimum)


def slow_sum(target: Target, elf: Path, function: str, *arguments: int) -> Cycles:
    """Cycles of a call on a machine that was never used, block by block."""
    model = core_model(target.core)
    seen, code = trace(target, elf, function, *arguments)
    origin = Witness(target, elf).text[0]
    inside: dict[int, int] = {}
    decoded: dict[tuple[int, int], Block] = {}
    total = dependency = branch = 0
    counters: dict[int, int] = {}
    last_targets: dict[int, int] = {}
    before: Block | None = None
    for (address, size), operands in zip(seen.blocks, seen.operands, strict=True):
        if (address, size) not in decoded:
            it_state = inside.get(address, 0) if before is not None and before.end == address else 0
            part = code[address - origin :][:size]
            decoded[address, size] = Block(address, size, decode(part, address, it_state=it_state))
            inside[address + size] = it_state_after(part, it_state)
        block = decoded[address, size]
        cost = model.cost(before, block)
        extra = sum(division_cycles(model, *each) for each in operands)
        wrong = before is not None and model.mispredict and goes_wrong(before, address, counters, last_targets)
        missed = model.mispredict if wrong else 0
        total += cost.cycles + extra + missed
        dependency += cost.dependency + extra
        branch += cost.branch + missed
        before = block
    return Cycles(total, dependency, branch)


def goes_wrong(before: Block, to: int, counters: dict[int, int], last_targets: dict[int, int]) -> bool:
    """A predictor: two bits for each conditional branch, the last target for each indirect one, a return stack."""
    last = before.instructions[-1]
    if not last.branches:
        return False
    if last.conditional:
        taken = to != before.end
        backwards = last.kind is Kind.BRANCH and int(last.text.split("#")[-1], 16) <= last.address
        state = counters.get(last.address, 2 if backwards else 1)
        counters[last.address] = min(3, state + 1) if taken else max(0, state - 1)
        return taken != (state >= 2)
    if last.text == "bx lr" or last.mnemonic in ("b", "bl", "pop"):
        return False
    wrong = last_targets.get(last.address) != to
    last_targets[last.address] = to
    return wrong


@pytest.mark.parametrize("name", TARGETS)
def test_cycles_are_the_sum_over_the_blocks_that_ran(name: str) -> None:
    target = load_target(name)
    machine = CortexM(target, blocks(name), timing=Timing.ZERO_WAIT)
    for function, arguments in calls(random.Random(2), target):
        machine.empty_caches()
        expected = slow_sum(target, blocks(name), function, *arguments)
        assert machine.call(function, *arguments).cycles == expected, (function, arguments)


@pytest.mark.parametrize("name", TARGETS)
def test_cycles_of_random_programs_are_the_sum_over_the_blocks_that_ran(name: str) -> None:
    target, elf = load_target(name), programs(name)
    machine = CortexM(target, elf, timing=Timing.ZERO_WAIT)
    generator = random.Random(4)
    for index in range(6):
        arguments = generator.getrandbits(32), generator.getrandbits(16)
        machine.empty_caches()
        assert machine.call(f"f{index}", *arguments).cycles == slow_sum(target, elf, f"f{index}", *arguments)


def test_a_loop_is_mispredicted_when_it_ends() -> None:
    machine = CortexM(load_target("stm32f746"), blocks("stm32f746"), timing=Timing.ZERO_WAIT)
    for times in (1, 2, 1000):
        machine.empty_caches()
        assert machine.call("self_loop", times).cycles.branch == CortexM7.mispredict
    # 1000 rounds made the counter sure of another one; the end took it back by one.
    assert machine.call("self_loop", 1000).cycles.branch == CortexM7.mispredict


def test_what_alternates_cannot_be_predicted_by_a_counter() -> None:
    machine = CortexM(load_target("stm32f746"), blocks("stm32f746"), timing=Timing.ZERO_WAIT)
    always, alternating = (machine.call("pattern", bits).cycles.branch for bits in (0xFFFFFFFF, 0x55555555))
    assert always <= 3 * CortexM7.mispredict < 16 * CortexM7.mispredict <= alternating


def test_an_indirect_call_goes_where_it_went_last() -> None:
    machine = CortexM(load_target("stm32f746"), blocks("stm32f746"), timing=Timing.ZERO_WAIT)
    machine.call("indirect", 0)
    same, other = (machine.call("indirect", bits).cycles.branch for bits in (0, 0x55))
    assert other - same == 8 * CortexM7.mispredict  # 1, 0, 1, 0, 1, 0, 1, 0 after a 0


@pytest.mark.parametrize("name", ["stm32f746", "stm32f407"])
def test_divisions_take_time_by_their_quotient(name: str) -> None:
    machine = CortexM(load_target(name), blocks(name), timing=Timing.ZERO_WAIT)
    division = core_model(machine.target.core).division
    assert division is not None
    shortest = machine.call("unsigned_division", 1, 1).cycles.total

    def more(function: str, *arguments: int) -> int:
        return machine.call(function, *arguments).cycles.total - shortest

    assert more("unsigned_division", 7, 9) == more("unsigned_division", 12345, 0) == 0
    assert more("unsigned_division", 0xFFFFFFFF, 1) == min(
        -(-31 // division.bits_per_cycle), division.maximum - division.minimum
    )
    assert more("unsigned_division", 16, 1) == -(-4 // division.bits_per_cycle)
    minus_16 = machine.call("signed_division", -16, 1).cycles.total
    assert minus_16 == machine.call("signed_division", 16, -1).cycles.total
    assert minus_16 - machine.call("signed_division", -1, 1).cycles.total == -(-4 // division.bits_per_cycle)
    skipped = [machine.call("conditional_division", a, 1, 0).cycles for a in (1, 0xFFFFFFFF)]
    assert skipped[0] == skipped[1], "an instruction whose condition fails divides nothing"


# The same each time


def test_a_firmware_takes_the_same_cycles_each_time(example: Example) -> None:
    machine = example.machine(Timing.ZERO_WAIT)
    first = example.run(machine)
    profile = machine.block_profile()
    machine.empty_caches()
    assert example.run(machine) == first and machine.block_profile() == profile
    machine.reset()
    assert example.run(machine) == first and machine.block_profile() == profile
    other = example.machine(Timing.ZERO_WAIT)
    assert example.run(other) == first and other.block_profile() == profile


@pytest.mark.parametrize("name", TARGETS)
def test_memory_takes_the_same_cycles_each_time(name: str) -> None:
    target, elf = load_target(name), programs(name)
    machine, other, core = (CortexM(target, elf, timing=t) for t in (Timing.MEMORY, Timing.MEMORY, Timing.ZERO_WAIT))
    for index in range(6):
        cold, warm = (machine.call(f"f{index}", 12345, index) for _ in range(2))
        machine.empty_caches()
        assert machine.call(f"f{index}", 12345, index) == cold
        other.empty_caches()
        assert [other.call(f"f{index}", 12345, index) for _ in range(2)] == [cold, warm]
        core.empty_caches()
        bare = core.call(f"f{index}", 12345, index).cycles
        assert cold.cycles is not None and warm.cycles is not None and bare is not None
        waiting = cold.cycles.fetch + cold.cycles.data
        assert waiting > warm.cycles.fetch + warm.cycles.data, "what is in the caches need not be waited for"
        assert cold.cycles - Cycles(waiting, 0, 0, cold.cycles.fetch, cold.cycles.data) == bare, "waiting is on top"
        machine.empty_caches()


def test_counting_alone_has_no_cycles() -> None:
    machine = CortexM(load_target("stm32f746"), blocks("stm32f746"))
    result = machine.call("marked", 2)
    assert result.cycles is None and [mark.cycles for mark in result.marks] == [None, None]
    assert result.operator_cycles == () and machine.block_profile() == []
    timed = CortexM(load_target("stm32f746"), blocks("stm32f746"), timing=Timing.ZERO_WAIT).call("marked", 2)
    assert (timed.instructions, timed.blocks, timed.operator_instructions) == (
        result.instructions,
        result.blocks,
        result.operator_instructions,
    )


def test_strict_mode_takes_the_same_cycles() -> None:
    target = load_target("stm32f407")
    strict, plain = (CortexM(target, blocks("stm32f407"), strict=s, timing=Timing.MEMORY) for s in (True, False))
    for function, arguments in calls(random.Random(5), target):
        assert strict.call(function, *arguments) == plain.call(function, *arguments)


# Marks and blocks


@pytest.mark.parametrize("timing", list(Timing))
def test_marks_and_blocks_divide_the_cycles(timing: Timing) -> None:
    machine = CortexM(load_target("stm32f746"), blocks("stm32f746"), timing=timing)
    result = machine.call("marked", 5)
    profile = machine.block_profile()
    assert result.cycles is not None and result.marks[0].cycles is not None
    by_mark = {
        mark: sum((b.cycles for b in profile if b.mark == mark), Cycles()) for mark in (None, *range(len(result.marks)))
    }
    assert by_mark.pop(None) == result.marks[0].cycles
    assert by_mark == dict(result.operator_cycles)
    assert sum(by_mark.values(), result.marks[0].cycles) == result.cycles
    assert sum(b.executions for b in profile) == result.blocks
    assert sum(b.executions * b.instructions for b in profile) == result.instructions
    loop = machine.symbols["self_loop"] & ~1
    rounds = {b.mark: b.executions for b in profile if b.start == loop}
    assert rounds == {mark: 10 * (mark + 1) for mark in range(5)}


def test_a_log_that_runs_full_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("stm32f746")
    roomy = CortexM(target, blocks("stm32f746"), timing=Timing.ZERO_WAIT)
    monkeypatch.setattr("conformance.timing.timer._LOG_ENTRIES", 3)
    tight = CortexM(target, blocks("stm32f746"), timing=Timing.ZERO_WAIT)
    for operators in (7, 2):
        assert tight.call("marked", operators) == roomy.call("marked", operators)
        assert tight.block_profile() == roomy.block_profile()


def test_an_edge_is_asked_for_once() -> None:
    machine = CortexM(load_target("stm32f746"), blocks("stm32f746"), timing=Timing.ZERO_WAIT)
    timer, native = machine._timer, machine._native.lib
    assert timer is not None
    start = machine.symbols["long_run"] & ~1
    # The same code cut in several ways, and entered from several places, as a translator may choose to.
    visits = [(start, 4), (start, 2), (start + 2, 2), (start, 4), (start, 6), (start, 2), (start, 2)]
    edges = set(pairwise([None, *visits, *visits]))
    timer.begin()
    before = len(timer._edges)
    for at, size in visits * 2:
        assert native.tnf_time_block(timer.pointer, at - machine.target.code.origin, at, size)
    timer.end(0)
    assert len(timer._edges) - before == len(edges)
    executed = {(b.start, b.size): b.executions for b in timer.executions([])}
    assert executed == {visit: 2 * visits.count(visit) for visit in visits}


def test_an_instruction_without_timing_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = CortexM(load_target("stm32f746"), blocks("stm32f746"), timing=Timing.MEMORY)
    known = CortexM7.cost

    def cost(self: CortexM7, before: Block | None, block: Block) -> Any:
        if block.start == machine.symbols["walk"] & ~1:
            raise EmulationError("no timing of this")
        return known(self, before, block)

    monkeypatch.setattr(CortexM7, "cost", cost)
    with pytest.raises(EmulationError, match="no timing of this"):
        machine.call("walk", machine.target.code.origin, 4, 10)
    machine.call("self_loop", 3)


@pytest.mark.parametrize("toolchain", host_toolchains(), ids=lambda toolchain: toolchain.name)
def test_the_hooks_compile_without_a_warning(toolchain: Toolchain) -> None:
    names = ("data_access", "memory_model", "timer", "block_hook")
    flags = ("-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wpedantic", "-Wmissing-prototypes")
    build_shared_library([NATIVE / f"{name}.c" for name in names], toolchain=toolchain, extra_flags=(*flags, "-Werror"))


def test_cycles_add_and_subtract() -> None:
    a, b = Cycles(100, 1, 2, 3, 4), Cycles(10, 4, 3, 2, 1)
    assert (a + b, a - b) == (Cycles(110, 5, 5, 5, 5), Cycles(90, -3, -1, 1, 3))
    assert a.issuing == 90 and np.add(a, b) == a + b


def test_pairs_of_blocks_are_met_in_the_order_of_a_trace() -> None:
    """The witness and the emulator cut code into the same blocks, or the sums above would compare two things."""
    target = load_target("stm32f407")
    seen, _ = trace(target, blocks("stm32f407"), "long_loop", 3)
    machine = CortexM(target, blocks("stm32f407"), timing=Timing.ZERO_WAIT)
    machine.call("long_loop", 3)
    executed = {(b.start, b.size): b.executions for b in machine.block_profile()}
    assert executed == {key: seen.blocks.count(key) for key in seen.blocks}
    assert any(b[0] == a[0] + a[1] for a, b in pairwise(seen.blocks)), "a block that ends without a branch"
