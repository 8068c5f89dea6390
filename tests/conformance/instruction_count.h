/* Counts instructions one by one, knowing nothing of blocks. */
#ifndef INSTRUCTION_COUNT_H
#define INSTRUCTION_COUNT_H

#include <stdint.h>

typedef struct {
    const uint8_t *code; /* what lies at `origin` */
    uint64_t origin;
    uint64_t executed;
    uint64_t skipped; /* in IT blocks, where the condition failed */
    uint64_t next;    /* after the last one */
    uint64_t it_end;  /* after the last instruction of the IT block */
} instruction_count;

/* UC_HOOK_CODE. */
void count_instruction(void *machine, uint64_t address, uint32_t size, void *count);

#endif
