/* Which data a Thumb instruction loads or stores, from its encoding. */
#ifndef TNF_DATA_ACCESS_H
#define TNF_DATA_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

enum { TNF_NO_REGISTER = 15 };

/* `count` accesses of `size` bytes one after the other, from base + (index << shift) + offset. */
typedef struct {
    uint32_t base;  /* a register, or TNF_NO_REGISTER, which adds nothing */
    uint32_t index; /* the same */
    uint32_t shift;
    uint32_t offset; /* an address where the instruction names one relative to itself */
    uint32_t size;
    uint32_t count;
    bool write;
} tnf_access;

/* False where the instruction at `code`, which lies at `address`, touches no data. */
bool tnf_data_access(const uint8_t *code, uint32_t address, tnf_access *access);

#endif
