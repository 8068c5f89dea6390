#include "block_hook.h"

#include <stddef.h>
#include <string.h>

enum { UC_MEM_READ = 16, UC_MEM_WRITE = 17 }; /* of Unicorn's uc_mem_type */

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

/* Put the rule of a mark into force. */
static void follow(tnf_probe *probe, uint32_t index)
{
    const tnf_rule *rule = index < probe->rule_count ? &probe->rules[index] : &probe->usual;
    probe->ranges = rule->ranges;
    probe->range_count = rule->range_count;
    for (uint32_t i = 0u; i < rule->patch_count; i++) {
        memcpy(rule->patches[i].to, rule->patches[i].from, rule->patches[i].size);
    }
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
            uint32_t index = 0u;
            probe->reg_read(machine, probe->r0, &index);
            if (probe->timer != NULL) {
                tnf_settle(probe->timer, probe->mark_count);
            }
            if (probe->mark_count < probe->mark_capacity) {
                tnf_mark *mark = &probe->marks[probe->mark_count];
                mark->instructions = probe->instructions;
                if (probe->timer != NULL) {
                    mark->cycles = probe->timer->total;
                }
                mark->index = index;
            }
            probe->mark_count++;
            if (probe->rule_count != 0u) {
                follow(probe, index);
            }
        }
        if (probe->timer != NULL && !tnf_time_block(probe->timer, (uint32_t)offset, (uint32_t)address, size)) {
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

static uint32_t register_of(void *machine, const tnf_probe *probe, uint32_t number)
{
    uint32_t value = 0u;
    if (number != TNF_NO_REGISTER) {
        probe->reg_read(machine, probe->registers[number], &value);
    }
    return value;
}

/* SDIV is 0xFB9n 0xFdFm, UDIV 0xFBBn 0xFdFm: Rn / Rm (ARMv7-M ARM, sections A7.7.127 and A7.7.195). */
static bool is_division(const uint8_t *code)
{
    return code[1] == 0xFBu && (code[0] & 0xD0u) == 0x90u && (code[2] & code[3] & 0xF0u) == 0xF0u;
}

static uint32_t magnitude(uint32_t value)
{
    return value >> 31 != 0u ? 0u - value : value;
}

void tnf_on_division(void *machine, uint64_t address, uint32_t size, void *user)
{
    const tnf_probe *probe = user;
    const uint8_t *code = probe->code + (address - probe->code_origin);
    const uint32_t dividend = register_of(machine, probe, code[0] & 0xFu);
    const uint32_t divisor = register_of(machine, probe, code[2] & 0xFu);
    const bool is_signed = (code[0] & 0x20u) == 0u;
    (void)size;
    tnf_time_division(probe->timer, is_signed ? magnitude(dividend) : dividend, is_signed ? magnitude(divisor) : divisor);
}

static uint32_t address_of(void *machine, const tnf_probe *probe, const tnf_access *access)
{
    const uint32_t base = register_of(machine, probe, access->base);
    return base + access->offset + (register_of(machine, probe, access->index) << access->shift);
}

void tnf_on_instruction(void *machine, uint64_t address, uint32_t size, void *user)
{
    const tnf_probe *probe = user;
    const uint64_t offset = address - probe->code_origin;
    tnf_access access;
    if (offset >= probe->code_size || size > probe->code_size - offset) {
        return;
    }
    const uint8_t *code = probe->code + offset;
    if (tnf_data_access(code, (uint32_t)address, &access)) {
        tnf_time_access(probe->timer, &access, address_of(machine, probe, &access));
    } else if (size == 4u && is_division(code)) {
        tnf_on_division(machine, address, size, user);
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

/* Does a chip trap the access of `size` bytes at an address that is no multiple of it? ARMv7-M traps those of LDM, STM, PUSH,
 * POP, LDRD, STRD, LDREX, STREX and of the FPU (ARMv7-M ARM, section A3.2.1), which Unicorn does not. ARMv6-M traps all, and
 * so does Unicorn. */
static bool traps_unaligned(void *machine, const tnf_probe *probe, uint32_t size)
{
    uint32_t pc = 0u;
    if (size < 4u) {
        return false;
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

void tnf_on_exception(void *machine, tnf_probe *probe)
{
    uint32_t pc = 0u;
    tnf_access access;
    probe->reg_read(machine, probe->pc, &pc);
    const uint32_t offset = pc - probe->code_origin;
    if (offset <= probe->code_size - 4u && tnf_data_access(probe->code + offset, pc, &access)) {
        const uint32_t address = address_of(machine, probe, &access);
        probe->unaligned = (address & (access.size - 1u)) != 0u;
        if (probe->unaligned) {
            remember(probe, access.write ? UC_MEM_WRITE : UC_MEM_READ, address, (int)access.size);
        }
    }
}
