/* What the emulator's tests run: plain computations, and every way to go wrong that the machine must notice. */
#include <stdint.h>

typedef struct {
    int32_t size;
    const uint8_t *data;
    uint32_t seed;
} sum_params;

extern uint8_t tnf_arena[], tnf_arena_end[];
void tnf_trace_mark(uint32_t operator_index);
void *memcpy(void *restrict to, const void *restrict from, __SIZE_TYPE__ size);

uint32_t initialised[4] = {1, 20, 300, 4000};
uint32_t zeroed[4];

uint32_t answer(void) { return 42; }
uint32_t statics(void) { return initialised[0]++ + initialised[1] + initialised[2] + initialised[3] + zeroed[3]++; }
uint32_t six(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f)
{
    return a + 10u * b + 100u * c + 1000u * d + 10000u * e + 100000u * f;
}
int64_t wide(int64_t a, int64_t b) { return a / b; }

uint32_t sum(const sum_params *p)
{
    uint32_t total = p->seed;
    for (int32_t i = 0; i < p->size; i++) {
        total = total * 31u + p->data[i];
    }
    return total;
}

/* Operator i executes about 1000 * (i + 1) instructions. */
uint32_t three_operators(void)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < 3; i++) {
        tnf_trace_mark(i);
        for (uint32_t k = 0; k < 250u * (i + 1u); k++) {
            total += k;
            __asm__ volatile("nop");
        }
    }
    return total;
}

float half(int32_t x) { return 0.5f * (float)x; }
int32_t half_rounded(int32_t x) { return (int32_t)half(x); }

void copy(uint8_t *to, const uint8_t *from, uint32_t size) { memcpy(to, from, size); }
void poke(volatile uint8_t *at) { *at = 1; }
uint32_t peek(const volatile uint32_t *at) { return *at; }
void poke_in_operator(volatile uint8_t *at)
{
    tnf_trace_mark(1);
    *at = 1;
}
void past_arena(uint32_t offset) { *(volatile uint8_t *)(tnf_arena_end + offset) = 1; }
uint32_t recurse(uint32_t depth)
{
    volatile uint8_t frame[64];
    frame[depth % 64u] = (uint8_t)depth;
    return depth == 0u ? 0u : recurse(depth - 1u) + frame[depth % 64u];
}
void jump(uint32_t address) { ((void (*)(void))(uintptr_t)address)(); }
void forever(void)
{
    for (;;) {
        __asm__ volatile("");
    }
}
/* As data: no assembler takes them for a core that lacks them. */
void divide(void) { __asm__ volatile(".short 0xfbb0, 0xf0f1" : : : "r0", "memory"); }                /* UDIV r0, r0, r1 */
void add_bytes(void) { __asm__ volatile(".short 0xfa80, 0xf001" : : : "r0", "memory"); }             /* SADD8 r0, r0, r1 */
void add_floats(void) { __asm__ volatile(".short 0xee30, 0x0a20" : : : "memory"); }                  /* VADD.F32 s0, s0, s1 */
void load_multiple(const uint32_t *at) { __asm__ volatile("ldmia %0!, {r2, r3}" : "+l"(at) : : "r2", "r3", "memory"); }
#if __ARM_ARCH >= 7
/* The access is inside an IT block, which a fault leaves half done. */
void conditional_poke(uint8_t *at)
{
    __asm__ volatile("cmp r0, r0\n\titttt eq\n\tmoveq r1, #1\n\tstrbeq r1, [%0]\n\tmoveq r1, #2\n\tmoveq r1, #3"
                     :
                     : "r"(at)
                     : "r1", "cc", "memory");
}
#endif
