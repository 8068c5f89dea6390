/* Instruction sequences whose timing is published, as functions that run them often. Arguments come in registers. */

/* The loop of a calibrated delay, r0 + 1 rounds. */
void tnf_delay_loop(void);
__attribute__((naked, aligned(16))) void tnf_delay_loop(void)
{
    __asm__ volatile(".syntax unified\n"
                     "1:\n\t"
                     "subs r0, r0, #1\n\t"
                     "nop\n\t"
                     "nop\n\t"
                     "bcs 1b\n\t"
                     "bx lr\n\t");
}

#if __ARM_ARCH >= 7

/* 64 rounds; r0 points to words, r1 is 0. */
#define ROUNDS(name, instructions)                                                                                               \
    void name(void);                                                                                                             \
    __attribute__((naked, aligned(16))) void name(void)                                                                          \
    {                                                                                                                            \
        __asm__ volatile(".syntax unified\n\tpush {r4-r11}\n\t.rept 64\n\t" instructions ".endr\n\tpop {r4-r11}\n\tbx lr\n\t");  \
    }
/* Keeps a load or store from the next round's. */
#define APART "cmp r1, #0\n\t"

ROUNDS(tnf_nothing, "")
ROUNDS(tnf_apart, APART)

ROUNDS(tnf_two_loads, "ldr r2, [r0]\n\tldr r3, [r0]\n\t" APART)
ROUNDS(tnf_load_store, "ldr r2, [r0, r1]\n\tstr r2, [r0, #20]\n\t" APART)
ROUNDS(tnf_load_store_offset, "ldr r2, [r0, r1]\n\tstr r3, [r0, r1]\n\t" APART)
ROUNDS(tnf_three_loads, "ldr r2, [r0, r1]\n\tldr r3, [r0]\n\tldr r4, [r0, #4]\n\t" APART)
ROUNDS(tnf_load_dual, "ldrd r2, r3, [r0]\n\t" APART)
ROUNDS(tnf_load_three, "ldm r0, {r2-r4}\n\t" APART)
ROUNDS(tnf_store_eight, "stm r0, {r4-r11}\n\t" APART)

ROUNDS(tnf_add_pair, "add.w r2, r1, r1\n\tadd.w r3, r1, r1\n\t")
ROUNDS(tnf_extend_pair, "uxtb.w r2, r1\n\tuxtb.w r3, r1\n\t")
ROUNDS(tnf_add_chain, "add.w r2, r2, r1\n\tadd.w r2, r2, r1\n\t")
#if defined(__ARM_FEATURE_DSP)
ROUNDS(tnf_multiply_chain, "smlad r2, r1, r1, r2\n\t")
#endif

#endif
