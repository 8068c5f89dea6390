#include "instruction_count.h"

static uint64_t after(const instruction_count *count, uint64_t address)
{
    return address + (count->code[address - count->origin + 1u] >= 0xE8u ? 4u : 2u);
}

void count_instruction(void *machine, uint64_t address, uint32_t size, void *user)
{
    instruction_count *count = user;
    const uint8_t *at = &count->code[address - count->origin];
    (void)machine;
    (void)size;
    /* Inside an IT block only the last instruction may branch: what lies between was passed over. */
    for (; count->next < count->it_end && count->next != address; count->next = after(count, count->next)) {
        count->skipped++;
    }
    count->executed++;
    count->next = after(count, address);
    count->it_end = count->next < count->it_end ? count->it_end : 0u;
    if (at[1] == 0xBFu && (at[0] & 0xFu) != 0u) {
        uint32_t length = 4u;
        for (uint32_t mask = at[0] & 0xFu; (mask & 1u) == 0u; mask >>= 1) {
            length--;
        }
        count->it_end = count->next;
        for (uint32_t i = 0u; i < length; i++) {
            count->it_end = after(count, count->it_end);
        }
    }
}
