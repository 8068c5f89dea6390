/* Instructions of the DSP extension that the dense kernels are made of, each with its meaning in plain C for other machines. */
#ifndef TNF_VALIDATION_DSP_H
#define TNF_VALIDATION_DSP_H

#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) tnf_word;
typedef uint32_t __attribute__((may_alias, aligned(1))) tnf_unaligned_word;

#if defined(__ARM_FEATURE_DSP)

/* acc + low * low + high * high, on signed halfwords. */
static inline int32_t tnf_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    int32_t sum;
    __asm__("smlad %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
}

/* Bytes 0 and 2, sign-extended to halfwords. */
static inline uint32_t tnf_even_bytes(uint32_t x)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(x));
    return pair;
}

/* Bytes 1 and 3, sign-extended to halfwords. */
static inline uint32_t tnf_odd_bytes(uint32_t x)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(x));
    return pair;
}

/* The same, plus a pair of halfwords. */
static inline uint32_t tnf_add_even_bytes(uint32_t pair, uint32_t x)
{
    uint32_t sum;
    __asm__("sxtab16 %0, %1, %2" : "=r"(sum) : "r"(pair), "r"(x));
    return sum;
}

static inline uint32_t tnf_add_odd_bytes(uint32_t pair, uint32_t x)
{
    uint32_t sum;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(sum) : "r"(pair), "r"(x));
    return sum;
}

/* Low halfword of `low`, low halfword of `high` above it. */
static inline uint32_t tnf_pack_low(uint32_t low, uint32_t high)
{
    uint32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(low), "r"(high));
    return pair;
}

/* High halfword of `low`, high halfword of `high` above it. */
static inline uint32_t tnf_pack_high(uint32_t low, uint32_t high)
{
    uint32_t pair;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair) : "r"(high), "r"(low));
    return pair;
}

/* Clamped to int8. */
static inline int8_t tnf_saturate8(int32_t x)
{
    int32_t clamped;
    __asm__("ssat %0, #8, %1" : "=r"(clamped) : "r"(x));
    return (int8_t)clamped;
}

/* The larger of each pair of signed bytes. */
static inline uint32_t tnf_max_bytes(uint32_t a, uint32_t b)
{
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b));
    return larger;
}

/* 0 in place of each negative byte. */
static inline uint32_t tnf_relu_bytes(uint32_t x)
{
    const uint32_t sign = (x >> 7) & 0x01010101u;
    uint32_t mask;
    __asm__("qsub8 %0, %1, %2" : "=r"(mask) : "r"(0u), "r"(sign));
    return x & ~mask;
}

#else

static inline int32_t tnf_half(uint32_t x, int high)
{
    const uint32_t half = high ? x >> 16 : x & 0xFFFFu;
    return (int32_t)(half ^ 0x8000u) - 0x8000;
}

static inline int32_t tnf_byte(uint32_t x, int index)
{
    return (int32_t)(((x >> 8 * index) & 0xFFu) ^ 0x80u) - 0x80;
}

static inline int32_t tnf_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    return acc + tnf_half(a, 0) * tnf_half(b, 0) + tnf_half(a, 1) * tnf_half(b, 1);
}

static inline uint32_t tnf_even_bytes(uint32_t x)
{
    return ((uint32_t)tnf_byte(x, 0) & 0xFFFFu) | (uint32_t)tnf_byte(x, 2) << 16;
}

static inline uint32_t tnf_odd_bytes(uint32_t x)
{
    return ((uint32_t)tnf_byte(x, 1) & 0xFFFFu) | (uint32_t)tnf_byte(x, 3) << 16;
}

static inline uint32_t tnf_add_even_bytes(uint32_t pair, uint32_t x)
{
    return (((uint32_t)tnf_byte(x, 0) + pair) & 0xFFFFu) | ((uint32_t)tnf_byte(x, 2) + (pair >> 16)) << 16;
}

static inline uint32_t tnf_add_odd_bytes(uint32_t pair, uint32_t x)
{
    return (((uint32_t)tnf_byte(x, 1) + pair) & 0xFFFFu) | ((uint32_t)tnf_byte(x, 3) + (pair >> 16)) << 16;
}

static inline uint32_t tnf_pack_low(uint32_t low, uint32_t high)
{
    return (low & 0xFFFFu) | high << 16;
}

static inline uint32_t tnf_pack_high(uint32_t low, uint32_t high)
{
    return low >> 16 | (high & 0xFFFF0000u);
}

static inline int8_t tnf_saturate8(int32_t x)
{
    return (int8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
}

static inline uint32_t tnf_max_bytes(uint32_t a, uint32_t b)
{
    uint32_t larger = 0u;
    for (int i = 0; i < 4; i++) {
        const int32_t x = tnf_byte(a, i), y = tnf_byte(b, i);
        larger |= ((uint32_t)(x > y ? x : y) & 0xFFu) << 8 * i;
    }
    return larger;
}

static inline uint32_t tnf_relu_bytes(uint32_t x)
{
    return x & ~(((x >> 7) & 0x01010101u) * 0xFFu);
}

#endif

#endif
