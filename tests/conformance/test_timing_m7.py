"""Which instructions of a Cortex-M7 issue together, and how long results take: one sequence for each rule."""

import pytest

from conformance.timing.core import Block, Cost
from conformance.timing.cores import core_model
from tests.conformance.assembly import assemble, block

# (sequence, cycles, of which nothing issued)
PAIRS = [
    ("add r0, r1; add r2, r3", 1, 0),
    ("add r0, r1; add r2, r3; add r4, r5", 2, 0),
    ("add r0, r1; add r2, r0", 2, 0),
    ("add r0, r1; nop", 1, 0),
    # One load or store.
    ("ldr r0, [r4]; add r1, r2", 1, 0),
    ("add r1, r2; str r0, [r4]", 1, 0),
    ("ldr r0, [r4]; ldr r1, [r5]", 2, 0),
    ("ldr r0, [r4]; str r1, [r5]", 2, 0),
    ("str r0, [r4]; str r1, [r5]", 2, 0),
    # One product.
    ("mul r0, r1, r2; add r3, r4", 1, 0),
    ("mul r0, r1, r2; smlad r3, r4, r5, r3", 2, 0),
    ("smull r0, r1, r2, r3; smlal r4, r5, r2, r3", 2, 0),
    ("ldr r0, [r1]; smlad r2, r3, r4, r2", 1, 0),
    # One shifter.
    ("lsl r0, r1, #2; lsr r2, r3, #2", 2, 0),
    ("lsl r0, r1, #2; add r2, r3, r4, lsl #2", 2, 0),
    ("add r2, r3, r4, lsl #2; add r0, r1", 1, 0),
    ("bfi r0, r1, #1, #2; add r2, r3, r4, lsl #2", 2, 0),
    ("ubfx r0, r1, #1, #2; add r2, r3, r4, lsl #2", 2, 0),
    ("sxtb r0, r1; add r2, r3, r4, lsl #2", 1, 0),
    # Nothing beside several registers, divides and the like.
    ("ldrd r0, r1, [r2]; add r3, r4", 2, 0),
    ("add r3, r4; ldrd r0, r1, [r2]", 2, 0),
    ("strd r0, r1, [r2]; add r3, r4", 2, 0),
    ("ldm r0, {r1-r5}", 3, 0),
    ("push {r4-r7}; add r3, r4", 3, 0),
    ("add r3, r4; udiv r0, r1, r2; add r5, r6", 5, 0),
    ("sdiv r0, r1, r2", 4, 0),
    ("dsb; add r0, r1", 4, 0),
    ("tbb [pc, r0]", 2, 0),
    # Branches.
    ("cmp r0, r1; beq 1f; 1:", 1, 0),
    ("beq 1f; add r0, r1; 1:", 1, 0),
    ("b 1f; 1: b 2f; 2:", 2, 0),
    # The FPU.
    ("vadd.f32 s0, s1, s2; add r0, r1", 1, 0),
    ("vadd.f32 s0, s1, s2; vmul.f32 s3, s4, s5", 2, 0),
    ("vldr s0, [r0]; vadd.f32 s3, s4, s5", 1, 0),
    ("vldr d0, [r0]; add r1, r2", 2, 0),
    ("add r1, r2; vadd.f64 d0, d1, d2", 2, 0),
    ("add r1, r2; vmov r3, r4, d0", 2, 0),
    ("vldm r0, {s0-s4}", 3, 0),
    ("vdiv.f32 s0, s1, s2; add r0, r1; add r2, r3", 17, 0),
    ("vsqrt.f32 s0, s1; vdiv.f64 d1, d2, d3", 14 + 30, 0),
    ("vmul.f64 d0, d1, d2; vfma.f64 d3, d4, d5; vmls.f64 d6, d4, d5", 5 + 7 + 8, 0),
]
ONLY_FIRST = [
    *("sxtb16 r0, r1", "uxtb r0, r1", "sxtab16 r0, r1, r2", "pkhbt r0, r1, r2", "sadd16 r0, r1, r2", "qadd r0, r1, r2"),
    *("ssat r0, #8, r1", "usad8 r0, r1, r2", "clz r0, r1", "bfi r0, r1, #1, #2", "ubfx r0, r1, #1, #2", "rev r0, r1"),
    *("sel r0, r1, r2", "uhadd8 r0, r1, r2", "uqsub16 r0, r1, r2"),
]
LATENCIES = [
    # From an ALU: to an ALU in the next cycle, to an address or a shifted operand one later, to be stored in the same.
    ("add r0, r1; add r2, r0", 2, 0),
    ("add r0, r1; ldr r2, [r0]", 3, 1),
    ("add r0, r1; str r2, [r3, r0]", 3, 1),
    ("add r0, r1; add r2, r3, r0, lsl #1", 3, 1),
    ("add r0, r1; add r2, r0, r3, lsl #1", 2, 0),
    ("add r0, r1; ubfx r2, r0, #1, #2", 3, 1),
    ("add r0, r1; ssat r2, #8, r0", 3, 1),
    ("add r0, r1; rev r2, r0", 3, 1),
    ("add r0, r1; sxtb16 r2, r0, ror #8", 2, 0),
    ("add r0, r1; pkhbt r2, r0, r3, lsl #16", 2, 0),
    ("add r0, r1; pkhbt r2, r3, r0, lsl #16", 3, 1),
    ("add r0, r1; str r0, [r2]", 1, 0),
    ("rev r0, r1; add r2, r0", 1, 0),
    ("ssat r0, #8, r1; add r2, r0", 3, 1),
    ("qadd r0, r1, r2; add r2, r0", 3, 1),
    ("sadd16 r0, r1, r2; add r2, r0", 2, 0),
    # From memory: words a cycle later, but not to products and operations with a shift; bytes and halfwords two.
    ("ldr r0, [r1]; add r2, r0", 2, 0),
    ("ldrb r0, [r1]; add r2, r0", 3, 1),
    ("ldrsh r0, [r1]; add r2, r0", 3, 1),
    ("ldr r0, [r1]; mul r2, r0, r3", 3, 1),
    ("ldr r0, [r1]; udiv r2, r0, r3", 5, 1),
    ("ldr r0, [r1]; add r2, r0, r3, lsl #1", 3, 1),
    ("ldr r0, [r1]; ldr r2, [r0]", 3, 1),
    ("ldrb r0, [r1]; ldr r2, [r3, r0]", 4, 2),
    ("ldrb r0, [r1]; str r0, [r2]", 2, 0),
    ("ldr r0, [r1], #4; ldr r2, [r1], #4", 2, 0),
    ("ldr r0, [r1], #4; add r2, r1", 1, 0),
    ("ldm r0, {r1-r4}; mul r5, r1, r1", 3, 0),
    ("ldm r0, {r1-r4}; mul r5, r4, r4", 4, 1),
    ("ldmdb r0, {r1-r4}; add r5, r4", 3, 0),
    # Of products: two cycles, forwarded to accumulators, late as addresses.
    ("mul r0, r1, r2; add r3, r0", 3, 1),
    ("smlad r0, r1, r2, r0; smlad r0, r3, r4, r0", 2, 0),
    ("smlad r0, r1, r2, r0; smlad r3, r0, r1, r3", 3, 1),
    ("smlal r0, r1, r2, r3; smlal r0, r1, r4, r5", 2, 0),
    ("add r0, r1; smlad r0, r2, r3, r0", 1, 0),
    ("mul r0, r1, r2; str r0, [r3]", 2, 0),
    ("mul r0, r1, r2; ldr r3, [r0]", 5, 3),
    ("udiv r0, r1, r2; add r3, r0", 4, 0),
    # Conditions: flags in the next cycle, after a comparison with a shift one later; what a conditional instruction
    # writes is late for those which are not.
    ("cmp r0, r1; it lt; movlt r2, r3", 2, 0),
    ("cmp r0, r1, lsl #2; it lt; movlt r2, r3", 3, 1),
    ("cmp r0, r1; it lt; movlt r2, r3; add r4, r2", 4, 1),
    ("cmp r0, r1; itt lt; movlt r2, r3; addlt r4, r2", 3, 0),
    # Of the FPU.
    ("vadd.f32 s0, s1, s2; vmul.f32 s3, s0, s0", 4, 2),
    ("vadd.f32 s0, s1, s2; vstr s0, [r0]", 2, 0),
    ("vldr s0, [r0]; vadd.f32 s1, s0, s0", 2, 0),
    ("vmul.f32 s0, s1, s2; vmov r0, s0; add r1, r0", 7, 4),
    ("vfma.f32 s0, s1, s2; vfma.f32 s0, s3, s4", 4, 2),
    ("vmla.f32 s0, s1, s2; vmla.f32 s0, s3, s4", 4, 2),
    ("vfma.f32 s0, s1, s2; vmul.f32 s3, s0, s0", 6, 4),
    ("vmla.f32 s0, s1, s2; vmul.f32 s3, s0, s0", 7, 5),
    ("vfma.f32 s0, s1, s2; vadd.f32 s3, s4, s5", 5, 3),
    ("vcmp.f32 s0, s1; vmrs apsr_nzcv, fpscr; it lt; movlt r0, r1", 3, 0),
    ("cmp r0, r1; vseleq.f32 s0, s1, s2", 3, 1),
]
CASES = PAIRS + LATENCIES
LOOP = """
    ldr r0, [r8], #4; ldr r1, [r9], #4; sxtb16 r2, r0; sxtb16 r0, r0, ror #8; sxtb16 r3, r1; smlad r4, r2, r3, r4
    sxtb16 r1, r1, ror #8; smlad r5, r0, r1, r5; ldrb r6, [r10], #1; add r10, r6; subs r12, #1
"""


@pytest.fixture(scope="module")
def model():
    return core_model("cortex-m7")


@pytest.fixture(scope="module")
def code():
    texts = [text for text, *_ in CASES]
    texts += [text for only in ONLY_FIRST for text in (f"{only}; add r5, r6", f"add r5, r6; {only}")]
    return dict(zip(texts, assemble(*texts), strict=True))


@pytest.mark.parametrize(("text", "cycles", "dependency"), CASES)
def test_a_sequence(model, code, text, cycles, dependency):
    assert model.cost(None, block(code[text])) == Cost(cycles, dependency)


@pytest.mark.parametrize("text", ONLY_FIRST)
def test_only_the_first_of_two(model, code, text):
    assert model.cost(None, block(code[f"{text}; add r5, r6"])).cycles == 1
    assert model.cost(None, block(code[f"add r5, r6; {text}"])).cycles == 2


def test_a_block_sees_the_one_before(model):
    add, other, load, use = assemble("add r0, r1", "add r2, r3", "ldrb r0, [r1]", "add r2, r0")
    assert model.cost(block(add), block(other, 2)) == Cost(0), "both issue together"
    assert model.cost(block(load), block(use, 2)) == Cost(2, 1)
    assert model.cost(block(load), block(other, 2)) == Cost(0)
    assert model.cost(None, block(use, 2)) == Cost(1)


def test_a_predicted_branch_costs_its_place_in_a_pair(model):
    jump, target = assemble("add r0, r1; add r2, r3; b 1f; 1:", "add r4, r5; add r6, r7")
    assert model.cost(block(jump), block(target, 0x100)) == Cost(1), "the first issues with the branch"
    assert model.cost(None, block(target, 0x100)) == Cost(1)


def test_a_loop_in_its_steady_state(model):
    ending = "; 1: bne 1b"
    once, often = assemble(LOOP + ending, ";".join([LOOP + "; 2: bne 2f; 2:"] * 8))
    loop = block(once)
    assert len(loop.instructions) == 12
    iteration = model.cost(loop, loop)
    assert iteration == Cost(10, 1), "the first load issues with the branch"
    unrolled = model.cost(None, block(often)).cycles
    assert unrolled == model.cost(None, loop).cycles + 7 * iteration.cycles


def test_a_division_is_counted_at_its_shortest(model):
    """The emulator's hook adds the rest, by the operands."""
    (code,) = assemble("udiv r0, r1, r2")
    assert model.cost(None, block(code)).cycles == model.division.minimum


def test_every_instruction_has_a_row(model):
    """Also those that only appear outside of loops."""
    text = (
        "mrs r0, primask; svc #0; bkpt #0; cpsid i; isb; strex r0, r1, [r2]; ldrexb r0, [r1]; clrex; blx r0; bl 1f; 1:"
    )
    (code,) = assemble(text)
    for instruction in block(code).instructions:
        cost = model.cost(None, Block(instruction.address, instruction.size, (instruction,)))
        assert cost.cycles >= 1 and cost.dependency == cost.branch == 0
