/* How long an emulated Cortex-M waits for its memories: caches, buses and wait states, followed access by access. */
#ifndef TNF_MEMORY_MODEL_H
#define TNF_MEMORY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

/* A set-associative cache that holds no data, only which lines are there. */
typedef struct {
    uint32_t line_shift; /* log2 of the bytes of a line */
    uint32_t set_mask;   /* sets - 1; a power of two less one */
    uint32_t ways;
    bool write_back; /* a store that misses reads its line, and stays; where false, stores pass by */
    bool random;     /* which line of a full set goes: a pseudo-random one, else the one not used for longest */
    uint32_t random_state;
    uint32_t *lines; /* [set][way], the last used first: (address >> line_shift) + 1 << 1 | dirty; 0 where empty */
} tnf_cache;

/* A range of addresses on one bus. Times are core cycles. */
typedef struct {
    uint32_t first;
    uint32_t last;
    tnf_cache *code; /* caches between the core and this memory; NULL where there is none */
    tnf_cache *data;
    uint32_t row_shift;   /* log2 of the bytes that are fetched at once where there is no cache for code */
    uint32_t word_cycles; /* until a word is there that no cache holds; 1 where nothing waits */
    uint32_t code_cycles; /* until a whole line (or row) of code is there */
    uint32_t data_cycles; /* until a whole line of data is there; a word where there is no cache */
    bool prefetch;        /* once a line or row of code was read, the next one is */
    /* State. */
    uint64_t bus_free;   /* when the last transfer ends */
    uint64_t prefetched; /* when the line is there that the core is likely to need next */
    uint32_t prefetched_line;
    uint32_t fetched_line; /* where the core is; UINT32_MAX before the first */
} tnf_memory;

typedef struct {
    tnf_memory *memories;
    uint32_t count;
    uint64_t clock; /* about when the next access of the running block happens */
} tnf_memory_model;

/* Cycles that fetching `size` bytes of code waits, when the first is needed at `now` and executing all takes `cycles`. */
uint64_t tnf_fetch_wait(tnf_memory_model *model, uint32_t address, uint32_t size, uint64_t now, uint64_t cycles);
/* Cycles that a load or store at model->clock waits. Moves the clock on: an access takes a cycle, and its wait. */
uint64_t tnf_data_wait(tnf_memory_model *model, uint32_t address, uint32_t size, bool write);

#endif
