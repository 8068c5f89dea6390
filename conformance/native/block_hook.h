/* Instrumentation of the emulated Cortex-M at native speed: C hooks that are handed straight to Unicorn's uc_hook_add. */
#ifndef TNF_BLOCK_HOOK_H
#define TNF_BLOCK_HOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "timer.h"

/* An operator started: its index, and what was executed until then. */
typedef struct {
    uint64_t instructions;
    tnf_cycles cycles;
    uint32_t index;
    uint32_t unused;
} tnf_mark;

/* Addresses from first to last that strict mode allows. */
typedef struct {
    uint32_t first;
    uint32_t last;
    bool writable;
} tnf_range;

/* Bytes to put into the chip's memory. */
typedef struct {
    uint8_t *to;
    const uint8_t *from;
    uint32_t size;
} tnf_patch;

/* What holds while an operator runs: strict mode's ranges, and what its mark puts into memory. */
typedef struct {
    const tnf_range *ranges;
    uint32_t range_count;
    const tnf_patch *patches;
    uint32_t patch_count;
} tnf_rule;

/* One machine's instrumentation; Python owns the memory of every array. */
typedef struct {
    /* Code image in flash, and for each halfword the last block seen there: size in bytes << 16 | whether it has an IT
     * instruction << 15 | instructions in it. */
    const uint8_t *code;
    uint32_t *blocks_seen;
    uint32_t code_origin;
    uint32_t code_size;
    /* Counters of the current call, and the count at which it is stopped. */
    uint64_t instructions;
    uint64_t blocks;
    uint64_t limit;
    bool limit_reached;
    uint32_t last_block;
    uint32_t last_size;
    bool last_has_it;
    /* Marks. */
    uint32_t mark_address;
    int r0;
    int pc;
    int xpsr;
    uint32_t mark_count;
    uint32_t mark_capacity;
    tnf_mark *marks;
    /* The first access that failed or that strict mode forbids. */
    bool faulted;
    int fault_type;
    int fault_size;
    uint64_t fault_address;
    bool unaligned;
    /* Strict mode: what may be touched. */
    const tnf_range *ranges;
    uint32_t range_count;
    /* Rules by mark index; at any other mark the ranges are `usual` again. */
    const tnf_rule *rules;
    uint32_t rule_count;
    tnf_rule usual;
    /* Cycles; NULL where only instructions are counted. */
    tnf_timer *timer;
    /* Unicorn's own functions, and its numbers of R0 to R14. */
    const int *registers;
    int (*reg_read)(void *machine, int register_id, void *value);
    int (*reg_write)(void *machine, int register_id, const void *value);
    int (*emu_stop)(void *machine);
} tnf_probe;

/* UC_HOOK_BLOCK: counts the block's instructions and cycles, logs marks, stops at the limit. */
void tnf_on_block(void *machine, uint64_t address, uint32_t size, void *probe);
/* UC_HOOK_CODE at an SDIV or UDIV: its cycles depend on its operands. */
void tnf_on_division(void *machine, uint64_t address, uint32_t size, void *probe);
/* UC_HOOK_CODE everywhere, where memory is simulated: loads and stores wait, and divisions as above. (Unicorn 2.1 has hooks of
 * memory accesses, but restores its whole state before each, which makes them four times as slow.) */
void tnf_on_instruction(void *machine, uint64_t address, uint32_t size, void *probe);
/* UC_HOOK_MEM_INVALID: remembers what failed; false stops the machine. */
bool tnf_on_invalid(void *machine, int type, uint64_t address, int size, int64_t value, void *probe);
/* UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, in strict mode only: stops at an access outside the allowed ranges, or at an
 * unaligned one that a chip traps. */
void tnf_on_access(void *machine, int type, uint64_t address, int size, int64_t value, void *probe);
/* Not called by Unicorn: once it has stopped for an exception, remembers the access at PC if that is unaligned. */
void tnf_on_exception(void *machine, tnf_probe *probe);

#endif
