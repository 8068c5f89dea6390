/* How many cycles blocks of instructions take: what is known beforehand of each edge between two of them, and what depends on
 * the branches, operands and addresses met as they run. */
#ifndef TNF_TIMER_H
#define TNF_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "data_access.h"
#include "memory_model.h"

/* Cycles, and those of them in which nothing issued, by cause. */
typedef struct {
    uint64_t total;
    uint64_t dependency;
    uint64_t branch;
    uint64_t fetch;
    uint64_t data;
} tnf_cycles;

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
    struct tnf_edge *next_used; /* of timer->used */
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

/* The cycles of one machine. */
typedef struct {
    tnf_block **blocks_at; /* by halfword of the code region */
    tnf_block *previous;
    tnf_edge *current;
    tnf_edge *used; /* edges with executions since the last mark */
    uint64_t now;
    tnf_cycles total; /* until the last mark */
    uint32_t mispredict;
    /* Division: cycles beyond the minimum, at most, and bits of the quotient in each. */
    uint32_t division_extra;
    uint32_t division_bits;
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

/* A block begins, which lies at `address`, `offset` into the code region. False where its cycles cannot be known. */
bool tnf_time_block(tnf_timer *timer, uint32_t offset, uint32_t address, uint32_t size);
/* The running block divides. */
void tnf_time_division(tnf_timer *timer, uint32_t dividend, uint32_t divisor);
/* The running block loads or stores, from `address` on. */
void tnf_time_access(tnf_timer *timer, const tnf_access *access, uint32_t address);
/* Adds what was executed since `mark` marks had been seen to the total and to the log. */
void tnf_settle(tnf_timer *timer, uint32_t mark);

#endif
