/* What the tests of cycle counting run: every way in which blocks of instructions begin, end and follow each other. */
#include <stdint.h>

void tnf_trace_mark(uint32_t operator_index);

#define FUNCTION __attribute__((naked, noinline, used))
#define TEXT(code) __asm__ volatile(".syntax unified\n\t" code)

/* One block, jumping to itself. */
FUNCTION void self_loop(uint32_t times) { TEXT("1: subs r0, #1\n\tbne 1b\n\tbx lr"); }

/* 3000 bytes in a row, over at least two borders of the emulator's pages. */
FUNCTION void long_run(uint32_t value) { TEXT(".rept 1500\n\tadds r0, #1\n\t.endr\n\tbx lr"); }

/* A loop whose body fits no page. */
FUNCTION void long_loop(uint32_t times)
{
    TEXT("1: .rept 600\n\tadds r1, r0, #1\n\t.endr\n\tsubs r0, #1\n\tbeq 2f\n\tb 1b\n2: bx lr");
}

/* Straight on where bit n of `pattern` is clear, around a NOP where it is set, for n from 0 to 31. */
FUNCTION void pattern(uint32_t bits)
{
    TEXT("movs r2, #32\n1: lsrs r0, #1\n\tbcs 2f\n\tnop\n2: subs r2, #1\n\tbne 1b\n\tbx lr");
}

static void nothing(void) { __asm__ volatile(""); }
static void something(void) { __asm__ volatile("nop"); }
void (*const volatile targets[2])(void) = {nothing, something};

/* Calls one of two functions for each of 8 bits, all from the same place. */
void indirect(uint32_t bits)
{
    for (volatile uint32_t n = 0; n < 8u; n++, bits >>= 1) {
        targets[bits & 1u]();
    }
}

void marked(uint32_t operators)
{
    for (uint32_t i = 0; i < operators; i++) {
        tnf_trace_mark(i);
        self_loop(10u * (i + 1u));
    }
}

/* Loads every `stride` bytes from first to last; one load in each round. */
FUNCTION uint32_t walk(const uint8_t *first, uint32_t stride, uint32_t times)
{
    TEXT("1: ldr r3, [r0]\n\tadds r0, r1\n\tsubs r2, #1\n\tbne 1b\n\tbx lr");
}

FUNCTION void fill(uint8_t *first, uint32_t stride, uint32_t times)
{
    TEXT("1: str r2, [r0]\n\tadds r0, r1\n\tsubs r2, #1\n\tbne 1b\n\tbx lr");
}

#if __ARM_ARCH >= 7
FUNCTION uint32_t unsigned_division(uint32_t a, uint32_t b) { TEXT("udiv r0, r0, r1\n\tbx lr"); }
FUNCTION int32_t signed_division(int32_t a, int32_t b) { TEXT("mov lr, r0\n\tsdiv r0, lr, r1\n\tb tnf_exit"); }
/* Divides where c is not 0. */
FUNCTION uint32_t conditional_division(uint32_t a, uint32_t b, uint32_t c)
{
    TEXT("cmp r2, #0\n\titt ne\n\tudivne r0, r0, r1\n\tmovne r1, #1\n\tbx lr");
}

/* Blocks of IT with conditions that hold and that fail, of each length, the last one ending in a branch. */
FUNCTION uint32_t conditions(uint32_t a)
{
    TEXT("cmp r0, #5\n\tit lt\n\taddlt r0, #1\n\titte ge\n\tsubge r0, #1\n\tsubge r0, #1\n\taddlt r0, #7\n\t"
         "itett hi\n\tmovhi r1, #1\n\tmovls r1, #2\n\tmovhi r2, #1\n\tbxhi lr\n\tadds r0, #1\n\tbx lr");
}

/* An IT block that lies across the border of two pages: the second block begins inside it. */
FUNCTION uint32_t straddling(uint32_t a)
{
    TEXT(".balign 1024\n\tcmp r0, #5\n\t.rept 509\n\tmov r1, r1\n\t.endr\n\titttt lt\n\taddlt r0, #1\n\taddlt r0, #2\n\t"
         "addlt r0, #3\n\taddlt r0, #4\n\tadds r0, #8\n\tbx lr");
}

/* The same with a branch at its end, which is conditional only because of the IT on the page before. */
FUNCTION uint32_t straddling_branch(uint32_t a)
{
    TEXT(".balign 1024\n\tcmp r0, #5\n\t.rept 510\n\tmov r1, r1\n\t.endr\n\titt lt\n\taddlt r0, #1\n\tbxlt lr\n\t"
         "adds r0, #8\n\tbx lr");
}
#endif
