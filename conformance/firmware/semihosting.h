/* Files, messages and the end of the program by way of a debugger or an emulator ("Semihosting for AArch32 and AArch64", Arm
 * IHI 0100). Without one a Cortex-M stops in a HardFault at the first of these calls. */
#ifndef TNF_SEMIHOSTING_H
#define TNF_SEMIHOSTING_H

#include <stdint.h>

/* Modes of tnf_open: those of fopen, section "SYS_OPEN". */
enum { TNF_READ_BINARY = 1, TNF_WRITE_BINARY = 5 };

/* A handle, or -1. */
int32_t tnf_open(const char *name, int32_t mode);
/* Both return how many bytes were left undone: 0 is success. */
uint32_t tnf_read(int32_t file, void *data, uint32_t bytes);
uint32_t tnf_write(int32_t file, const void *data, uint32_t bytes);
void tnf_close(int32_t file);
/* A line for people, without an end of line. */
void tnf_print(const char *text);
void tnf_print_hex(uint32_t value);
void tnf_end(uint32_t exit_code);

#endif
