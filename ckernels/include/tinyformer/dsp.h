/* What the kernels for cores with the DSP extension (Cortex-M4, M7, M33) are made of.
 *
 * Each function is given twice: by the core's instructions, and in plain C where there are none, so that the same kernels run and
 * are tested everywhere. TNF_NO_BUILTINS selects plain C on every core.
 *
 * Four int8 in a word become two pairs of int16 by SXTB16: bytes 0 and 2, and bytes 1 and 3 rotated down. Weights and activations
 * are both taken apart in that order, so a SMLAD of two pairs multiplies what belongs together.
 */
#ifndef TINYFORMER_DSP_H
#define TINYFORMER_DSP_H

#include <stdint.h>

#include "tinyformer/numerics.h"

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__) && !defined(TNF_NO_BUILTINS)
#define TNF_DSP_INSTRUCTIONS 1
#else
#define TNF_DSP_INSTRUCTIONS 0
#endif

/* Rows and channels whose sums tnf_tile_sums takes together. */
#define TNF_TILE_ROWS 3
#define TNF_TILE_CHANNELS 2
#define TNF_TILE_SUMS (TNF_TILE_ROWS * TNF_TILE_CHANNELS)
/* Words of a tile for each four elements of its rows. */
#define TNF_TILE_WORDS (2 * TNF_TILE_ROWS)

#if TNF_DSP_INSTRUCTIONS

typedef struct __attribute__((packed, may_alias)) {
    uint32_t word;
} tnf_unaligned_word;

/* Four bytes at any address; these cores load unaligned words. */
static inline uint32_t tnf_load4(const int8_t *x)
{
    return ((const tnf_unaligned_word *)(const void *)x)->word;
}

/* The pair of bytes 0 and 2, sign-extended. */
static inline uint32_t tnf_even_pair(uint32_t bytes)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(bytes));
    return pair;
}

/* The pair of bytes 1 and 3, sign-extended. */
static inline uint32_t tnf_odd_pair(uint32_t bytes)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(bytes));
    return pair;
}

/* acc + the products of both halves. */
static inline int32_t tnf_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(acc) : "r"(a), "r"(b));
    return acc;
}

#else

static inline uint32_t tnf_load4(const int8_t *x)
{
    return (uint32_t)(uint8_t)x[0] | (uint32_t)(uint8_t)x[1] << 8 | (uint32_t)(uint8_t)x[2] << 16 | (uint32_t)(uint8_t)x[3] << 24;
}

static inline uint32_t tnf_even_pair(uint32_t bytes)
{
    return (uint32_t)(uint16_t)(int8_t)(uint8_t)(bytes & 0xFFu) | (uint32_t)(uint16_t)(int8_t)(uint8_t)(bytes >> 16 & 0xFFu) << 16;
}

static inline uint32_t tnf_odd_pair(uint32_t bytes)
{
    return tnf_even_pair(bytes >> 8);
}

static inline int32_t tnf_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    const int32_t low = (int32_t)(int16_t)(uint16_t)(a & 0xFFFFu) * (int32_t)(int16_t)(uint16_t)(b & 0xFFFFu);
    const int32_t high = (int32_t)(int16_t)(uint16_t)(a >> 16) * (int32_t)(int16_t)(uint16_t)(b >> 16);
    return acc + low + high;
}

#endif

/* The last step where it takes one multiplication, an addition and a shift: single rounding, -23 <= shift <= -2. */
typedef struct {
    int32_t multiplier, offset, right;
} tnf_quick_scale;

static inline tnf_quick_scale tnf_quick_scale_of(int32_t multiplier, int32_t shift, int32_t zero_point)
{
    tnf_quick_scale scale;
    scale.multiplier = multiplier;
    scale.right = -1 - shift;
    scale.offset = (int32_t)(((uint32_t)1 << (scale.right - 1)) + ((uint32_t)zero_point << scale.right));
    return scale;
}

static inline int32_t tnf_quick_requantize(int32_t v, tnf_quick_scale scale)
{
    return ((int32_t)(((int64_t)v * scale.multiplier) >> 32) + scale.offset) >> scale.right;
}

/* Take a row of `n` bytes apart into row `row` of a tile: words [quads][TNF_TILE_ROWS][2]. The last four are filled up with 0. */
static inline void tnf_tile_row(uint32_t *tile, int32_t row, const int8_t *x, int32_t n)
{
    uint32_t *to = tile + 2 * row;
    for (; n >= 4; n -= 4) {
        const uint32_t bytes = tnf_load4(x);
        to[0] = tnf_even_pair(bytes);
        to[1] = tnf_odd_pair(bytes);
        to += TNF_TILE_WORDS;
        x += 4;
    }
    if (n > 0) {
        int8_t rest[4] = {0, 0, 0, 0};
        int32_t i;
        for (i = 0; i < n; i++) {
            rest[i] = x[i];
        }
        to[0] = tnf_even_pair(tnf_load4(rest));
        to[1] = tnf_odd_pair(tnf_load4(rest));
    }
}

/* The sums of a tile's rows times two channels at a time: sums [pairs][TNF_TILE_ROWS][TNF_TILE_CHANNELS] from a tile of `quads`
 * times four columns and weight words [pairs][quads][TNF_TILE_CHANNELS], four int8 each. */
#if TNF_DSP_INSTRUCTIONS

/* Registers: r4-r9 the sums, r0 and r3 a row's pairs, r10, r11, r12, lr the weights' pairs, r1 the tile, r2 the weights. A row's
 * next pairs are loaded as soon as the last are used up: on a Cortex-M7 each load issues together with a SMLAD. */
#define TNF_TILE_QUAD(tile, next, weight)   \
    "ldr r11, [r2, #" #weight "]\n\t"       \
    "ldr lr, [r2, #" #weight "+4]\n\t"      \
    "sxtb16 r10, r11\n\t"                   \
    "ldr r0, [r1, #" #tile "]\n\t"          \
    "sxtb16 r12, lr\n\t"                    \
    "ldr r3, [r1, #" #tile "+4]\n\t"        \
    "sxtb16 r11, r11, ror #8\n\t"           \
    "smlad r4, r0, r10, r4\n\t"             \
    "sxtb16 lr, lr, ror #8\n\t"             \
    "smlad r5, r0, r12, r5\n\t"             \
    "ldr r0, [r1, #" #tile "+8]\n\t"        \
    "smlad r4, r3, r11, r4\n\t"             \
    "smlad r5, r3, lr, r5\n\t"              \
    "ldr r3, [r1, #" #tile "+12]\n\t"       \
    "smlad r6, r0, r10, r6\n\t"             \
    "smlad r7, r0, r12, r7\n\t"             \
    "ldr r0, [r1, #" #tile "+16]\n\t"       \
    "smlad r6, r3, r11, r6\n\t"             \
    "smlad r7, r3, lr, r7\n\t"              \
    "ldr r3, [r1, #" #tile "+20]\n\t"       \
    "smlad r8, r0, r10, r8\n\t"             \
    "smlad r9, r0, r12, r9\n\t"             \
    next                                    \
    "smlad r8, r3, r11, r8\n\t"             \
    "smlad r9, r3, lr, r9\n\t"

__attribute__((naked, noinline, unused)) static void tnf_tile_sums(int32_t *sums, const uint32_t *tile, const uint32_t *weight,
                                                                   int32_t quads, int32_t pairs)
{
    __asm__("push {r4-r11, lr}\n\t"
            "ldr r12, [sp, #36]\n\t" /* pairs */
            "push {r0, r1, r3, r12}\n\t"
            "1:\n\t" /* a pair of channels */
            "add r0, r2, r3, lsl #3\n\t"
            "push {r0}\n\t" /* where its weights end */
            "mov r4, #0\n\t"
            "mov r5, #0\n\t"
            "mov r6, #0\n\t"
            "mov r7, #0\n\t"
            "mov r8, #0\n\t"
            "mov r9, #0\n\t"
            "tst r3, #1\n\t"
            "itt ne\n\t" /* an odd number of quads begins with the second half of the loop */
            "subne r1, #24\n\t"
            "subne r2, #8\n\t"
            "bne 3f\n\t"
            "2:\n\t"
            TNF_TILE_QUAD(0, "", 0)
            "3:\n\t"
            TNF_TILE_QUAD(24, "ldr r0, [sp]\n\t", 8)
            "add r2, #16\n\t"
            "add r1, #48\n\t"
            "cmp r2, r0\n\t"
            "bne 2b\n\t"
            "pop {r0}\n\t"
            "ldr r0, [sp]\n\t"
            "stm r0!, {r4-r9}\n\t"
            "ldr r12, [sp, #12]\n\t"
            "str r0, [sp]\n\t"
            "ldr r1, [sp, #4]\n\t"
            "subs r12, #1\n\t"
            "ldr r3, [sp, #8]\n\t"
            "str r12, [sp, #12]\n\t"
            "bne 1b\n\t"
            "add sp, #16\n\t"
            "pop {r4-r11, pc}\n\t");
}

#undef TNF_TILE_QUAD

#else

static inline void tnf_tile_sums(int32_t *sums, const uint32_t *tile, const uint32_t *weight, int32_t quads, int32_t pairs)
{
    int32_t pair, quad, row, channel;
    for (pair = 0; pair < pairs; pair++) {
        for (row = 0; row < TNF_TILE_SUMS; row++) {
            sums[row] = 0;
        }
        for (quad = 0; quad < quads; quad++) {
            const uint32_t *x = tile + quad * TNF_TILE_WORDS;
            for (row = 0; row < TNF_TILE_ROWS; row++) {
                for (channel = 0; channel < TNF_TILE_CHANNELS; channel++) {
                    int32_t *sum = &sums[row * TNF_TILE_CHANNELS + channel];
                    *sum = tnf_smlad(x[2 * row], tnf_even_pair(weight[channel]), *sum);
                    *sum = tnf_smlad(x[2 * row + 1], tnf_odd_pair(weight[channel]), *sum);
                }
            }
            weight += TNF_TILE_CHANNELS;
        }
        sums += TNF_TILE_SUMS;
    }
}

#endif

#endif
