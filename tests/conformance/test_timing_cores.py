"""Cycles of short sequences on Cortex-M0+, M3 and M4, as their technical reference manuals give them."""

import functools
from dataclasses import replace

import pytest

from codegen.target import CORES
from conformance.timing.core import Block, Cost
from conformance.timing.cores import core_model
from conformance.timing.instructions import decode
from refsim.errors import EmulationError, TargetError
from tests.conformance.assembly import assemble, block

# (sequence, cycles), the same on Cortex-M3 and M4: DDI 0337I and DDI 0439D, section 3.3.
LOADS_AND_STORES = [
    # The examples of section 3.3.2.
    ("ldr r0, [r1]; ldr r1, [r2]", 3),
    ("ldr r0, [r1, r2]; str r0, [r3, #20]", 3),
    ("ldr r0, [r1, r2]; str r1, [r3, r2]", 3),
    ("ldr r0, [r1, r5]; ldr r1, [r2]; ldr r2, [r3, #4]", 4),
    ("ldm r0, {r1, r2, r3}", 4),
    ("stm r8, {r0-r7}", 9),
    ("ldrd r0, r1, [r2]", 3),
    ("strd r0, r1, [r2]", 3),
    # A load by itself, behind a store, behind an instruction of another kind.
    ("ldr r0, [r1]", 2),
    ("ldrsb r0, [r1, r2]", 2),
    ("str r0, [r1]; ldr r2, [r3]", 3),
    ("ldr r0, [r1]; nop; ldr r2, [r3]", 5),
    # A load whose address is what the load before it read; one whose result alone is.
    ("ldr r0, [r1]; ldr r2, [r0]", 4),
    ("ldr r0, [r1]; ldr r2, [r3, r0]", 4),
    ("ldr r0, [r1]; ldr r0, [r2]", 3),
    # Neither loads nor stores of several registers overlap.
    ("ldr r0, [r1]; ldrd r2, r3, [r4]", 5),
    ("ldrd r2, r3, [r4]; ldr r0, [r1]", 5),
    ("ldm r4, {r2, r3}; ldr r0, [r1]", 5),
    # Write-back.
    ("ldr r0, [r1], #4; ldr r2, [r3], #4", 4),
    ("ldr r0, [r1], #4; ldr r2, [r3]", 3),
    ("ldr r0, [r1, #4]!; ldr r2, [r1]", 4),
    # Stores: an immediate offset takes one cycle, a register two.
    ("str r0, [r1]", 1),
    ("str r0, [r1], #4; strb r0, [r2, #1]", 2),
    ("str r0, [r1, r2]", 2),
    ("strh r0, [r1, r2]; strh r0, [r1, r3]", 4),
    ("push {r4, r5, lr}", 4),
    ("pop {r4, r5}", 3),
    ("strex r0, r1, [r2]", 2),
]
OTHERS = [
    ("adds r0, #1; add.w r0, r1, r2, lsl #3; clz r0, r0; ssat r0, #8, r0; movw r0, #1; bfi r0, r1, #1, #2", 6),
    ("muls r0, r1, r0; mul r0, r0, r0", 2),
    ("sdiv r0, r1, r2", 2),
    ("udiv r0, r0, r0", 2),
    ("b 1f; 1: nop", 2),
    ("bx lr", 1),
    ("nop; dsb; dmb; mrs r0, primask; cpsid i", 5),
    ("isb", 3),
    ("cmp r0, r1; it ne; movne r0, r1", 3),
    ("ldr r0, [r1]; it ne; ldrne r2, [r3]", 5),
]
M3_ONLY = [
    ("mla r0, r1, r2, r3", 2),
    ("mls r0, r1, r2, r3", 2),
    ("smull r0, r1, r2, r3", 5),
    ("umlal r0, r1, r2, r3", 7),
]
M4_ONLY = [
    ("mla r0, r1, r2, r3; smlad r0, r1, r2, r0; smmulr r0, r0, r1; smlalbb r0, r1, r0, r1; umaal r0, r1, r2, r3", 5),
    ("smull r0, r1, r2, r3; smlal r0, r1, r0, r1; smlald r0, r1, r2, r3", 3),
    ("sxtb16 r0, r1; sxtb16 r0, r1, ror #8; sadd16 r0, r0, r0; sel r0, r0, r0; usada8 r0, r1, r2, r3", 5),
    # Table 7-1 of DDI 0439D.
    ("vadd.f32 s0, s1, s2; vmul.f32 s3, s1, s2; vabs.f32 s4, s1; vcmp.f32 s1, s2; vcvt.s32.f32 s5, s1; vmov s6, r0", 6),
    ("vmla.f32 s0, s1, s2", 3),
    ("vfnms.f32 s0, s1, s2", 3),
    ("vmov r0, r1, d0", 2),
    ("vmov d0, r0, r1", 2),
    ("vmov s0, s1, r0, lr", 2),
    ("it ne; vmovne s0, r0", 2),
    ("vmov r0, s0; vmov.f32 s1, s2; vmov.f32 s3, #1.0", 3),
    ("vldr s0, [r0]", 2),
    ("vldr d0, [r0]", 3),
    ("vstr s0, [r0]; vstr d1, [r0]", 5),
    ("vldm r0, {s0-s3}", 5),
    ("vpush {d8, d9}; vpop {d8, d9}", 10),
    ("vmrs APSR_nzcv, fpscr; vmrs r0, fpscr; vmsr fpscr, r1", 3),
]
# (sequence, cycles, of them waiting).
WAITS = [
    # "Any load or store that generates an address dependent on the result of a preceding data processing operation".
    ("adds r0, #1; ldr r1, [r0]", 4, 1),
    ("adds r0, #1; ldr r1, [r2, r0]", 4, 1),
    ("muls r0, r1, r0; str r1, [r0]", 3, 1),
    ("add.w r0, r1, r2; ldm r0, {r3, r4}", 5, 1),
    ("sub sp, #8; push {r4, lr}", 5, 1),
    ("adds r0, #1; str r0, [r1]", 2, 0),
    ("adds r0, #1; nop; ldr r1, [r0]", 4, 0),
    ("ldr r0, [r1]; adds r2, r0, #1; ldr r3, [r0]", 5, 0),
    ("cmp r0, r1; ldr r2, [r0]", 3, 0),
    ("adds r0, #1; pld [r0]", 2, 0),
]
FLOAT_WAITS = [
    # "... take one cycle longer if their result is consumed by the following instruction",
    # but for the addend of a multiply-accumulate.
    ("vmul.f32 s0, s1, s2; vadd.f32 s3, s0, s4", 3, 1),
    ("vmul.f32 s0, s1, s2; vmul.f32 s3, s4, s5; vadd.f32 s6, s0, s7", 3, 0),
    ("vmul.f32 s0, s1, s2; vfma.f32 s0, s3, s4", 4, 0),
    ("vmul.f32 s0, s1, s2; vfma.f32 s3, s0, s4", 5, 1),
    ("vfma.f32 s0, s1, s2; vfma.f32 s0, s3, s4", 6, 0),
    ("vcvt.s32.f32 s0, s1; vmov r0, s0", 3, 1),
    ("vadd.f32 s0, s1, s2; vstr s0, [r0]", 4, 1),
    ("vmov s0, r0; vadd.f32 s1, s0, s0", 2, 0),
    ("vldr s0, [r0]; vadd.f32 s1, s0, s0", 3, 0),
    ("adds r0, #4; vldr s0, [r0]", 4, 1),
    # "Integer-only instructions following VDIVR or VSQRT instructions complete out-of-order", floats wait out the 14.
    ("vdiv.f32 s0, s1, s2; adds r0, #1", 2, 0),
    ("vdiv.f32 s0, s1, s2; vadd.f32 s3, s4, s5", 15, 13),
    ("vdiv.f32 s0, s1, s2; vadd.f32 s3, s0, s5", 16, 14),
    ("vsqrt.f32 s0, s1; adds r0, #1; adds r1, #1; vadd.f32 s3, s4, s5", 15, 11),
    ("vdiv.f32 s0, s1, s2; vdiv.f32 s3, s4, s5; vmov r0, s9", 29, 26),
]
M0PLUS = [
    # DDI 0484C, table 3-1.
    ("adds r0, #1; lsls r0, r1; muls r0, r1, r0; sxtb r0, r1; rev r0, r1; mov r0, r8; cmp r0, r1", 7),
    ("ldr r0, [r1]; ldr r2, [r3]; ldrsb r0, [r1, r2]; str r0, [r1]; strb r0, [r1, r2]", 10),
    ("adds r0, #1; ldr r1, [r0]", 3),
    ("ldm r0!, {r1, r2, r3}; stm r0!, {r1, r2}; push {r4, lr}; pop {r4}", 12),
    ("mrs r0, primask", 3),
    ("msr primask, r0", 3),
    ("dsb; isb; dmb", 9),
    ("nop; cpsid i", 2),
    ("wfi", 2),
]
NARROW = "adds r0, #1"
JUMPS = [
    # (core, code that ends in a branch, its cycles with the refill that the next block is charged).
    ("cortex-m4", "beq 1f; nop; 1:", 3),
    ("cortex-m4", "b 1f; nop; 1:", 3),
    ("cortex-m4", "cbz r0, 1f; nop; nop; 1:", 3),
    ("cortex-m4", "1: bl 1b", 3),
    ("cortex-m4", "bx lr", 3),
    ("cortex-m4", "blx r3", 3),
    ("cortex-m4", "mov pc, r3", 3),
    ("cortex-m4", "ldr pc, [r0]", 5),
    ("cortex-m4", "pop {r4, pc}", 6),
    ("cortex-m4", "tbb [pc, r0]", 6),
    ("cortex-m4", "tbh [pc, r0, lsl #1]", 6),
    ("cortex-m3", "beq 1f; nop; 1:", 3),
    ("cortex-m3", "pop {r4, pc}", 6),
    ("cortex-m0plus", "beq 1f; nop; 1:", 2),
    ("cortex-m0plus", "b 1f; nop; 1:", 2),
    ("cortex-m0plus", "1: bl 1b", 3),
    ("cortex-m0plus", "bx lr", 2),
    ("cortex-m0plus", "blx r3", 2),
    ("cortex-m0plus", "mov pc, r3", 2),
    ("cortex-m0plus", "pop {r4, pc}", 5),
]
SEQUENCES = [
    *((core, text, cycles, 0) for core in ("cortex-m3", "cortex-m4") for text, cycles in LOADS_AND_STORES + OTHERS),
    *((core, *case) for core in ("cortex-m3", "cortex-m4") for case in WAITS),
    *(("cortex-m3", text, cycles, 0) for text, cycles in M3_ONLY),
    *(("cortex-m4", text, cycles, 0) for text, cycles in M4_ONLY),
    *(("cortex-m4", *case) for case in FLOAT_WAITS),
    *(("cortex-m0plus", text, cycles, 0) for text, cycles in M0PLUS),
]


@functools.cache
def codes() -> dict[str, bytes]:
    texts = list(dict.fromkeys([text for _, text, *_ in SEQUENCES] + [text for _, text, _ in JUMPS]))
    return dict(zip(texts, assemble(*texts), strict=True))


@pytest.mark.parametrize(("core", "text", "cycles", "waits"), SEQUENCES)
def test_sequences(core: str, text: str, cycles: int, waits: int) -> None:
    assert core_model(core).cost(None, block(codes()[text])) == Cost(cycles, waits)


@pytest.mark.parametrize(("core", "text", "cycles"), JUMPS)
def test_jumps(core: str, text: str, cycles: int) -> None:
    """A taken branch's refill is charged to the block that it leads to; a branch not taken has none."""
    model, code = core_model(core), codes()[text]
    jump = block(code[: decode(code, 0)[0].size], 0x100)
    (narrow,) = assemble(NARROW)
    taken, passed = model.cost(jump, block(narrow, 0x200)), model.cost(jump, block(narrow, jump.end))
    assert passed == Cost(1)
    assert model.cost(None, jump).cycles + taken.branch == cycles
    assert taken == Cost(1 + taken.branch, 0, taken.branch)


def test_neighbours_across_blocks() -> None:
    """What a block that does not branch leaves in the pipeline, the next one meets; a refill empties it."""
    load, add, use, other, divide, floats = (
        block(code, 0x100)
        for code in assemble(
            "ldr r0, [r1]", "adds r3, #1", "ldr r2, [r3]", "nop", "vdiv.f32 s0, s1, s2", "vadd.f32 s3, s4, s5"
        )
    )

    def cost(first: Block, second: Block, at: int) -> Cost:
        return core_model("cortex-m4").cost(first, replace(second, start=at))

    assert cost(load, use, load.end) == Cost(1)
    assert cost(add, use, add.end) == Cost(3, 1)
    assert cost(add, use, 0x200) == Cost(4, 0, 2)
    assert cost(other, use, other.end) == Cost(2)
    assert cost(divide, floats, divide.end) == Cost(14, 13)
    assert cost(divide, floats, 0x200) == Cost(14, 11, 2)


def test_divisions() -> None:
    for core in ("cortex-m3", "cortex-m4"):
        division = core_model(core).division
        assert division is not None
        assert (division.minimum, division.maximum) == (2, 12)
        assert division.minimum + -(-11 // division.bits_per_cycle) == 6  # the flat cost behind the peers' figures
        assert division.minimum + 30 // division.bits_per_cycle == division.maximum
    assert core_model("cortex-m0plus").division is None


def test_every_core_has_a_model() -> None:
    for name in CORES:
        assert core_model(name).name == name
    with pytest.raises(TargetError, match="no timing model of core 'cortex-a7'; there is one of cortex-m0plus, "):
        core_model("cortex-a7")


@pytest.mark.parametrize(("core", "text"), [("cortex-m3", "vadd.f32 s0, s1, s2"), ("cortex-m0plus", "sdiv r0, r1, r2")])
def test_instructions_that_a_core_lacks(core: str, text: str) -> None:
    (code,) = assemble(text)
    with pytest.raises(EmulationError, match=rf"`{text}` at 0x00000100 is no instruction of a Cortex-M"):
        core_model(core).cost(None, block(code, 0x100))
