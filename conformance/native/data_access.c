#include "data_access.h"

/* Encodings are those of the ARMv7-M ARM, chapter A5; of ARMv8-M, load-acquire and store-release lie among the exclusives. */

static uint32_t field(uint32_t word, uint32_t low, uint32_t bits)
{
    return word >> low & ((1u << bits) - 1u);
}

static uint32_t ones(uint32_t word)
{
    uint32_t count = 0u;
    for (; word != 0u; word &= word - 1u) {
        count++;
    }
    return count;
}

static bool at(tnf_access *access, uint32_t base, uint32_t offset, uint32_t size, uint32_t count, bool load)
{
    *access = (tnf_access){base, TNF_NO_REGISTER, 0u, offset, size, count, !load};
    return true;
}

static bool indexed(tnf_access *access, uint32_t base, uint32_t index, uint32_t shift, uint32_t size, bool load)
{
    *access = (tnf_access){base, index, shift, 0u, size, 1u, !load};
    return true;
}

/* 16 bits: section A5.2, "Load/store single data item", and its neighbours. */
static bool narrow(uint32_t word, uint32_t address, tnf_access *access)
{
    const uint32_t immediate5 = field(word, 6u, 5u), immediate8 = field(word, 0u, 8u), base = field(word, 3u, 3u);
    const bool load = field(word, 11u, 1u) != 0u;
    switch (word >> 12) {
    case 0x4u: /* LDR literal */
        return load && at(access, TNF_NO_REGISTER, ((address + 4u) & ~3u) + 4u * immediate8, 4u, 1u, true);
    case 0x5u: { /* register offset: STR, STRH, STRB, LDRSB, LDR, LDRH, LDRB, LDRSH */
        static const uint8_t sizes[8] = {4, 2, 1, 1, 4, 2, 1, 2};
        const uint32_t operation = field(word, 9u, 3u);
        return indexed(access, base, field(word, 6u, 3u), 0u, sizes[operation], operation >= 3u);
    }
    case 0x6u:
        return at(access, base, 4u * immediate5, 4u, 1u, load);
    case 0x7u:
        return at(access, base, immediate5, 1u, 1u, load);
    case 0x8u:
        return at(access, base, 2u * immediate5, 2u, 1u, load);
    case 0x9u:
        return at(access, 13u, 4u * immediate8, 4u, 1u, load);
    case 0xBu: { /* PUSH, POP */
        const uint32_t count = ones(field(word, 0u, 9u));
        return field(word, 9u, 2u) == 2u && at(access, 13u, load ? 0u : 0u - 4u * count, 4u, count, load);
    }
    case 0xCu: /* STM, LDM */
        return at(access, field(word, 8u, 3u), 0u, 4u, ones(immediate8), load);
    default:
        return false;
    }
}

/* Where the base is PC, the offset becomes an address. */
static bool relative(tnf_access *access, uint32_t address, uint32_t base, uint32_t offset, uint32_t size, uint32_t count, bool load)
{
    return at(access, base, base == 15u ? ((address + 4u) & ~3u) + offset : offset, size, count, load);
}

/* Section A5.3.6, "Load/store dual or exclusive, table branch". */
static bool dual(uint32_t first, uint32_t second, uint32_t address, tnf_access *access)
{
    const bool pre = field(first, 8u, 1u) != 0u, add = field(first, 7u, 1u) != 0u, write_back = field(first, 5u, 1u) != 0u;
    const bool load = field(first, 4u, 1u) != 0u;
    const uint32_t base = field(first, 0u, 4u), immediate = 4u * field(second, 0u, 8u), operation = field(second, 4u, 4u);
    if (pre || write_back) {
        return relative(access, address, base, !pre ? 0u : add ? immediate : 0u - immediate, 4u, 2u, load);
    }
    if (!add) { /* STREX, LDREX */
        return at(access, base, immediate, 4u, 1u, load);
    }
    if (operation < 2u) { /* TBB, TBH */
        indexed(access, base, field(second, 0u, 4u), operation, 1u << operation, true);
        access->offset = base == 15u ? address + 4u : 0u;
        return load;
    }
    return at(access, base, 0u, 1u << field(operation, 0u, 2u), 1u, load);
}

/* Sections A5.3.7 to A5.3.10: one byte, halfword or word. */
static bool single(uint32_t first, uint32_t second, uint32_t address, tnf_access *access)
{
    const bool add = field(first, 7u, 1u) != 0u, load = field(first, 4u, 1u) != 0u;
    const uint32_t base = field(first, 0u, 4u), size = 1u << field(first, 5u, 2u);
    if (field(second, 12u, 4u) == 15u && size < 4u) { /* PLD, PLI */
        return false;
    }
    if (base == 15u) {
        const uint32_t offset = field(second, 0u, 12u);
        return relative(access, address, base, add ? offset : 0u - offset, size, 1u, load);
    }
    if (add) {
        return at(access, base, field(second, 0u, 12u), size, 1u, load);
    }
    if (field(second, 11u, 1u) == 0u) {
        return indexed(access, base, field(second, 0u, 4u), field(second, 4u, 2u), size, load);
    }
    const uint32_t offset = field(second, 0u, 8u);
    const bool pre = field(second, 10u, 1u) != 0u;
    return at(access, base, !pre ? 0u : field(second, 9u, 1u) != 0u ? offset : 0u - offset, size, 1u, load);
}

/* Section A6.5: VLDR, VSTR, VLDM, VSTM. Doubles are two words. */
static bool floating(uint32_t first, uint32_t second, uint32_t address, tnf_access *access)
{
    const bool pre = field(first, 8u, 1u) != 0u, add = field(first, 7u, 1u) != 0u, write_back = field(first, 5u, 1u) != 0u;
    const bool load = field(first, 4u, 1u) != 0u, doubles = field(second, 8u, 1u) != 0u;
    const uint32_t base = field(first, 0u, 4u), words = field(second, 0u, 8u);
    if (pre && !write_back) {
        return relative(access, address, base, add ? 4u * words : 0u - 4u * words, 4u, doubles ? 2u : 1u, load);
    }
    return (pre || add) && at(access, base, pre ? 0u - 4u * words : 0u, 4u, words, load); /* else VMOV of two registers */
}

bool tnf_data_access(const uint8_t *code, uint32_t address, tnf_access *access)
{
    const uint32_t first = (uint32_t)code[0] | (uint32_t)code[1] << 8;
    if (first < 0xE800u) {
        return narrow(first, address, access);
    }
    const uint32_t second = (uint32_t)code[2] | (uint32_t)code[3] << 8;
    if ((first & 0xFE40u) == 0xE800u) { /* STM, LDM */
        const uint32_t count = ones(second);
        const bool after = field(first, 8u, 1u) == 0u;
        return at(access, field(first, 0u, 4u), after ? 0u : 0u - 4u * count, 4u, count, field(first, 4u, 1u) != 0u);
    }
    if ((first & 0xFE40u) == 0xE840u) {
        return dual(first, second, address, access);
    }
    if ((first & 0xFE00u) == 0xF800u) {
        return single(first, second, address, access);
    }
    return (first & 0xFE00u) == 0xEC00u && field(second, 9u, 3u) == 5u && floating(first, second, address, access);
}
