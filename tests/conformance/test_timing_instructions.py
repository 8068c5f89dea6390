"""Decoded instructions: their kinds and roles, what Unicorn says that they read and write, and whole images."""

import functools
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from unicorn import UC_ARCH_ARM, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, arm_const

from codegen.generate import GeneratedModel, generate
from codegen.onnx import load
from codegen.target import load_target
from conformance.emulator import CortexM
from conformance.timing.cycles import Timing
from conformance.timing.instructions import Instruction, Kind, decode, it_state_after
from conformance.toolchain import build_firmware
from refsim.errors import EmulationError
from tests.conformance.assembly import assemble

MODEL = Path(__file__).parents[2] / "examples" / "tinyformer_cifar10" / "model.onnx"

PROCESSING = """
    adds r0, #1; adds r0, r1, #3; add r0, r8; adds r0, r1, r2; addw r0, r1, #4000; add.w r0, r1, r2, lsl #3; add r0, r8
    adcs r0, r1; adc.w r0, r1, r2; adcs.w r0, r1, r2; sbcs r0, r1; rsbs r0, r1, #0; rsb r0, r1, r2, asr #2
    subs r0, r1, r2; ands r0, r1; orrs r0, r1; eors r0, r1; bics r0, r1; orn r0, r1, r2; mvns r0, r1
    movs r0, #4; movs r0, r1; mov r0, r8; movw r0, #1234; movt r0, #1234; lsl.w r0, r1, #4; lsls r0, r1; lsrs r0, r1, #5
    asr.w r0, r1, r2; ror.w r0, r1, #8; rrx r0, r1; cmp r0, #2; cmp.w r0, r1, lsl #2; cmn r0, r1; tst r0, r1
    teq.w r0, r1; bfi r0, r1, #2, #3; bfc r0, #2, #3; ubfx r0, r1, #2, #3; sbfx r0, r1, #2, #3; sxth r0, r1
    uxtb.w r0, r1, ror #8; clz r0, r1; rbit r0, r1; rev r0, r1; rev16 r0, r1; revsh r0, r1
    sxtb16 r0, r1; sxtb16 r0, r1, ror #8; sxtab16 r0, r1, r2, ror #8; uxtab r0, r1, r2; sxtah r0, r1, r2
    pkhbt r0, r1, r2, lsl #16; pkhtb r0, r1, r2, asr #16; sadd16 r0, r1, r2; usub8 r0, r1, r2; sasx r0, r1, r2
    sel r0, r1, r2; qadd r0, r1, r2; qdsub r0, r1, r2; qadd16 r0, r1, r2; shadd8 r0, r1, r2; uqsub8 r0, r1, r2
    ssat r0, #8, r1, asr #2; usat r0, #8, r1; ssat16 r0, #8, r1; usad8 r0, r1, r2; usada8 r0, r1, r2, r3
    muls r0, r1, r0; mul r0, r1, r2; smulbt r0, r1, r2; smulwb r0, r1, r2; smuad r0, r1, r2; smusdx r0, r1, r2
    smmul r0, r1, r2; smmulr r0, r1, r2; mla r0, r1, r2, r3; mls r0, r1, r2, r3; smlabb r0, r1, r2, r3
    smlawt r0, r1, r2, r3; smlad r0, r1, r2, r3; smlsdx r0, r1, r2, r3; smmla r0, r1, r2, r3; smmlsr r0, r1, r2, r3
    smull r0, r1, r2, r3; umull r0, r1, r2, r3; smlal r0, r1, r2, r3; umlal r0, r1, r2, r3; smlaltb r0, r1, r2, r3
    smlald r0, r1, r2, r3; smlsldx r0, r1, r2, r3; umaal r0, r1, r2, r3; sdiv r0, r1, r2; udiv r0, r1, r2
    mrs r0, apsr; msr apsr_nzcvq, r0; msr apsr_nzcvqg, r0
"""
MEMORY = """
    ldr r0, [r1]; ldr r0, [r1, #4]; ldr r0, [r1, r12]; ldr.w r0, [r1, r12, lsl #2]; ldr r0, [r1], #4; ldr r0, [r1, #4]!
    ldr r0, [sp, #8]; ldrb r0, [r1, #3]; ldrsb r0, [r1, r12]; ldrh r0, [r1], #2; ldrsh r0, [r1, #-2]; ldrex r0, [r1]
    ldrd r0, r2, [r1, #8]; ldrd r0, r2, [r1], #8; ldm r1, {r0, r2}; ldm r1!, {r0, r2}; ldm r1, {r0, r1, r2}
    ldmdb r1!, {r0, r2, r8}; pop {r0, r4}; push {r0, r4}; push.w {r0, r8, lr}; str r0, [r1]; str r0, [r1, r12]
    str r0, [r1], #4; strb r0, [r1, #4]!; strh r0, [r1]; strd r0, r2, [r1, #8]; strd r0, r2, [r1, #8]!
    stm r1!, {r0, r2}; stmdb r1, {r0, r2}
    vldr s0, [r1, #4]; vldr d0, [r1, #8]; vldm r1, {s1, s2, s3}; vldm r1!, {d1, d2}; vldmdb r1!, {d1, d2}; vpop {d1, d2}
    vstr s0, [r1]; vstr d0, [r1]; vstm r1!, {s1, s2}; vpush {d1, d2}; vpush {s3}
"""
FLOAT = """
    vadd.f32 s0, s1, s2; vsub.f32 s0, s1, s2; vmul.f32 s0, s1, s2; vnmul.f32 s0, s1, s2
    vmla.f32 s0, s1, s2; vnmls.f32 s0, s1, s2; vfma.f32 s0, s1, s2; vfms.f32 s0, s1, s2
    vdiv.f32 s0, s1, s2; vsqrt.f32 s0, s1; vneg.f32 s0, s1; vabs.f32 s0, s1; vcmp.f32 s0, s1; vcmpe.f32 s0, #0
    vmrs APSR_nzcv, fpscr; vmov r0, s1; vmov s1, r0; vmov r0, r1, d3; vmov d3, r0, r1; vmov r0, r1, s4, s5
    vmov s4, s5, r0, r1; vmov.f32 s0, s1; vmov.f32 s0, #1.0; vcvt.s32.f32 s0, s1; vcvt.f32.s32 s0, s1
    vcvta.s32.f32 s0, s1; vrintz.f32 s0, s1; vmaxnm.f32 s0, s1, s2
    vselge.f32 s0, s1, s2
"""


def instructions(text: str) -> list[str]:
    return [part.strip() for line in text.strip().splitlines() for part in line.split(";")]


ALL = instructions(PROCESSING) + instructions(MEMORY) + instructions(FLOAT)


@functools.cache
def code_of_all() -> dict[str, bytes]:
    return dict(zip(ALL, assemble(*ALL), strict=True))


@functools.cache
def decoded(text: str) -> Instruction:
    (code,) = assemble(text)
    return decode(code, 0x0800_0000)[0]


@pytest.mark.parametrize(
    ("text", "mnemonic", "kind"),
    [
        ("adds r0, #1", "add", Kind.ALU),
        ("addw r0, r1, #4000", "add", Kind.ALU),
        ("add.w r0, r1, r2, lsl #3", "add", Kind.SHIFT),
        ("bics r0, r1", "bic", Kind.ALU),
        ("mls r0, r1, r2, r3", "mls", Kind.MULTIPLY_ACCUMULATE),
        ("muls r0, r1, r0", "mul", Kind.MULTIPLY),
        ("rors r0, r1", "ror", Kind.SHIFT),
        ("sxtb.w r0, r1", "sxtb", Kind.ALU),
        ("sxtb.w r0, r1, ror #8", "sxtb", Kind.SHIFT),
        ("sxtb16 r0, r1, ror #8", "sxtb16", Kind.SIMD),
        ("ssat r0, #8, r1", "ssat", Kind.SIMD),
        ("smlad r0, r1, r2, r3", "smlad", Kind.MULTIPLY_ACCUMULATE),
        ("smmlsr r0, r1, r2, r3", "smmlsr", Kind.MULTIPLY_ACCUMULATE),
        ("smull r0, r1, r2, r3", "smull", Kind.LONG_MULTIPLY),
        ("umaal r0, r1, r2, r3", "umaal", Kind.LONG_MULTIPLY_ACCUMULATE),
        ("udiv r0, r1, r2", "udiv", Kind.DIVIDE),
        ("ldr.w r8, [r1]", "ldr", Kind.LOAD),
        ("ldr pc, [r1]", "ldr", Kind.LOAD),
        ("ldrd r0, r2, [r1]", "ldrd", Kind.LOAD_DUAL),
        ("pop {r4, pc}", "pop", Kind.LOAD_MULTIPLE),
        ("strex r0, r2, [r1]", "strex", Kind.STORE),
        ("push {r4, lr}", "push", Kind.STORE_MULTIPLE),
        ("1: bne 1b", "b", Kind.BRANCH),
        ("1: b.w 1b", "b", Kind.BRANCH),
        ("cbz r0, 1f; nop; nop; 1:", "cbz", Kind.BRANCH),
        ("1: bl 1b", "bl", Kind.CALL),
        ("blx r3", "blx", Kind.CALL),
        ("bx lr", "bx", Kind.INDIRECT_BRANCH),
        ("mov pc, r3", "mov", Kind.INDIRECT_BRANCH),
        ("tbb [pc, r0]", "tbb", Kind.INDIRECT_BRANCH),
        ("nop.w", "nop", Kind.NOP),
        ("pld [r0]", "pld", Kind.NOP),
        ("dsb", "dsb", Kind.BARRIER),
        ("cpsid i", "cpsid", Kind.STATUS),
        ("mrs r0, primask", "mrs", Kind.STATUS),
        ("udf #0", "udf", Kind.STATUS),
        ("vmov.f32 s0, #1.0", "vmov", Kind.FLOAT),
        ("vcvt.s32.f32 s0, s1", "vcvt", Kind.FLOAT),
        ("vmrs APSR_nzcv, fpscr", "vmrs", Kind.FLOAT),
        ("vfma.f32 s0, s1, s2", "vfma", Kind.FLOAT_MULTIPLY_ACCUMULATE),
        ("vsqrt.f32 s0, s1", "vsqrt", Kind.FLOAT_DIVIDE),
        ("vldmia r0!, {s0-s3}", "vldmia", Kind.FLOAT_LOAD),
        ("vpush {d8}", "vpush", Kind.FLOAT_STORE),
    ],
)
def test_mnemonics_and_kinds(text: str, mnemonic: str, kind: Kind) -> None:
    found = decoded(text)
    assert (found.mnemonic, found.kind) == (mnemonic, kind)
    jumps = kind in {Kind.BRANCH, Kind.CALL, Kind.INDIRECT_BRANCH} or text in {"ldr pc, [r1]", "pop {r4, pc}"}
    assert (found.branches, "pc" in found.writes) == (jumps, jumps)


def test_roles_of_operands() -> None:
    shifted = decoded("add.w r0, r1, r2, lsl #3")
    assert shifted.shifted_reads == {"r2"} and not shifted.address_reads
    assert decoded("sxtab16 r0, r1, r2, ror #8").shifted_reads == {"r2"}
    assert not decoded("lsl.w r0, r1, #4").shifted_reads

    assert decoded("smlad r0, r1, r2, r3").accumulator == {"r3"}
    assert decoded("smlal r0, r1, r2, r3").accumulator == {"r0", "r1"}
    assert decoded("vfma.f64 d0, d1, d2").accumulator == {"s0", "s1"}
    assert not decoded("smuad r0, r1, r2").accumulator

    indexed = decoded("ldr.w r0, [r1, r12, lsl #2]")
    assert (indexed.address_reads, indexed.register_offset, indexed.words) == ({"r1", "r12"}, True, 1)
    post = decoded("str r0, [r1], #4")
    assert (post.address_reads, post.base_write_back, post.reads) == ({"r1"}, "r1", {"r0", "r1"})
    literal = decoded("ldr.w r0, [pc, #8]")
    assert literal.pc_relative and not literal.address_reads and not literal.reads
    pop = decoded("pop {r4, pc}")
    assert (pop.words, pop.base_write_back, pop.address_reads) == (2, "sp", {"sp"})
    assert decoded("vldmia r1!, {d1, d2}").words == 4
    assert decoded("ldrd r0, r2, [r1]").words == 2
    assert decoded("ldm r1!, {r0, r2, r3}").words == 3
    assert decoded("add r0, r8").words == 0
    assert decoded("1: bl 1b").writes == {"lr", "pc"}
    assert decoded("tbh [pc, r0, lsl #1]").address_reads == {"r0"}
    compare = decoded("cbnz r1, 1f; nop; nop; 1:")
    assert compare.conditional and compare.reads == {"r1"}
    assert decoded("1: bne 1b").conditional and decoded("1: bne 1b").reads == {"flags"}
    assert not decoded("1: b 1b").conditional
    assert decoded("strex r0, r2, [r1]").writes == {"r0"}
    assert decoded("add r9, r10").reads == {"r9", "r10"}
    assert decoded("add r11, r12").reads == {"r11", "r12"}


CONDITIONAL = """
    cmp r0, r1; ittte ne; addne r0, r1; ldrne r0, [r1]; mulne r0, r1, r0; moveq r0, r2; adds r0, r1
    itt hs; vmovhs.f32 s0, s1; vldrhs s0, [r0]; it mi; cmpmi r0, r1; it lt; addslt.w r0, r1, r2; it eq; popeq {r4, pc}
"""


def test_it_blocks() -> None:
    (code,) = assemble(";".join(instructions(CONDITIONAL)))
    found = decode(code, 0)
    assert [i.conditional for i in found[:7]] == [False, False, True, True, True, True, False]
    assert [i.mnemonic for i in found[:7]] == ["cmp", "it", "add", "ldr", "mul", "mov", "add"]
    assert ["flags" in i.writes for i in found[:7]] == [True, False, False, False, False, False, True]
    assert all(("flags" in i.reads) == i.conditional for i in found)
    assert [i.mnemonic for i in found if i.conditional][4:] == ["vmov", "vldr", "cmp", "add", "pop"]
    assert "flags" in next(i for i in found if i.text.startswith("addslt")).writes
    assert found[-1].branches


def test_code_that_begins_inside_an_it_block() -> None:
    (code,) = assemble(";".join(instructions(CONDITIONAL)))
    whole = decode(code, 0x100)
    for at in (i.address - 0x100 for i in whole[1:]):
        state = it_state_after(code[:at])
        first = decode(code[:at], 0x100)
        assert first + decode(code[at:], 0x100 + at, it_state=state) == whole
        assert it_state_after(code[at:], state) == it_state_after(code) == 0
    assert it_state_after(code[:6]) != 0


def test_what_is_no_instruction() -> None:
    with pytest.raises(EmulationError, match=r"ff ff ff ff at 0x08000002 is no instruction"):
        decode(b"\x00\xbf" + b"\xff" * 4, 0x0800_0000)
    (code,) = assemble("add.w r0, r1, r2")
    with pytest.raises(EmulationError, match="at 0x00000100"):
        decode(code[:2], 0x100)


REGISTERS = {f"r{n}": getattr(arm_const, f"UC_ARM_REG_R{n}") for n in range(13)}
REGISTERS |= {"sp": arm_const.UC_ARM_REG_SP, "lr": arm_const.UC_ARM_REG_LR}
REGISTERS |= {f"s{n}": getattr(arm_const, f"UC_ARM_REG_S{n}") for n in range(8)}
STATUS = {"flags": 0xF000_0000, "q": 0x0800_0000, "ge": 0x000F_0000}
CODE, DATA = 0x0800_0000, 0x2000_0000


class Chip:
    """Unicorn's Cortex-M7, to execute one instruction after another from chosen states."""

    def __init__(self) -> None:
        self.machine = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.machine.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M7)
        self.machine.mem_map(CODE, 0x1000)
        self.machine.mem_map(DATA, 0x1000)
        self.next = CODE
        self.load(bytes.fromhex("b0ee400a"))  # VMOV.F32 s0, s0: the first FPU instruction gives FPSCR its default
        self.machine.emu_start(self.address | 1, self.next)

    def load(self, code: bytes) -> None:
        self.address, self.next = self.next, self.next + len(code)
        self.machine.mem_write(self.address, code)

    def execute(self, state: dict[str, int], data: bytes) -> tuple[dict[str, int], bytes]:
        for name, number in REGISTERS.items():
            self.machine.reg_write(number, state[name])
        self.machine.reg_write(arm_const.UC_ARM_REG_FPSCR, state["fpscr"])
        self.machine.reg_write(arm_const.UC_ARM_REG_APSR_NZCVQG, sum(state[name] for name in STATUS))
        self.machine.mem_write(DATA, data)
        self.machine.emu_start(self.address | 1, self.next)
        status = self.machine.reg_read(arm_const.UC_ARM_REG_XPSR)
        after = {name: self.machine.reg_read(number) for name, number in REGISTERS.items()}
        after |= {name: status & mask for name, mask in STATUS.items()}
        after["fpscr"] = self.machine.reg_read(arm_const.UC_ARM_REG_FPSCR) & 0xF000_0000
        return after, bytes(self.machine.mem_read(DATA, len(data)))


def random_state(generator: random.Random, in_memory: bool) -> Iterator[tuple[str, int]]:
    for name in REGISTERS:
        word = generator.getrandbits(32)
        ordinary_float = word & 0x807F_FFFF | generator.randrange(100, 160) << 23
        word = generator.choice([word, word, ordinary_float, 0x7FFF_FFFF, 0x8000_8000, 0xFFFF_FFFF])
        if name == "sp" or (in_memory and name == "r1"):
            word = DATA + generator.randrange(0x200, 0x400, 8)
        if in_memory and name == "r12":
            word = generator.randrange(0, 64, 8)
        yield name, word
    for name, mask in STATUS.items():
        yield name, generator.getrandbits(32) & mask
    yield "fpscr", generator.getrandbits(4) << 28


@pytest.mark.parametrize("text", ALL)
def test_reads_and_writes_are_what_unicorn_does(text: str) -> None:
    """What changes is written, what has an influence is read, and the other way round.

    A status register that is written in part keeps the rest, which is no influence.
    """
    code = code_of_all()[text]
    (found,) = decode(code, CODE)
    generator, chip = random.Random(text), Chip()
    chip.load(code)
    changed: set[str] = set()
    influential: set[str] = set()
    for _ in range(16):
        in_memory = bool(found.words)
        before = dict(random_state(generator, in_memory))
        data = generator.randbytes(0x800)
        after, stored = chip.execute(before, data)
        changed |= {name for name, value in after.items() if value != before[name]}
        for name, other in random_state(generator, in_memory):
            if name in influential or other == before[name]:
                continue
            result, result_stored = chip.execute(before | {name: other}, data)
            if name not in found.writes:
                same = result == after | {name: other}
            elif name in STATUS:
                same = result | {name: 0} == after | {name: 0}
            else:
                same = result == after
            if not same or result_stored != stored:
                influential.add(name)
    seen = set(before)
    assert changed - found.writes == set()
    assert influential - found.reads == set()
    assert found.writes & seen - changed - {"q"} == set()  # some set Q so rarely that it is left out
    assert found.reads & seen - influential == set()


def build(target: str, folder: Path) -> tuple[GeneratedModel, Path]:
    """The example model and its image for a target."""
    model = generate(load(MODEL), load_target(target), folder)
    sources, headers = list(model.sources), list(model.include_dirs)
    entry_points = [f"{model.prefix}_run"]
    return model, build_firmware(
        sources, model.target, entry_points, include_dirs=headers, arena_bytes=model.arena_bytes, name=model.prefix
    )


@pytest.mark.parametrize("target", ["stm32f746", "rp2040"])
def test_every_instruction_of_a_generated_model(target: str, tmp_path: Path) -> None:
    """Each function of the image decodes, to as many instructions as the lengths in its halfwords say."""
    _, elf = build(target, tmp_path)
    kinds: set[Kind] = set()
    total = 0
    for address, code in code_ranges(elf):
        found = decode(code, address)
        assert len(found) == sum(1 for _ in lengths(code))
        assert all(not re.search(r"[ .]|^[bi]t", i.mnemonic) or i.mnemonic == "it" for i in found)
        total += len(found)
        kinds |= {i.kind for i in found}
    assert total > 3000
    assert {Kind.LOAD, Kind.STORE_MULTIPLE, Kind.BRANCH, Kind.CALL, Kind.MULTIPLY} <= kinds
    assert (Kind.MULTIPLY_ACCUMULATE in kinds) == (target == "stm32f746")


@pytest.mark.parametrize("target", ["stm32f407", "rp2040"])
def test_every_block_of_a_run_holds_what_is_counted(target: str, tmp_path: Path) -> None:
    """Instructions decoded in each executed block, times its executions, are those that the emulator's hook counted."""
    model, elf = build(target, tmp_path)
    machine = CortexM(model.target, elf, timing=Timing.ZERO_WAIT)
    result = machine.call(f"{model.prefix}_run", machine.arena[0])
    blocks = machine.block_profile()
    assert sum(block.executions for block in blocks) == result.blocks > 100_000
    counts = [len(decode(machine.read(b.start, b.size), b.start)) for b in blocks]
    assert sum(n * block.executions for n, block in zip(counts, blocks, strict=True)) == result.instructions


def lengths(code: bytes) -> Iterator[int]:
    """Bytes of each instruction, as `conformance/native/block_hook.c` tells them."""
    at = 0
    while at < len(code):
        size = 4 if code[at + 1] >> 3 >= 0x1D else 2
        yield size
        at += size


def code_ranges(elf: Path) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of each function of an image, without the data in it that a mapping symbol $d begins."""
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        symbols = list(file.get_section_by_name(".symtab").iter_symbols())
        marks = {s["st_value"]: s.name[:2] for s in symbols if s.name.startswith(("$t", "$d"))}
        for symbol in symbols:
            if symbol["st_info"]["type"] != "STT_FUNC":
                continue
            start, section = symbol["st_value"] & ~1, file.get_section(symbol["st_shndx"])
            end = start + symbol["st_size"]
            edges = sorted({start, end, *(at for at in marks if start < at < end)})
            for low, high in pairwise(edges):
                if marks.get(low) != "$d":
                    yield low, section.data()[low - section["sh_addr"] : high - section["sh_addr"]]
