/* Instrumentation of the emulated Cortex-M at native speed: C hooks that are handed straight to Unicorn's uc_hook_add. */
#ifndef TNF_BLOCK_HOOK_H
#define TNF_BLOCK_HOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "memory_model.h"

/* Cycles, and those of them in which nothing issued, by cause. */
typedef struct {
    uint64_t total;
    uint64_t dependency;
    uint64_t branch;
    uint64_t fetch;
    uint64_t data;
} tnf_cycles;

/* An operator started: its index, and what was executed until then. */
typedef struct {
    uint64_t instructions;
    tnf_cycles cycles;
    uint32_t index;
    uint32_t unused;
} tnf_mark;

/* A branch that a core may predict wrongly, one with a condition or to an address in a register. */
typedef struct {
    bool conditional;
    uint32_t next;        /* the address after it */
    uint32_t counter;     /* conditional: 0 (surely not taken) to 3 (surely taken) */
    uint32_t last_target; /* else: where it is predicted to go again */
} tnf_branch;

/* A translated block, timed. Python makes blocks, branches and edges as they are first met, and owns them. */
typedef struct tnf_block {
    uint32_t start;
    uint32_t size;
    uint32_t id;
    tnf_branch *branch;       /* at its end; NULL where there is none, or one that goes as predicted: B, BL, a return */
    struct tnf_edge *entered; /* edges that lead here, the last used one first */
    struct tnf_block *other;  /* another block that was translated from the same address */
} tnf_block;

/* A block, entered from another one (or from outside: NULL). */
typedef struct tnf_edge {
    tnf_block *source;
    tnf_block *block;
    struct tnf_edge *next;      /* of block->entered */
    tnf_cycles cost;            /* of one execution, known beforehand */
    struct tnf_edge *next_used; /* of probe->used */
    uint64_t executions;        /* since the last mark */
    tnf_cycles extra;           /* since then: what depends on data, history and memory; total is not used */
} tnf_edge;

/* What a block did between two marks; one entry for each edge. */
typedef struct {
    uint32_t mark; /* marks seen before */
    uint32_t block;
    uint64_t executions;
    tnf_cycles cycles;
} tnf_execution;

/* Cycles beyond a core's instruction counts; NULL in a probe that only counts. */
typedef struct {
    tnf_block **blocks_at; /* by halfword of the code region */
    tnf_block *previous;
    tnf_edge *current;
    tnf_edge *used; /* edges with executions since the last mark */
    uint64_t now;
    tnf_cycles total; /* until the last mark */
    uint32_t mispredict;
    /* Division: cycles beyond the minimum, at most, and quotient bits of each; register numbers of R0 to R14. */
    uint32_t division_extra;
    uint32_t division_bits;
    const int *registers;
    /* Memory, where it is simulated, and cycles of an unaligned access. */
    tnf_memory_model *memory;
    uint32_t unaligned;
    /* The log of executions; drain() empties a full one. */
    tnf_execution *log;
    uint32_t log_count;
    uint32_t log_capacity;
    void (*drain)(void);
    /* The edge from a block to the code at an address, made and entered into blocks_at; NULL where that failed. */
    tnf_edge *(*new_edge)(tnf_block *source, uint32_t address, uint32_t size);
} tnf_timer;

/* Addresses from first to last that strict mode allows. */
typedef struct {
    uint32_t first;
    uint32_t last;
    bool writable;
} tnf_range;

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
    /* Strict mode: what may be touched, and whether the core traps every unaligned access (ARMv6-M does). */
    const tnf_range *ranges;
    uint32_t range_count;
    bool always_aligned;
    bool unaligned;
    /* Cycles; NULL where only instructions are counted. */
    tnf_timer *timer;
    /* Unicorn's own functions. */
    int (*reg_read)(void *machine, int register_id, void *value);
    int (*reg_write)(void *machine, int register_id, const void *value);
    int (*emu_stop)(void *machine);
} tnf_probe;

/* UC_HOOK_BLOCK: counts the block's instructions and cycles, logs marks, stops at the limit. */
void tnf_on_block(void *machine, uint64_t address, uint32_t size, void *probe);
/* UC_HOOK_CODE at an SDIV or UDIV: adds the cycles that depend on the operands. */
void tnf_on_division(void *machine, uint64_t address, uint32_t size, void *probe);
/* UC_HOOK_CODE everywhere, where memory is simulated: adds the same, and the cycles that loads and stores wait. Not a hook of
 * memory accesses: Unicorn 2.1 restores its whole state for each of those, which takes three times as long. */
void tnf_on_instruction(void *machine, uint64_t address, uint32_t size, void *probe);
/* Adds what was executed since the last mark to the total and to the log. */
void tnf_settle(tnf_probe *probe);
/* UC_HOOK_MEM_INVALID: remembers what failed; false stops the machine. */
bool tnf_on_invalid(void *machine, int type, uint64_t address, int size, int64_t value, void *probe);
/* UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, in strict mode only: stops at an access outside the allowed ranges, or at an
 * unaligned one that a chip traps. */
void tnf_on_access(void *machine, int type, uint64_t address, int size, int64_t value, void *probe);

#endif
