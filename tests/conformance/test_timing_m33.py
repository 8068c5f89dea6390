"""What was measured of the Cortex-M33's pairs and latencies: one sequence for each rule."""

import pytest

from conformance.timing.core import Cost
from conformance.timing.cores import core_model
from tests.conformance.assembly import assemble, block

# (sequence, cycles, of which nothing issued)
CASES = [
    # One instruction a cycle, but for 16-bit branches, IT and NOP behind a 16-bit instruction.
    ("adds r0, r1; adds r2, r3", 2, 0),
    ("ldr r0, [r1]; adds r2, r3", 2, 0),
    ("adds r0, r1; nop", 1, 0),
    ("adds r0, r1; nop.w", 2, 0),
    ("nop; adds r0, r1", 2, 0),
    ("add.w r0, r0, r1; nop", 2, 0),
    ("adds r0, r1; beq 1f; 1:", 1, 0),
    ("adds.w r0, r0, r1; beq 1f; 1:", 2, 0),
    ("adds r0, r1; beq.w 1f; 1:", 2, 0),
    ("cmp r0, r1; it lt; movlt r2, r3", 2, 0),
    ("ldm r0!, {r1-r4}; beq 1f; 1:", 4, 0),
    ("b 1f; 1: bx lr", 2, 0),
    # Operands that pass the shifter, extends that add, and products: results after two cycles.
    ("add r0, r1; add r2, r0", 2, 0),
    ("add r0, r1, r2, lsl #3; add r3, r0", 3, 1),
    ("add r0, r1, r2, lsl #3; add r3, r1", 2, 0),
    ("lsl r0, r1, #3; add r3, r0", 2, 0),
    ("cmp r0, r1, lsl #3; it lt; movlt r2, r3", 3, 0),
    ("uxtab r0, r1, r2; add r3, r0", 3, 1),
    ("sxtb16 r0, r1; add r3, r0", 2, 0),
    ("mul r0, r1, r2; add r3, r0", 3, 1),
    ("muls r0, r1, r0; add r3, r1", 3, 0),
    ("smlad r0, r1, r2, r0; smlad r0, r3, r4, r0", 2, 0),
    ("smlad r0, r1, r2, r0; smlad r3, r0, r1, r3", 3, 1),
    ("smlal r0, r1, r2, r3; smlal r0, r1, r4, r5", 2, 0),
    ("add r0, r1, r2, lsl #3; smlad r0, r3, r4, r0", 2, 0),
    ("mul r0, r1, r2; str r0, [r3]", 2, 0),
    # Loads: used after two cycles, but for accumulators and stored data.
    ("ldr r0, [r1]; add r2, r0", 3, 1),
    ("ldrb r0, [r1]; add r2, r0", 3, 1),
    ("ldr r0, [r1]; ldr r2, [r3]; add r2, r0", 4, 1),
    ("ldr r0, [r1]; smlad r0, r2, r3, r0", 2, 0),
    ("ldr r0, [r1]; smlad r2, r0, r3, r2", 3, 1),
    ("ldr r0, [r1]; str r0, [r2]", 2, 0),
    ("ldr r0, [r1]; str r2, [r0]", 3, 1),
    ("ldr r0, [r1], #4; ldr r2, [r1], #4", 2, 0),
    ("ldrd r0, r1, [r2]; add r3, r1", 4, 1),
    ("strd r0, r1, [r2]; add r3, r1", 3, 0),
    ("push {r4-r7}; pop {r4-r7}", 8, 0),
    ("ldm r0, {r1-r3}; add r4, r2", 4, 0),
    ("ldm r0, {r1-r3}; add r4, r3", 5, 1),
    ("udiv r0, r1, r2", 2, 0),
    # The FPU: nothing else while it multiplies and adds.
    ("vfma.f32 s0, s1, s2; add r0, r1; add r0, r1; vfma.f32 s0, s3, s4", 4, 0),
    ("vfma.f32 s0, s1, s2; vadd.f32 s3, s4, s5", 4, 2),
    ("vfma.f32 s0, s1, s2; vldr s3, [r0]", 4, 2),
    ("vmul.f32 s0, s1, s2; vmul.f32 s3, s4, s5; vadd.f32 s6, s3, s0", 4, 1),
    ("vdiv.f32 s0, s1, s2; add r0, r1; vadd.f32 s3, s4, s5", 15, 12),
    ("vldr s0, [r0]; vadd.f32 s1, s0, s0", 3, 1),
    ("vldm r0, {s0-s3}; vstm r0, {s4-s5}", 6, 0),
]
# (block that a branch ends, of which cycles are its refill, once it has run before and the branch was taken)
TAKEN = [
    ("1: subs r7, #1; bne 1b", 3, 2),
    ("1: subs r7, #1; add r0, r1; bne 1b", 3, 1),
    ("1: subs.w r7, r7, #1; bne 1b", 3, 1),
    ("1: subs r7, #1; ldm r6!, {r0-r3}; bne 1b", 6, 1),
    ("1: add r0, r1; b 1b", 2, 1),
    ("add r0, r1; bx lr", 3, 1),
    ("bl 1f; 1:", 2, 1),
    ("pop {r4, pc}", 4, 2),
    ("ldr.w pc, [r0]", 3, 2),
    ("tbb [pc, r0]", 3, 2),
]


@pytest.fixture(scope="module")
def model():
    return core_model("cortex-m33")


@pytest.fixture(scope="module")
def code():
    texts = [text for text, *_ in CASES + TAKEN]
    return dict(zip(texts, assemble(*texts), strict=True))


@pytest.mark.parametrize(("text", "cycles", "dependency"), CASES)
def test_a_sequence(model, code, text, cycles, dependency):
    assert model.cost(None, block(code[text])) == Cost(cycles, dependency)


@pytest.mark.parametrize(("text", "cycles", "refill"), TAKEN)
def test_a_taken_branch_refills(model, code, text, cycles, refill):
    before, after = block(code[text]), block(code[text], 0x100)
    assert model.cost(before, after) == Cost(cycles, 0, refill)


def test_a_register_decides_like_flags(model):
    (code,) = assemble("add r0, r1; cbnz r0, 1f; nop; nop; 1:")
    before = block(code[:4])
    assert before.instructions[-1].mnemonic == "cbnz"
    assert model.cost(before, block(code[:4], 0x100)) == Cost(3, 0, 2)


def test_a_branch_not_taken_costs_nothing_beside_another(model, code):
    loop = block(code["1: subs r7, #1; bne 1b"])
    (following,) = assemble("add r0, r1")
    assert model.cost(loop, block(following, loop.end)) == Cost(1)
    assert model.cost(loop, block(following, loop.start)) == Cost(3, 0, 2)


def test_a_block_sees_the_one_before(model):
    load, use = assemble("ldr r0, [r1]", "add r2, r0")
    assert model.cost(block(load), block(use, 2)) == Cost(2, 1)
    assert model.cost(None, block(use, 2)) == Cost(1)
    assert model.cost(block(load), block(use, 0x100)).dependency == 0, "the refill is long enough"


def test_a_division_is_counted_at_its_shortest(model):
    """The emulator's hook adds the rest, by the operands."""
    (code,) = assemble("sdiv r0, r1, r2")
    assert model.cost(None, block(code)).cycles == model.division.minimum
