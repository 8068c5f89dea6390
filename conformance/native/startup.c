/* Start-up code of a verification image: what has to happen between reset and the first call of a kernel.
 *
 * It runs unchanged on a chip and in the emulator, which calls functions one by one once tnf_exit has been reached. With
 * TNF_BOOT the image is a firmware that runs a program of its own: see ../firmware/boot.c.
 */
#include <stdint.h>

#define CPACR (*(volatile uint32_t *)0xE000ED88u) /* Coprocessor Access Control Register, ARMv7-M ARM section B3.2.20 */

extern uint32_t tnf_stack_top[], tnf_data_load[], tnf_data_start[], tnf_data_end[], tnf_bss_start[], tnf_bss_end[];

void tnf_start(void);
void tnf_exit(void);
void tnf_trace_mark(uint32_t operator_index);

#ifdef TNF_BOOT
void tnf_boot(void);
#else
/* The first two words of a Cortex-M image: the initial stack pointer and the reset handler. */
struct vectors {
    uint32_t *stack;
    void (*reset)(void);
};
extern const struct vectors tnf_vectors;
__attribute__((section(".tnf_vectors"), used)) const struct vectors tnf_vectors = {tnf_stack_top, tnf_start};
#endif

/* Where every call of the emulator returns to, and where a chip stays after start-up. */
__attribute__((noinline, used)) void tnf_exit(void)
{
    for (;;) {
        __asm__ volatile("");
    }
}

/* A trace build calls this as each operator starts; the emulator watches for its address. */
__attribute__((noinline, used)) void tnf_trace_mark(uint32_t operator_index)
{
    __asm__ volatile("" : : "r"(operator_index));
}

__attribute__((noinline, used)) void tnf_start(void)
{
#if defined(__ARM_FP)
    CPACR |= 0xFu << 20; /* full access to CP10 and CP11, which are the FPU */
    __asm__ volatile("dsb\n\tisb" : : : "memory");
#endif
    const uint32_t *load = tnf_data_load;
    for (uint32_t *word = tnf_data_start; word != tnf_data_end; word++) {
        *word = *load++;
    }
    for (uint32_t *word = tnf_bss_start; word != tnf_bss_end; word++) {
        *word = 0u;
    }
#ifdef TNF_BOOT
    tnf_boot();
#endif
    tnf_exit();
}
