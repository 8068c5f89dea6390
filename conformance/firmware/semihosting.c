#include "semihosting.h"

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE0 = 0x04, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };

#define APPLICATION_EXIT 0x20026u /* ADP_Stopped_ApplicationExit */

static int32_t call(int32_t operation, const void *arguments)
{
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t address(const void *pointer)
{
    return (uint32_t)(uintptr_t)pointer;
}

int32_t tnf_open(const char *name, int32_t mode)
{
    uint32_t length = 0u;
    while (name[length] != '\0') {
        length++;
        __asm__ volatile(""); /* else the compiler calls strlen */
    }
    const uint32_t arguments[3] = {address(name), (uint32_t)mode, length};
    return call(SYS_OPEN, arguments);
}

uint32_t tnf_read(int32_t file, void *data, uint32_t bytes)
{
    const uint32_t arguments[3] = {(uint32_t)file, address(data), bytes};
    return (uint32_t)call(SYS_READ, arguments);
}

uint32_t tnf_write(int32_t file, const void *data, uint32_t bytes)
{
    const uint32_t arguments[3] = {(uint32_t)file, address(data), bytes};
    return (uint32_t)call(SYS_WRITE, arguments);
}

void tnf_close(int32_t file)
{
    const uint32_t arguments[1] = {(uint32_t)file};
    (void)call(SYS_CLOSE, arguments);
}

void tnf_print(const char *text)
{
    (void)call(SYS_WRITE0, text);
}

void tnf_print_hex(uint32_t value)
{
    char text[11] = "0x";
    for (uint32_t digit = 0u; digit < 8u; digit++) {
        text[2u + digit] = "0123456789abcdef"[value >> (28u - 4u * digit) & 15u];
    }
    text[10] = '\0';
    tnf_print(text);
}

void tnf_end(uint32_t exit_code)
{
    const uint32_t arguments[2] = {APPLICATION_EXIT, exit_code};
    (void)call(SYS_EXIT_EXTENDED, arguments);
}
