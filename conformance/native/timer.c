#include "timer.h"

#include <stddef.h>

static void add_cycles(tnf_cycles *to, const tnf_cycles *added, uint64_t times)
{
    to->total += times * added->total;
    to->dependency += times * added->dependency;
    to->branch += times * added->branch;
    to->fetch += times * added->fetch;
    to->data += times * added->data;
}

void tnf_settle(tnf_timer *timer, uint32_t mark)
{
    for (tnf_edge *edge = timer->used; edge != NULL; edge = edge->next_used) {
        tnf_cycles *extra = &edge->extra;
        extra->total = extra->dependency + extra->branch + extra->fetch + extra->data;
        tnf_execution done = {mark, edge->block->id, edge->executions, *extra};
        add_cycles(&done.cycles, &edge->cost, edge->executions);
        add_cycles(&timer->total, &done.cycles, 1u);
        if (timer->log_count == timer->log_capacity) {
            timer->drain();
            timer->log_count = 0u;
        }
        timer->log[timer->log_count++] = done;
        edge->executions = 0u;
        *extra = (tnf_cycles){0};
    }
    timer->used = NULL;
}

/* The edge from the block before to the block at `address`, moved to the front of those that lead there. */
static tnf_edge *find_edge(const tnf_timer *timer, tnf_block *block, uint32_t address, uint32_t size)
{
    while (block != NULL && block->size != size) {
        block = block->other;
    }
    if (block != NULL) {
        for (tnf_edge **link = &block->entered; *link != NULL; link = &(*link)->next) {
            tnf_edge *edge = *link;
            if (edge->source == timer->previous) {
                *link = edge->next;
                edge->next = block->entered;
                block->entered = edge;
                return edge;
            }
        }
    }
    return timer->new_edge(timer->previous, address, size);
}

/* Did the branch go another way than predicted, when it went to `target`? The predictor learns it. */
static bool mispredicted(tnf_branch *branch, uint32_t target)
{
    if (branch->conditional) {
        const bool taken = target != branch->next, predicted = branch->counter >= 2u;
        if (taken) {
            branch->counter += branch->counter < 3u;
        } else {
            branch->counter -= branch->counter > 0u;
        }
        return taken != predicted;
    }
    const bool elsewhere = target != branch->last_target;
    branch->last_target = target;
    return elsewhere;
}

bool tnf_time_block(tnf_timer *timer, uint32_t offset, uint32_t address, uint32_t size)
{
    tnf_block *block = timer->blocks_at[offset / 2u];
    tnf_edge *edge = block != NULL ? block->entered : NULL;
    if (edge == NULL || edge->source != timer->previous || block->size != size) {
        edge = find_edge(timer, block, address, size);
        if (edge == NULL) {
            return false;
        }
    }
    if (edge->executions++ == 0u) {
        edge->next_used = timer->used;
        timer->used = edge;
    }
    if (edge->source != NULL && edge->source->branch != NULL && mispredicted(edge->source->branch, address)) {
        edge->extra.branch += timer->mispredict;
        timer->now += timer->mispredict;
    }
    if (timer->memory != NULL) {
        const uint64_t wait = tnf_fetch_wait(timer->memory, address, size, timer->now, edge->cost.total);
        edge->extra.fetch += wait;
        timer->now += wait;
        timer->memory->clock = timer->now;
    }
    timer->now += edge->cost.total;
    timer->previous = edge->block;
    timer->current = edge;
    return true;
}

static uint32_t leading_zeros(uint32_t value)
{
    uint32_t count = 32u;
    for (; value != 0u; value >>= 1) {
        count--;
    }
    return count;
}

void tnf_time_division(tnf_timer *timer, uint32_t dividend, uint32_t divisor)
{
    if (timer->current != NULL && divisor != 0u && dividend > divisor) {
        const uint32_t bits = leading_zeros(divisor) - leading_zeros(dividend);
        const uint32_t cycles = (bits + timer->division_bits - 1u) / timer->division_bits;
        const uint32_t extra = cycles < timer->division_extra ? cycles : timer->division_extra;
        timer->current->extra.dependency += extra;
        timer->now += extra;
    }
}

void tnf_time_access(tnf_timer *timer, const tnf_access *access, uint32_t address)
{
    if (timer->current != NULL) {
        uint64_t wait = (address & (access->size - 1u)) != 0u ? timer->unaligned : 0u;
        for (uint32_t i = 0u; i < access->count; i++) {
            wait += tnf_data_wait(timer->memory, address + i * access->size, access->size, access->write);
        }
        timer->current->extra.data += wait;
        timer->now += wait;
    }
}
