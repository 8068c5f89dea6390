/* The vector table of a firmware that boots on its own, what happens in a fault, and the call of its program.
 *
 * Reset starts ../native/startup.c, which readies FPU, .data and .bss and then calls tnf_boot. No exception but reset is
 * expected: each ends the firmware with a report of where it was. Without configurable faults enabled all faults escalate to
 * HardFault (ARMv7-M ARM, section B1.5.4).
 */
#include "boot.h"

#include "semihosting.h"

#define CFSR (*(const volatile uint32_t *)0xE000ED28u) /* fault status and addresses, ARMv7-M ARM sections B3.2.15 to B3.2.18 */
#define HFSR (*(const volatile uint32_t *)0xE000ED2Cu)
#define MMFAR (*(const volatile uint32_t *)0xE000ED34u)
#define BFAR (*(const volatile uint32_t *)0xE000ED38u)
#define MMARVALID (1u << 7)
#define STACKING_FAILED (1u << 4 | 1u << 12) /* MSTKERR, STKERR: the frame was not written */
#define FRAME_PC 6u                          /* r0 to r3, r12, lr, pc, xpsr: section B1.5.6 */

#define MPU_TYPE (*(const volatile uint32_t *)0xE000ED90u) /* memory protection, ARMv7-M ARM section B3.5 */
#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94u)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9Cu)
#define MPU_RASR (*(volatile uint32_t *)0xE000EDA0u)

extern uint32_t tnf_stack_bottom[], tnf_stack_top[];

void tnf_start(void);
void tnf_boot(void);
void tnf_report_fault(const uint32_t *frame);

/* The stack may be what failed: the report starts on a new one. */
__attribute__((naked, used)) static void on_fault(void)
{
    __asm__ volatile("mrs r0, msp\n\t"
                     "ldr r1, 1f\n\t"
                     "msr msp, r1\n\t"
                     "ldr r1, 2f\n\t"
                     "bx r1\n\t"
                     ".align 2\n"
                     "1: .word tnf_stack_top\n"
                     "2: .word tnf_report_fault\n");
}

/* ARMv7-M ARM, section B1.5.3. A debugger or an emulator can set interrupts off for good, so the table ends with SysTick. */
struct vectors {
    uint32_t *stack;
    void (*handlers[15])(void);
};
extern const struct vectors tnf_vectors;
__attribute__((section(".tnf_vectors"), used)) const struct vectors tnf_vectors = {
    tnf_stack_top,
    {tnf_start, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault, on_fault,
     on_fault, on_fault, on_fault},
};

static void print_register(const char *name, uint32_t value)
{
    tnf_print(name);
    tnf_print_hex(value);
}

__attribute__((used)) void tnf_report_fault(const uint32_t *frame)
{
    uint32_t exception, status = 0u;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
    tnf_print("fault:");
    print_register(" exception ", exception);
#if __ARM_ARCH >= 7 && !defined(__ARM_ARCH_8M_BASE__) /* ARMv6-M has no fault status */
    status = CFSR;
    print_register(" cfsr ", status);
    print_register(" hfsr ", HFSR);
    print_register(" address ", (status & MMARVALID) != 0u ? MMFAR : BFAR);
#endif
    if ((status & STACKING_FAILED) == 0u && frame >= tnf_stack_bottom && frame + FRAME_PC < tnf_stack_top) {
        print_register(" pc ", frame[FRAME_PC]);
    }
    tnf_print("\n");
    tnf_end(TNF_FAULT);
    for (;;) {
        __asm__ volatile("");
    }
}

/* A stack overflow becomes a fault even where memory goes on below the stack. */
static void guard_stack(void)
{
#if defined(__ARM_ARCH_8M_MAIN__)
    __asm__ volatile("msr msplim, %0" : : "r"(tnf_stack_bottom));
#elif __ARM_ARCH == 7
    if ((MPU_TYPE & 0xFF00u) != 0u) { /* DREGION: some chips have no MPU */
        MPU_RBAR = (uint32_t)(uintptr_t)tnf_stack_bottom | 1u << 4; /* VALID, region 0 */
        MPU_RASR = 1u << 28 | 7u << 1 | 1u;                         /* XN, no access, 2^(7 + 1) bytes, ENABLE */
        MPU_CTRL = 1u << 2 | 1u;                                    /* PRIVDEFENA, ENABLE */
        __asm__ volatile("dsb\n\tisb" : : : "memory");
    }
#endif
}

__attribute__((used)) void tnf_boot(void)
{
    guard_stack();
    tnf_end(tnf_program());
}
