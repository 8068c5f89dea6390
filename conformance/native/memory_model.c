#include "memory_model.h"

#include <stddef.h>

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static tnf_memory *memory_at(const tnf_memory_model *model, uint32_t address)
{
    for (uint32_t i = 0u; i < model->count; i++) {
        tnf_memory *memory = &model->memories[i];
        if (address >= memory->first && address <= memory->last) {
            return memory;
        }
    }
    return NULL;
}

/* Is the line there? It is afterwards, as the last used one. `evicted` becomes the address of a line that has to be written
 * back for it, or stays as it is. */
static bool look_up(tnf_cache *cache, uint32_t address, bool dirty, uint32_t *evicted)
{
    const uint32_t number = address >> cache->line_shift;
    uint32_t *set = &cache->lines[(number & cache->set_mask) * cache->ways];
    uint32_t way = 0u;
    while (way < cache->ways && set[way] >> 1 != number + 1u) {
        way++;
    }
    const bool hit = way < cache->ways;
    if (!hit) {
        way = cache->ways - 1u; /* empty while any is */
        if (cache->random && set[way] != 0u) {
            cache->random_state ^= cache->random_state << 13; /* xorshift32 */
            cache->random_state ^= cache->random_state >> 17;
            cache->random_state ^= cache->random_state << 5;
            way = cache->random_state % cache->ways;
        }
        if ((set[way] & 1u) != 0u) {
            *evicted = ((set[way] >> 1) - 1u) << cache->line_shift;
        }
    }
    const uint32_t line = (number + 1u) << 1 | (hit ? set[way] & 1u : 0u) | (dirty ? 1u : 0u);
    for (; way > 0u; way--) {
        set[way] = set[way - 1u];
    }
    set[0] = line;
    return hit;
}

/* When the transfer starts that is asked for at `now`; the bus is taken for `cycles` from then on. */
static uint64_t take_bus(tnf_memory *memory, uint64_t now, uint64_t cycles)
{
    const uint64_t start = later(now, memory->bus_free);
    memory->bus_free = start + cycles;
    return start;
}

static void write_back(const tnf_memory_model *model, uint32_t evicted, uint64_t now)
{
    tnf_memory *home = memory_at(model, evicted);
    if (home != NULL) {
        (void)take_bus(home, now, home->data_cycles); /* the eviction buffer waits for it, the core does not */
    }
}

/* One line (or row) of code, needed at `now`. */
static uint64_t line_wait(const tnf_memory_model *model, tnf_memory *memory, uint32_t address, uint64_t now)
{
    tnf_cache *cache = memory->code;
    const uint32_t line = address >> (cache != NULL ? cache->line_shift : memory->row_shift);
    uint32_t evicted = UINT32_MAX;
    const bool there = cache != NULL ? look_up(cache, address, false, &evicted) : line == memory->fetched_line;
    if (evicted != UINT32_MAX) {
        write_back(model, evicted, now); /* of data, in a cache that holds both */
    }
    memory->fetched_line = line;
    if (there) {
        return 0u;
    }
    const uint64_t arrival = line == memory->prefetched_line
                                 ? later(now, memory->prefetched)
                                 : take_bus(memory, now, memory->code_cycles) + memory->word_cycles - 1u;
    if (memory->prefetch) {
        memory->prefetched_line = line + 1u;
        memory->prefetched = take_bus(memory, arrival, memory->code_cycles) + memory->code_cycles - 1u;
    }
    return arrival - now;
}

uint64_t tnf_fetch_wait(tnf_memory_model *model, uint32_t address, uint32_t size, uint64_t now, uint64_t cycles)
{
    tnf_memory *memory = memory_at(model, address);
    if (memory == NULL || size == 0u) {
        return 0u;
    }
    const uint32_t shift = memory->code != NULL ? memory->code->line_shift : memory->row_shift;
    const uint32_t first = address >> shift, last = (address + size - 1u) >> shift;
    uint64_t wait = 0u;
    for (uint32_t line = first; line <= last; line++) {
        const uint32_t start = line == first ? address : line << shift;
        wait += line_wait(model, memory, start, now + wait + cycles * (start - address) / size);
    }
    return wait;
}

/* One line, or one access where no cache is. */
static uint64_t access_wait(const tnf_memory_model *model, tnf_memory *memory, uint32_t address, bool write, uint64_t now)
{
    tnf_cache *cache = memory->data;
    const bool cached = cache != NULL && (!write || cache->write_back);
    uint32_t evicted = UINT32_MAX;
    if (cached && look_up(cache, address, write, &evicted)) {
        return 0u;
    }
    const uint64_t start = take_bus(memory, now, cached ? memory->data_cycles : memory->word_cycles);
    if (evicted != UINT32_MAX) {
        write_back(model, evicted, start);
    }
    return start - now + (write ? 0u : memory->word_cycles - 1u); /* a store is done once the store buffer has it */
}

uint64_t tnf_data_wait(tnf_memory_model *model, uint32_t address, uint32_t size, bool write)
{
    tnf_memory *memory = memory_at(model, address);
    uint64_t wait = 0u;
    if (memory != NULL && (memory->data != NULL || memory->word_cycles > 1u)) {
        const uint32_t shift = memory->data != NULL ? memory->data->line_shift : 31u;
        const uint32_t end = address + size - 1u;
        wait = access_wait(model, memory, address, write, model->clock);
        if (address >> shift != end >> shift) {
            wait += access_wait(model, memory, end, write, model->clock + wait);
        }
    }
    model->clock += 1u + wait;
    return wait;
}
