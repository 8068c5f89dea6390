"""What an instruction loads and stores, from its encoding, against what Unicorn loads and stores when it runs."""

import random
from pathlib import Path
from typing import Any

import pytest
import unicorn
from assembly import assemble
from elftools.elf.elffile import ELFFile
from test_emulator import random_program
from unicorn import arm_const
from unicorn import unicorn_const as uc

from codegen.target import load_target
from conformance.emulator.unicorn_library import libraries
from conformance.toolchain import build_firmware

CODE, DATA, STACK = 0x0800_0000, 0x2000_0000, 0x2000_8000
REGISTERS = [getattr(arm_const, f"UC_ARM_REG_R{n}") for n in range(15)]
CPUS = {
    "stm32f746": arm_const.UC_CPU_ARM_CORTEX_M7,
    "stm32u575": arm_const.UC_CPU_ARM_CORTEX_M33,
    "rp2040": arm_const.UC_CPU_ARM_CORTEX_M0,
}

# r0 and r7 point into RAM, r1 is 12, r2 is 3, sp points above them.
NARROW = """
ldr r3, 1f; nop; nop; nop; 1: nop; nop | str r3, [r0, r1] | strh r3, [r0, r2] | strb r3, [r0, r2]
ldrsb r3, [r0, r2] | ldr r3, [r0, r1] | ldrh r3, [r0, r1] | ldrb r3, [r0, r2] | ldrsh r3, [r0, r1]
str r3, [r0, #124] | ldr r3, [r7, #4] | strb r3, [r0, #31] | ldrb r3, [r0, #5] | strh r3, [r0, #62]
ldrh r3, [r0, #2] | str r3, [sp, #1020] | ldr r3, [sp, #8] | push {r1, r3, lr} | push {r4} | pop {r3, r5}
stm r0!, {r1, r3, r4} | ldm r0!, {r1, r3} | ldm r0, {r0, r1} | add r3, sp, #8 | movs r3, r1 | adds r3, #1
lsls r3, r1, #2 | nop | sub sp, #16 | uxtb r3, r1
"""
WIDE = """
ldr.w r3, [r0, #4000] | ldr r3, [r0, #-255] | ldr r3, [r0], #16 | ldr r3, [r0], #-16 | ldr r3, [r0, #8]!
ldr r3, [r0, #-8]! | ldr.w r3, [r0, r1, lsl #3] | ldrsb r3, [r0, r2, lsl #1] | ldrh.w r3, [r0, #7]
ldrsh.w r3, [r0, #2] | strb r3, [r0], #1 | str r3, [r0, r1, lsl #2] | strh r3, [r0, #-2]!
ldr.w r3, 1f; nop; nop; 1: nop; nop | nop; nop; 1: nop; nop; ldr.w r3, 1b | ldrsb.w r3, 1f; nop; 1: nop
ldrd r3, r4, [r0, #8] | ldrd r3, r4, [r0], #-16 | strd r3, r4, [r0, #-1020]! | strd r3, r4, [r0], #8
ldrd r3, r4, 1f; nop; nop; 1: nop; nop; nop; nop | ldm.w r0!, {r3, r8, r9} | ldmdb r0!, {r3, r4, r8}
stmdb r0, {r1, r9} | stm.w r0, {r1, r9} | push.w {r4, r8, lr} | pop.w {r4, r8} | push.w {r8} | pop.w {r8}
ldrex r3, [r0, #8] | ldrexb r3, [r0] | ldrexh r3, [r0] | ldrex r3, [r0]; strex r4, r3, [r0]
ldrexb r3, [r0]; strexb r4, r3, [r0] | pld [r0, #4] | ldrt r3, [r0, #4] | strbt r3, [r0, #3] | tbb [r7, r2]
tbh [r7, r2, lsl #1] | vldr s3, [r0, #8] | vldr d3, [r0, #-16] | vstr s3, [r0] | vstr d3, [r0, #1020]
vldm r0, {s1-s5} | vldm r0!, {d1-d3} | vldmdb r0!, {s1-s2} | vstm r0!, {s1-s4} | vpush {d8-d9} | vpop {s16-s18}
vldr s3, 1f; nop; nop; 1: nop; nop | vmov r3, r4, d1 | vmov d1, r3, r4 | vmov s1, r3 | vadd.f32 s1, s2, s3
vmul.f32 s1, s2, s3 | mul r3, r1, r2 | sdiv r3, r1, r2 | smlad r3, r1, r2, r3 | umull r3, r4, r1, r2
movw r3, #65535 | ubfx r3, r1, #2, #3 | add.w r3, r1, r2, lsl #4 | cbz r0, 1f; 1: nop
ite eq; ldreq r3, [r0]; ldrne r3, [r0, #4] | b.w 1f; 1: nop | mrs r3, apsr | dsb
"""
ACQUIRE = ("d0e8af3f", "d0e88f3f", "d0e89f3f", "c0e8af3f", "c0e88f3f", "d0e8ef3f")  # lda, ldab, ldah, stl, stlb, ldaex


class Observer:
    """Unicorn with each instruction's accesses, as they are and as its encoding says."""

    def __init__(self, cpu: int, code: bytes) -> None:
        native, _ = libraries()
        self.lib, self.ffi = native.lib, native.ffi
        self.code = code
        self.machine: Any = unicorn.Uc(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB | uc.UC_MODE_MCLASS)
        self.machine.ctl_set_cpu_model(cpu)
        self.machine.mem_map(CODE, 1 << 20)
        self.machine.mem_map(DATA, 1 << 16)
        self.machine.mem_write(CODE, code)
        self.machine.hook_add(uc.UC_HOOK_CODE, self._on_instruction)
        self.machine.hook_add(uc.UC_HOOK_MEM_READ | uc.UC_HOOK_MEM_WRITE, self._on_access)
        self.found: list[tuple[int, set[tuple[int, bool]]]] = []
        self.predicted: list[tuple[int, set[tuple[int, bool]]]] = []
        self.access = self.ffi.new("tnf_access *")

    def _on_instruction(self, machine: Any, address: int, size: int, _data: object) -> None:
        a = self.access
        touched: set[tuple[int, bool]] = set()
        code = self.code[address - CODE :][:size]
        if self.lib.tnf_data_access(self.ffi.from_buffer("uint8_t[]", code), address, a):
            base, index = (machine.reg_read(REGISTERS[r]) if r < 15 else 0 for r in (a.base, a.index))
            start = base + a.offset + (index << a.shift)
            touched = {(start + i & 0xFFFFFFFF, bool(a.write)) for i in range(a.size * a.count)}
        self.predicted.append((address, touched))
        self.found.append((address, set()))

    def _on_access(self, _machine: Any, kind: int, address: int, size: int, _value: int, _data: object) -> None:
        write = kind == uc.UC_MEM_WRITE
        touched = self.found[-1][1]
        touched.update((address + i, write) for i in range(size))
        if write:  # Unicorn reads what STREX stores to, as no core does
            touched.difference_update((address + i, False) for i in range(size))


def run_each(cpu: int, snippets: list[bytes]) -> None:
    for code in snippets:
        observer = Observer(cpu, code + bytes.fromhex("00bf") * 16)
        machine = observer.machine
        values = {0: DATA + 0x2000, 1: 12, 2: 3, 4: 0x1234, 7: DATA + 0x3000, 8: 5, 9: 6, 13: STACK, 14: 7}
        for register, value in values.items():
            machine.reg_write(REGISTERS[register], value)
        count = 2 if len(code) > 4 else 1
        machine.emu_start(CODE | 1, CODE + len(code), count=count)
        assert observer.found == observer.predicted, code.hex()


def snippets(text: str) -> list[bytes]:
    return assemble(*(part.strip() for line in text.strip().splitlines() for part in line.split("|")))


def test_every_form_of_load_and_store() -> None:
    run_each(CPUS["stm32f746"], snippets(NARROW) + snippets(WIDE))
    run_each(CPUS["rp2040"], snippets(NARROW))
    run_each(CPUS["stm32u575"], [bytes.fromhex(code) for code in ACQUIRE])


@pytest.mark.parametrize(("name", "opt"), [("stm32f746", "-O2"), ("stm32f746", "-Os"), ("rp2040", "-O1")])
def test_random_programs(name: str, opt: str, tmp_path: Path) -> None:
    target = load_target(name)
    (tmp_path / "programs.c").write_text(random_program(random.Random(7), 3))
    elf = build_firmware([tmp_path / "programs.c"], target, ["f0", "f1", "f2"], opt=opt, name="programs")
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        segment = next(file.iter_segments("PT_LOAD"))
        symbols = {s.name: s["st_value"] for s in file.get_section_by_name(".symtab").iter_symbols()}
        image, origin = segment.data(), segment["p_paddr"]
    loads = 0
    for function in ("f0", "f1", "f2"):
        observer = Observer(CPUS[name], image)
        machine = observer.machine
        machine.reg_write(arm_const.UC_ARM_REG_SP, STACK)
        machine.reg_write(arm_const.UC_ARM_REG_LR, CODE + 0xFFF0 | 1)
        machine.reg_write(REGISTERS[1], 77)
        # The image lies elsewhere on some chips; its code does not depend on where.
        machine.emu_start(symbols[function] - origin + CODE | 1, CODE + 0xFFF0)
        assert observer.found == observer.predicted
        loads += sum(bool(touched) for _, touched in observer.found)
    assert loads > 50
