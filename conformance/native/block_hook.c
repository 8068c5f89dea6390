#include "block_hook.h"

#include <stddef.h>

#include "data_access.h"

enum { UC_MEM_WRITE = 17 }; /* of Unicorn's uc_mem_type */

#define HAS_IT 0x8000u

/* What `size` bytes of Thumb code hold: instructions, and HAS_IT. An instruction is 32 bits long when bits 15:11 of its first
 * halfword are 0b11101, 0b11110 or 0b11111 (ARMv7-M ARM, section A5.1); 0xBFxy with y other than 0 is IT (section A5.2.5). */
static uint32_t survey(const uint8_t *code, uint32_t size)
{
    uint32_t count = 0u, has_it = 0u;
    for (uint32_t at = 0u; at + 1u < size; count++) {
        if (code[at + 1u] == 0xBFu && (code[at] & 0xFu) != 0u) {
            has_it = HAS_IT;
        }
        at += (code[at + 1u] >> 3) >= 0x1Du ? 4u : 2u;
    }
    return count | has_it;
}

static void add_cycles(tnf_cycles *to, const tnf_cycles *added, uint64_t times)
{
    to->total += times * added->total;
    to->dependency += times * added->dependency;
    to->branch += times * added->branch;
    to->fetch += times * added->fetch;
    to->data += times * added->data;
}

void tnf_settle(tnf_probe *probe)
{
    tnf_timer *timer = probe->timer;
    for (tnf_edge *edge = timer->used; edge != NULL; edge = edge->next_used) {
        tnf_cycles *extra = &edge->extra;
        extra->total = extra->dependency + extra->branch + extra->fetch + extra->data;
        tnf_execution done = {probe->mark_count, edge->block->id, edge->executions, *extra};
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

/* False where the timing of the block cannot be known. */
static bool time_block(tnf_timer *timer, uint32_t offset, uint32_t address, uint32_t size)
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

void tnf_on_block(void *machine, uint64_t address, uint32_t size, void *user)
{
    tnf_probe *probe = user;
    const uint64_t offset = address - probe->code_origin;
    if (offset < probe->code_size && size <= probe->code_size - offset) {
        uint32_t *seen = &probe->blocks_seen[offset / 2u];
        if (*seen >> 16 != size) {
            *seen = size << 16 | survey(probe->code + offset, size);
        }
        if (address == probe->mark_address) {
            if (probe->timer != NULL) {
                tnf_settle(probe);
            }
            if (probe->mark_count < probe->mark_capacity) {
                tnf_mark *mark = &probe->marks[probe->mark_count];
                mark->instructions = probe->instructions;
                if (probe->timer != NULL) {
                    mark->cycles = probe->timer->total;
                }
                probe->reg_read(machine, probe->r0, &mark->index);
            }
            probe->mark_count++;
        }
        if (probe->timer != NULL && !time_block(probe->timer, (uint32_t)offset, (uint32_t)address, size)) {
            probe->emu_stop(machine);
        }
        probe->instructions += *seen & 0x7FFFu;
        probe->blocks++;
        /* An IT block may run on into the next translated block. */
        const bool continues = probe->last_has_it && address == (uint64_t)probe->last_block + probe->last_size;
        probe->last_has_it = (*seen & HAS_IT) != 0u || continues;
        probe->last_block = (uint32_t)address;
        probe->last_size = size;
    }
    if (probe->instructions > probe->limit) {
        probe->limit_reached = true;
        probe->emu_stop(machine);
    }
}

static uint32_t leading_zeros(uint32_t value)
{
    uint32_t count = 32u;
    for (; value != 0u; value >>= 1) {
        count--;
    }
    return count;
}

/* SDIV is 0xFB9n 0xFdFm, UDIV 0xFBBn 0xFdFm: Rn / Rm (ARMv7-M ARM, sections A7.7.127 and A7.7.195). */
void tnf_on_division(void *machine, uint64_t address, uint32_t size, void *user)
{
    tnf_probe *probe = user;
    tnf_timer *timer = probe->timer;
    const uint8_t *code = probe->code + (address - probe->code_origin);
    uint32_t dividend = 0u, divisor = 0u;
    (void)size;
    probe->reg_read(machine, timer->registers[code[0] & 0xFu], &dividend);
    probe->reg_read(machine, timer->registers[code[2] & 0xFu], &divisor);
    if ((code[0] & 0x20u) == 0u) {
        dividend = dividend >> 31 != 0u ? 0u - dividend : dividend;
        divisor = divisor >> 31 != 0u ? 0u - divisor : divisor;
    }
    if (timer->current != NULL && divisor != 0u && dividend > divisor) {
        const uint32_t bits = leading_zeros(divisor) - leading_zeros(dividend);
        const uint32_t cycles = (bits + timer->division_bits - 1u) / timer->division_bits;
        const uint32_t extra = cycles < timer->division_extra ? cycles : timer->division_extra;
        timer->current->extra.dependency += extra;
        timer->now += extra;
    }
}

/* 0xFB9n 0xFdFm or 0xFBBn 0xFdFm. */
static bool is_division(const uint8_t *code)
{
    return code[1] == 0xFBu && (code[0] & 0xD0u) == 0x90u && (code[2] & code[3] & 0xF0u) == 0xF0u;
}

void tnf_on_instruction(void *machine, uint64_t address, uint32_t size, void *user)
{
    tnf_probe *probe = user;
    tnf_timer *timer = probe->timer;
    const uint64_t offset = address - probe->code_origin;
    tnf_access access;
    if (timer->current == NULL || offset + size > probe->code_size) {
        return;
    }
    const uint8_t *code = probe->code + offset;
    if (size == 4u && is_division(code)) {
        tnf_on_division(machine, address, size, user);
    } else if (tnf_data_access(code, (uint32_t)address, &access)) {
        uint32_t base = 0u, index = 0u;
        if (access.base != TNF_NO_REGISTER) {
            probe->reg_read(machine, timer->registers[access.base], &base);
        }
        if (access.index != TNF_NO_REGISTER) {
            probe->reg_read(machine, timer->registers[access.index], &index);
        }
        base += access.offset + (index << access.shift);
        uint64_t wait = (base & (access.size - 1u)) != 0u ? timer->unaligned : 0u;
        for (uint32_t i = 0u; i < access.count; i++) {
            wait += tnf_data_wait(timer->memory, base + i * access.size, access.size, access.write);
        }
        timer->current->extra.data += wait;
        timer->now += wait;
    }
}

static void remember(tnf_probe *probe, int type, uint64_t address, int size)
{
    if (!probe->faulted) {
        probe->faulted = true;
        probe->fault_type = type;
        probe->fault_address = address;
        probe->fault_size = size;
    }
}

bool tnf_on_invalid(void *machine, int type, uint64_t address, int size, int64_t value, void *user)
{
    (void)machine;
    (void)value;
    remember(user, type, address, size);
    return false;
}

/* Does a chip trap the access of `size` bytes at an address that is no multiple of it? ARMv6-M traps all; later cores trap
 * those of LDM, STM, PUSH, POP, LDRD, STRD, LDREX, STREX and of the FPU (ARMv7-M ARM, section A3.2.1). */
static bool traps_unaligned(void *machine, const tnf_probe *probe, uint32_t size)
{
    uint32_t pc = 0u;
    if (probe->always_aligned || size < 4u) {
        return probe->always_aligned;
    }
    probe->reg_read(machine, probe->pc, &pc);
    const uint32_t offset = pc - probe->code_origin;
    if (offset + 2u > probe->code_size) {
        return false;
    }
    const uint32_t first = (uint32_t)probe->code[offset] | (uint32_t)probe->code[offset + 1u] << 8;
    const bool multiple = (first & 0xF000u) == 0xC000u || (first & 0xF600u) == 0xB400u;
    const bool wide_multiple_or_dual = (first & 0xFE00u) == 0xE800u;
    const bool fpu = (first & 0xEE00u) == 0xEC00u;
    return multiple || wide_multiple_or_dual || fpu;
}

/* Unicorn 2.1 stores the IT state for a memory hook and leaves it there, so that the next block would start as if inside the IT
 * block. */
static void clear_it_state(void *machine, const tnf_probe *probe)
{
    uint32_t xpsr = 0u;
    probe->reg_read(machine, probe->xpsr, &xpsr);
    if ((xpsr & 0x0600FC00u) != 0u) {
        xpsr &= ~0x0600FC00u;
        probe->reg_write(machine, probe->xpsr, &xpsr);
    }
}

void tnf_on_access(void *machine, int type, uint64_t address, int size, int64_t value, void *user)
{
    tnf_probe *probe = user;
    const uint32_t bytes = (uint32_t)size, word = bytes < 4u ? bytes : 4u;
    bool allowed = false;
    (void)value;
    if (probe->last_has_it) {
        clear_it_state(machine, probe);
    }
    for (uint32_t i = 0u; i < probe->range_count && !allowed; i++) {
        const tnf_range *range = &probe->ranges[i];
        allowed = address >= range->first && address + bytes - 1u <= range->last && (range->writable || type != UC_MEM_WRITE);
    }
    if (allowed && (address & (word - 1u)) != 0u && traps_unaligned(machine, probe, bytes)) {
        probe->unaligned = true;
        allowed = false;
    }
    if (!allowed) {
        remember(probe, type, address, size);
        probe->emu_stop(machine);
    }
}
