/* Instruction sequences whose timing is published, as functions of the number of repetitions less one. */
#include <stdint.h>

void tnf_delay_loop(uint32_t count);

/* SUBS, two NOPs, BCS: the loop of a calibrated delay. */
__attribute__((naked, aligned(16))) void tnf_delay_loop(uint32_t count)
{
    (void)count;
    __asm__ volatile(".syntax unified\n"
                     "1:\n\t"
                     "subs r0, r0, #1\n\t"
                     "nop\n\t"
                     "nop\n\t"
                     "bcs 1b\n\t"
                     "bx lr\n\t");
}
