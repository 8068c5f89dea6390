/* What the kernels for cores with the DSP extension (Cortex-M4, M7, M33) are made of.
 *
 * Each function is given twice: by the core's instructions, and in plain C where there are none, so that the same kernels run and
 * are tested everywhere. TNF_NO_BUILTINS selects plain C on every core.
 *
 * Four int8 in a word become two pairs of int16 by SXTB16: bytes 0 and 2, and bytes 1 and 3 rotated down. What is multiplied by SMLAD
 * is stored such that both factors are taken apart into pairs that belong together.
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

/* For what is written once for both roundings: each of its callers has it for one. */
#if defined(__GNUC__)
#define TNF_INLINE __attribute__((always_inline)) static inline
#else
#define TNF_INLINE static inline
#endif

#if TNF_DSP_INSTRUCTIONS
/* Functions in assembly find their parameters in registers: gcc sees no use of them. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif

#if TNF_DSP_INSTRUCTIONS

typedef struct __attribute__((packed, may_alias)) {
    uint32_t word;
} tnf_unaligned_word;

/* Four bytes at any address; these cores load unaligned words. */
static inline uint32_t tnf_load4(const int8_t *x)
{
    return ((const tnf_unaligned_word *)(const void *)x)->word;
}

static inline void tnf_store4(int8_t *to, uint32_t bytes)
{
    ((tnf_unaligned_word *)(void *)to)->word = bytes;
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

/* The same pairs plus `add`, each half on its own. */
static inline uint32_t tnf_even_pair_plus(uint32_t add, uint32_t bytes)
{
    uint32_t pair;
    __asm__("sxtab16 %0, %1, %2" : "=r"(pair) : "r"(add), "r"(bytes));
    return pair;
}

static inline uint32_t tnf_odd_pair_plus(uint32_t add, uint32_t bytes)
{
    uint32_t pair;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(pair) : "r"(add), "r"(bytes));
    return pair;
}

/* The low halves of two words, the first lowest. */
static inline uint32_t tnf_low_halves(uint32_t first, uint32_t second)
{
    uint32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(first), "r"(second));
    return pair;
}

/* The high halves of two words, the first lowest. */
static inline uint32_t tnf_high_halves(uint32_t first, uint32_t second)
{
    uint32_t pair;
    __asm__("pkhtb %0, %2, %1, asr #16" : "=r"(pair) : "r"(first), "r"(second));
    return pair;
}

/* acc + the products of both halves. */
static inline int32_t tnf_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(acc) : "r"(a), "r"(b));
    return acc;
}

/* The larger, and the smaller, of each two signed bytes. */
static inline uint32_t tnf_max4(uint32_t a, uint32_t b)
{
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    return larger;
}

static inline uint32_t tnf_min4(uint32_t a, uint32_t b)
{
    uint32_t smaller;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %2, %1" : "=&r"(smaller) : "r"(a), "r"(b) : "cc");
    return smaller;
}

/* The low bytes of four words. */
static inline uint32_t tnf_pack4(int32_t b0, int32_t b1, int32_t b2, int32_t b3)
{
    uint32_t bytes = (uint32_t)b0;
    __asm__("bfi %0, %1, #8, #8\n\tbfi %0, %2, #16, #8\n\tbfi %0, %3, #24, #8" : "+&r"(bytes) : "r"(b1), "r"(b2), "r"(b3));
    return bytes;
}

/* The product's high word, added to acc. */
static inline int32_t tnf_smmla(int32_t a, int32_t b, int32_t acc)
{
    int32_t sum;
    __asm__("smmla %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
}

/* The product's high word, rounded to nearest (ties towards plus infinity), added to acc. */
static inline int32_t tnf_smmlar(int32_t a, int32_t b, int32_t acc)
{
    int32_t sum;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
}

static inline int32_t tnf_ssat8(int32_t v)
{
    int32_t saturated;
    __asm__("ssat %0, #8, %1" : "=r"(saturated) : "r"(v) : "cc");
    return saturated;
}

static inline int32_t tnf_ssat16(int32_t v)
{
    int32_t saturated;
    __asm__("ssat %0, #16, %1" : "=r"(saturated) : "r"(v) : "cc");
    return saturated;
}

/* The sum, saturated. */
static inline int32_t tnf_qadd(int32_t a, int32_t b)
{
    int32_t sum;
    __asm__("qadd %0, %1, %2" : "=r"(sum) : "r"(a), "r"(b) : "cc");
    return sum;
}

/* Both halves, signed, saturated to [0, 255]. */
static inline uint32_t tnf_usat8_pair(uint32_t pair)
{
    uint32_t saturated;
    __asm__("usat16 %0, #8, %1" : "=r"(saturated) : "r"(pair) : "cc");
    return saturated;
}

#else

static inline uint32_t tnf_load4(const int8_t *x)
{
    return (uint32_t)(uint8_t)x[0] | (uint32_t)(uint8_t)x[1] << 8 | (uint32_t)(uint8_t)x[2] << 16 | (uint32_t)(uint8_t)x[3] << 24;
}

static inline void tnf_store4(int8_t *to, uint32_t bytes)
{
    to[0] = (int8_t)(uint8_t)(bytes & 0xFFu);
    to[1] = (int8_t)(uint8_t)(bytes >> 8 & 0xFFu);
    to[2] = (int8_t)(uint8_t)(bytes >> 16 & 0xFFu);
    to[3] = (int8_t)(uint8_t)(bytes >> 24);
}

static inline uint32_t tnf_even_pair(uint32_t bytes)
{
    return (uint32_t)(uint16_t)(int8_t)(uint8_t)(bytes & 0xFFu) | (uint32_t)(uint16_t)(int8_t)(uint8_t)(bytes >> 16 & 0xFFu) << 16;
}

static inline uint32_t tnf_odd_pair(uint32_t bytes)
{
    return tnf_even_pair(bytes >> 8);
}

static inline uint32_t tnf_even_pair_plus(uint32_t add, uint32_t bytes)
{
    const uint32_t pair = tnf_even_pair(bytes);
    return ((pair + add) & 0xFFFFu) | ((pair & 0xFFFF0000u) + (add & 0xFFFF0000u));
}

static inline uint32_t tnf_odd_pair_plus(uint32_t add, uint32_t bytes)
{
    return tnf_even_pair_plus(add, bytes >> 8);
}

static inline uint32_t tnf_low_halves(uint32_t first, uint32_t second)
{
    return (first & 0xFFFFu) | second << 16;
}

static inline uint32_t tnf_high_halves(uint32_t first, uint32_t second)
{
    return first >> 16 | (second & 0xFFFF0000u);
}

static inline int32_t tnf_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    const int32_t low = (int32_t)(int16_t)(uint16_t)(a & 0xFFFFu) * (int32_t)(int16_t)(uint16_t)(b & 0xFFFFu);
    const int32_t high = (int32_t)(int16_t)(uint16_t)(a >> 16) * (int32_t)(int16_t)(uint16_t)(b >> 16);
    return acc + low + high;
}

static inline uint32_t tnf_pack4(int32_t b0, int32_t b1, int32_t b2, int32_t b3)
{
    return ((uint32_t)b0 & 0xFFu) | ((uint32_t)b1 & 0xFFu) << 8 | ((uint32_t)b2 & 0xFFu) << 16 | (uint32_t)b3 << 24;
}

static inline uint32_t tnf_max4(uint32_t a, uint32_t b)
{
    uint32_t larger = 0u;
    int32_t i;
    for (i = 0; i < 32; i += 8) {
        const int8_t x = (int8_t)(uint8_t)(a >> i & 0xFFu), y = (int8_t)(uint8_t)(b >> i & 0xFFu);
        larger |= (uint32_t)(uint8_t)(x > y ? x : y) << i;
    }
    return larger;
}

static inline uint32_t tnf_min4(uint32_t a, uint32_t b)
{
    return ~tnf_max4(~a, ~b);
}

static inline int32_t tnf_smmla(int32_t a, int32_t b, int32_t acc)
{
    return (int32_t)(((int64_t)a * b) >> 32) + acc;
}

static inline int32_t tnf_smmlar(int32_t a, int32_t b, int32_t acc)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32) + acc;
}

static inline int32_t tnf_ssat8(int32_t v)
{
    return tnf_clamp(v, -128, 127);
}

static inline int32_t tnf_ssat16(int32_t v)
{
    return tnf_sat16(v);
}

static inline int32_t tnf_qadd(int32_t a, int32_t b)
{
    return tnf_sat32((int64_t)a + b);
}

static inline uint32_t tnf_usat8_pair(uint32_t pair)
{
    const int32_t low = tnf_clamp((int16_t)(uint16_t)(pair & 0xFFFFu), 0, 255);
    const int32_t high = tnf_clamp((int16_t)(uint16_t)(pair >> 16), 0, 255);
    return (uint32_t)low | (uint32_t)high << 16;
}

#endif

/* Byte `index` of a word, a constant, sign-extended and added. */
static inline int32_t tnf_byte_plus(int32_t add, uint32_t bytes, int32_t index)
{
#if TNF_DSP_INSTRUCTIONS
    switch (index) {
    case 0:
        __asm__("sxtab %0, %1, %2" : "=r"(add) : "r"(add), "r"(bytes));
        break;
    case 1:
        __asm__("sxtab %0, %1, %2, ror #8" : "=r"(add) : "r"(add), "r"(bytes));
        break;
    case 2:
        __asm__("sxtab %0, %1, %2, ror #16" : "=r"(add) : "r"(add), "r"(bytes));
        break;
    default:
        __asm__("sxtab %0, %1, %2, ror #24" : "=r"(add) : "r"(add), "r"(bytes));
        break;
    }
    return add;
#else
    return add + (int8_t)(uint8_t)(bytes >> 8 * index & 0xFFu);
#endif
}

/* Byte `index` of a word, sign-extended. */
static inline int32_t tnf_byte(uint32_t bytes, int32_t index)
{
    return (int8_t)(uint8_t)(bytes >> 8 * index & 0xFFu);
}

/* A byte in each of four. */
static inline uint32_t tnf_repeat4(int32_t byte)
{
    return ((uint32_t)byte & 0xFFu) * 0x01010101u;
}

/* Each of four bytes clamped to those of lo and hi. */
static inline uint32_t tnf_clamp4(uint32_t bytes, uint32_t lo, uint32_t hi)
{
    return tnf_min4(tnf_max4(bytes, lo), hi);
}

/* y[i] = table[x[i] + 128]. */
TNF_OWN_FUNCTION void tnf_lookup_bytes(const int8_t *table, const int8_t *x, int8_t *y, int32_t n)
{
    table += 128;
    for (; n >= 8; n -= 8) {
        const uint32_t a = tnf_load4(x), b = tnf_load4(x + 4);
        const int32_t a0 = table[tnf_byte(a, 0)], a1 = table[tnf_byte(a, 1)], a2 = table[tnf_byte(a, 2)], a3 = table[tnf_byte(a, 3)];
        const int32_t b0 = table[tnf_byte(b, 0)], b1 = table[tnf_byte(b, 1)], b2 = table[tnf_byte(b, 2)], b3 = table[tnf_byte(b, 3)];
        tnf_store4(y, tnf_pack4(a0, a1, a2, a3));
        tnf_store4(y + 4, tnf_pack4(b0, b1, b2, b3));
        x += 8;
        y += 8;
    }
    for (; n > 0; n--) {
        *y++ = table[*x++];
    }
}

/* n bytes clamped to [lo, hi]. */
TNF_OWN_FUNCTION void tnf_clamp_bytes(int8_t *y, int32_t n, int32_t lo, int32_t hi)
{
    const uint32_t least = tnf_repeat4(lo), most = tnf_repeat4(hi);
    for (; n >= 4; n -= 4) {
        tnf_store4(y, tnf_clamp4(tnf_load4(y), least, most));
        y += 4;
    }
    for (; n > 0; n--) {
        *y = (int8_t)tnf_clamp(*y, lo, hi);
        y++;
    }
}

/* How an element-wise operator goes over its two inputs: the fields of tnf_add_dsp_params (kernels.h) of the same names. */
typedef struct {
    int32_t rows, n;
    int32_t a_row, a_step;
    int32_t b_row, b_step;
} tnf_element_rows;

/* The operator on n elements of each input. */
typedef void tnf_elements(const void *params, const int8_t *a, const int8_t *b, int8_t *y, int32_t n);

#define TNF_SAME_ELEMENTS 64

TNF_OWN_FUNCTION void tnf_by_rows(tnf_element_rows walk, tnf_elements *run, const void *params, const int8_t *a, const int8_t *b,
                                  int8_t *y)
{
    const int32_t most = walk.a_step == 0 || walk.b_step == 0 ? TNF_SAME_ELEMENTS : walk.n;
    int32_t row, first, i;
    for (row = 0; row < walk.rows; row++) {
        int8_t same[TNF_SAME_ELEMENTS]; /* of the input that gives one element to the whole row */
        for (i = 0; (walk.a_step == 0 || walk.b_step == 0) && i < TNF_SAME_ELEMENTS; i++) {
            same[i] = walk.a_step == 0 ? *a : *b;
        }
        for (first = 0; first < walk.n; first += most) {
            const int32_t n = walk.n - first < most ? walk.n - first : most;
            run(params, walk.a_step == 0 ? same : a + first, walk.b_step == 0 ? same : b + first, y + first, n);
        }
        if (row + 1 < walk.rows) { /* else the pointers would leave the tensors */
            a += walk.a_row;
            b += walk.b_row;
            y += walk.n;
        }
    }
}

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
    return tnf_smmla(v, scale.multiplier, scale.offset) >> scale.right;
}

/* Double rounding likewise, -23 <= shift <= -1. The multiplier is at least 2^30, and twice it less 2^32 a word: v times that, its high
 * word rounded, and v are srdhm(v, multiplier), whatever v is. Ties go away from zero where 1 is taken from what is negative. A sum
 * with the offset that would not fit gives more than any int8 after the shift, saturated or not. */
static inline tnf_quick_scale tnf_double_scale_of(int32_t multiplier, int32_t shift, int32_t zero_point)
{
    tnf_quick_scale scale;
    scale.multiplier = (int32_t)((uint32_t)multiplier << 1);
    scale.right = -shift;
    scale.offset = (int32_t)(((uint32_t)1 << (scale.right - 1)) + ((uint32_t)zero_point << scale.right));
    return scale;
}

static inline int32_t tnf_double_requantize(int32_t v, tnf_quick_scale scale)
{
    const int32_t product = tnf_smmlar(v, scale.multiplier, v);
    return tnf_qadd(product + (product >> 31), scale.offset) >> scale.right;
}

/* Whether the quick last step of a rounding serves a shift, and that step. */
static inline int32_t tnf_is_quick(int32_t shift, int32_t rounding)
{
    return (uint32_t)(shift + 23) < (rounding == TNF_ROUNDING_DOUBLE ? 23u : 22u); /* -23 to -1 or -2 */
}

static inline tnf_quick_scale tnf_scale_of(int32_t multiplier, int32_t shift, int32_t zero_point, int32_t rounding)
{
    return rounding == TNF_ROUNDING_DOUBLE ? tnf_double_scale_of(multiplier, shift, zero_point)
                                           : tnf_quick_scale_of(multiplier, shift, zero_point);
}

static inline int32_t tnf_scaled(int32_t v, tnf_quick_scale scale, int32_t rounding)
{
    return rounding == TNF_ROUNDING_DOUBLE ? tnf_double_requantize(v, scale) : tnf_quick_requantize(v, scale);
}

/* ---- tiles: dense products of rows of activations with channels of weights ---- */

/* A tile holds TNF_TILE_ROWS rows of activations as pairs of int16: words [quads][2][TNF_TILE_ROWS], of each four columns the even
 * pairs of all rows and then the odd ones. Weights come in words [pairs of channels][quads][2]: of four taps k and two channels,
 * bytes (k = 0, 2 of both channels) and (k = 1, 3 of both), the channel running fastest. So SXTB16 gives one channel's pair, and
 * with a rotation the other's, of the very taps that a word of the tile holds. Columns and channels that are missing from the
 * last quad and the last pair have weight 0. */
#define TNF_TILE_ROWS 4
#define TNF_TILE_CHANNELS 2
/* Words of a tile for each four columns. */
#define TNF_TILE_WORDS (2 * TNF_TILE_ROWS)

/* Four bytes into a tile's row: even and odd pair, each with `add` added to both halves. */
static inline void tnf_tile_quad(uint32_t *to, int32_t rows, uint32_t bytes, uint32_t add)
{
    to[0] = tnf_even_pair_plus(add, bytes);
    to[rows] = tnf_odd_pair_plus(add, bytes);
}

static inline void tnf_tile_row_of(uint32_t *to, int32_t rows, const int8_t *x, int32_t n, int32_t zero_point)
{
    const uint32_t add = (uint32_t)(uint16_t)(-zero_point) * 0x10001u;
    for (; n >= 8; n -= 8) {
        const uint32_t first = tnf_load4(x);
        const uint32_t second = tnf_load4(x + 4);
        tnf_tile_quad(to, rows, first, add);
        tnf_tile_quad(to + 2 * rows, rows, second, add);
        to += 4 * rows;
        x += 8;
    }
    if (n >= 4) {
        tnf_tile_quad(to, rows, tnf_load4(x), add);
        to += 2 * rows;
        x += 4;
        n -= 4;
    }
    if (n > 0) {
        int8_t rest[4];
        int32_t i;
        for (i = 0; i < 4; i++) {
            rest[i] = i < n ? x[i] : (int8_t)zero_point;
        }
        tnf_tile_quad(to, rows, tnf_load4(rest), add);
    }
}

/* A row of `n` bytes less `zero_point` into a tile of `rows` rows, TNF_TILE_ROWS or 1. The last quad is filled up with 0. */
TNF_OWN_FUNCTION void tnf_tile_row(uint32_t *to, int32_t rows, const int8_t *x, int32_t n, int32_t zero_point)
{
    if (rows == 1) {
        tnf_tile_row_of(to, 1, x, n, zero_point);
    } else {
        tnf_tile_row_of(to, TNF_TILE_ROWS, x, n, zero_point);
    }
}

/* The last step of a tile's sums where the quick one serves and any int8 may result. channel [channels][3]: bias, multiplier, shift. */
typedef struct {
    int8_t *y; /* the first channel in the tile's first row; rows are `stride` apart */
    int32_t stride;
    const int32_t *channel;
    int32_t doubled; /* the zero point, twice, and one: shifted by one less than the last step's shift it is its offset */
    int32_t rounding;
} tnf_tile_last_step;

/* The sums of a tile's rows times the channels of `pairs` pairs: sums [2 * pairs][TNF_TILE_ROWS]. Where `last` is not NULL, none are
 * stored but the bytes that they become; y and channel have then moved on behind them. */
#if TNF_DSP_INSTRUCTIONS

/* Registers: r4-r7 the sums of the first channel, r8-r11 of the second, r1 the tile, r2 the weights, r12 and lr the weights' pairs,
 * r0 and r3 those of two rows. A step takes two taps, whose weights and first two rows are loaded; it loads the last two rows
 * and what the next step needs. */
#if defined(TNF_DUAL_ISSUE) /* a load issues together with a SMLAD */
#define TNF_TILE_STEP(third, fourth, next_weight, next_first, next_second) \
    "sxtb16 lr, r12, ror #8\n\t"                                           \
    "sxtb16 r12, r12\n\t"                                                  \
    "smlad r8, r0, lr, r8\n\t"                                             \
    "smlad r4, r0, r12, r4\n\t"                                            \
    third                                                                  \
    "smlad r5, r3, r12, r5\n\t"                                            \
    "smlad r9, r3, lr, r9\n\t"                                             \
    fourth                                                                 \
    "smlad r6, r0, r12, r6\n\t"                                            \
    "smlad r7, r3, r12, r7\n\t"                                            \
    next_weight                                                            \
    "smlad r10, r0, lr, r10\n\t"                                           \
    next_first                                                             \
    "smlad r11, r3, lr, r11\n\t"                                           \
    next_second
#else /* a load takes one cycle less after another */
#define TNF_TILE_STEP(third, fourth, next_weight, next_first, next_second) \
    "sxtb16 lr, r12, ror #8\n\t"                                           \
    "sxtb16 r12, r12\n\t"                                                  \
    "smlad r4, r0, r12, r4\n\t"                                            \
    "smlad r8, r0, lr, r8\n\t"                                             \
    "smlad r5, r3, r12, r5\n\t"                                            \
    "smlad r9, r3, lr, r9\n\t"                                             \
    third                                                                  \
    fourth                                                                 \
    "smlad r6, r0, r12, r6\n\t"                                            \
    "smlad r10, r0, lr, r10\n\t"                                           \
    "smlad r7, r3, r12, r7\n\t"                                            \
    "smlad r11, r3, lr, r11\n\t"                                           \
    next_weight                                                            \
    next_first                                                             \
    next_second
#endif
#define TNF_TILE_LOAD(to, from, offset) "ldr.w " #to ", [" #from ", #" offset "]\n\t"

/* The sums of a channel, whose parameters r0 points to, become bytes. */
#define TNF_TILE_FINISH(s0, s1, s2, s3)             \
    "ldm r0!, {r1, r2, r3}\n\t"                     \
    "add " #s0 ", r1\n\t"                           \
    "mvn r3, r3\n\t"                                \
    "add " #s1 ", r1\n\t"                           \
    "add " #s2 ", r1\n\t"                           \
    "add " #s3 ", r1\n\t"                           \
    "sub r1, r3, #1\n\t"                            \
    "lsl r1, r12, r1\n\t"                           \
    "smmla " #s0 ", " #s0 ", r2, r1\n\t"            \
    "smmla " #s1 ", " #s1 ", r2, r1\n\t"            \
    "asr " #s0 ", " #s0 ", r3\n\t"                  \
    "smmla " #s2 ", " #s2 ", r2, r1\n\t"            \
    "asr " #s1 ", " #s1 ", r3\n\t"                  \
    "smmla " #s3 ", " #s3 ", r2, r1\n\t"            \
    "asr " #s2 ", " #s2 ", r3\n\t"                  \
    "ssat " #s0 ", #8, " #s0 "\n\t"                 \
    "asr " #s3 ", " #s3 ", r3\n\t"                  \
    "ssat " #s1 ", #8, " #s1 "\n\t"                 \
    "ssat " #s2 ", #8, " #s2 "\n\t"                 \
    "ssat " #s3 ", #8, " #s3 "\n\t"

/* The same with double rounding: tnf_double_requantize. */
#define TNF_TILE_FINISH_DOUBLE(s0, s1, s2, s3)      \
    "ldm r0!, {r1, r2, r3}\n\t"                     \
    "add " #s0 ", r1\n\t"                           \
    "lsl r2, r2, #1\n\t"                            \
    "add " #s1 ", r1\n\t"                           \
    "rsb r3, r3, #0\n\t"                            \
    "smmlar " #s0 ", " #s0 ", r2, " #s0 "\n\t"      \
    "add " #s2 ", r1\n\t"                           \
    "smmlar " #s1 ", " #s1 ", r2, " #s1 "\n\t"      \
    "add " #s3 ", r1\n\t"                           \
    "sub r1, r3, #1\n\t"                            \
    "smmlar " #s2 ", " #s2 ", r2, " #s2 "\n\t"      \
    "lsl r1, r12, r1\n\t"                           \
    "smmlar " #s3 ", " #s3 ", r2, " #s3 "\n\t"      \
    "add " #s0 ", " #s0 ", " #s0 ", asr #31\n\t"    \
    "qadd " #s0 ", " #s0 ", r1\n\t"                 \
    "add " #s1 ", " #s1 ", " #s1 ", asr #31\n\t"    \
    "qadd " #s1 ", " #s1 ", r1\n\t"                 \
    "add " #s2 ", " #s2 ", " #s2 ", asr #31\n\t"    \
    "qadd " #s2 ", " #s2 ", r1\n\t"                 \
    "add " #s3 ", " #s3 ", " #s3 ", asr #31\n\t"    \
    "qadd " #s3 ", " #s3 ", r1\n\t"                 \
    "asr " #s0 ", " #s0 ", r3\n\t"                  \
    "asr " #s1 ", " #s1 ", r3\n\t"                  \
    "asr " #s2 ", " #s2 ", r3\n\t"                  \
    "ssat " #s0 ", #8, " #s0 "\n\t"                 \
    "asr " #s3 ", " #s3 ", r3\n\t"                  \
    "ssat " #s1 ", #8, " #s1 "\n\t"                 \
    "ssat " #s2 ", #8, " #s2 "\n\t"                 \
    "ssat " #s3 ", #8, " #s3 "\n\t"

/* The loop takes four quads, 120 bytes of instructions each; where the number of quads is no multiple of four, it is entered behind
 * those that are missing. On the stack: where the pair's weights end, sums, tile, bytes of weights that are missing, bytes of
 * weights of a pair with those, where the loop is entered, where all weights end; `last` is above. */
__attribute__((naked, noinline, unused)) static void tnf_tile_sums(int32_t *sums, const uint32_t *tile, const uint32_t *weight,
                                                                   int32_t quads, int32_t pairs, tnf_tile_last_step *last)
{
    __asm__("push {r4-r11, lr}\n\t"
            "ldr r8, [sp, #36]\n\t" /* pairs */
            "mul r8, r8, r3\n\t"
            "add r8, r2, r8, lsl #3\n\t"
            "rsb r4, r3, #0\n\t"
            "and r4, r4, #3\n\t"
            "add r6, r3, r4\n\t"
            "lsl r6, r6, #3\n\t"
            "adr.w r7, 3f\n\t"
            "mov r5, #120\n\t"
            "mla r7, r4, r5, r7\n\t"
            "add r7, r7, #1\n\t" /* Thumb */
            "lsl r5, r4, #3\n\t"
            "mov r4, r1\n\t"
            "mov r3, r0\n\t"
            "push {r2-r8}\n\t"
            "1:\n\t" /* a pair of channels */
            "ldr r1, [sp, #8]\n\t"
            "ldr r4, [sp, #12]\n\t"
            "ldr r5, [sp, #16]\n\t"
            "ldr r12, [r2]\n\t"
            "ldr r0, [r1]\n\t"
            "ldr r3, [r1, #4]\n\t"
            "sub r2, r2, r4\n\t"
            "add r5, r5, r2\n\t"
            "str r5, [sp]\n\t"
            "sub r1, r1, r4, lsl #2\n\t"
            "movs r4, #0\n\t"
            "movs r5, #0\n\t"
            "movs r6, #0\n\t"
            "movs r7, #0\n\t"
            "mov r8, #0\n\t"
            "mov r9, #0\n\t"
            "mov r10, #0\n\t"
            "mov r11, #0\n\t"
            "ldr pc, [sp, #20]\n\t"
            ".p2align 2\n\t"
            "2:\n\t"
            TNF_TILE_LOAD(r12, r2, "0") TNF_TILE_LOAD(r0, r1, "0") TNF_TILE_LOAD(r3, r1, "4")
            "3:\n\t"
            ".irp step, 0, 1, 2, 3, 4, 5, 6\n\t"
            TNF_TILE_STEP(TNF_TILE_LOAD(r0, r1, "16*\\step+8"), TNF_TILE_LOAD(r3, r1, "16*\\step+12"),
                          TNF_TILE_LOAD(r12, r2, "4*\\step+4"), TNF_TILE_LOAD(r0, r1, "16*\\step+16"),
                          TNF_TILE_LOAD(r3, r1, "16*\\step+20"))
            ".endr\n\t"
            TNF_TILE_STEP(TNF_TILE_LOAD(r0, r1, "120"), TNF_TILE_LOAD(r3, r1, "124"), "", "ldr r0, [sp]\n\t", "add r2, #32\n\t")
            "add r1, #128\n\t"
            "cmp r2, r0\n\t"
            "bne 2b\n\t"
            "ldr lr, [sp, #68]\n\t"
            "cmp lr, #0\n\t"
            "bne 4f\n\t"
            "ldr r0, [sp, #4]\n\t"
            "ldr r12, [sp, #24]\n\t"
            "stm r0!, {r4-r11}\n\t"
            "cmp r2, r12\n\t"
            "str r0, [sp, #4]\n\t"
            "bne 1b\n\t"
            "b 7f\n\t"
            "4:\n\t"
            "ldr r1, [lr, #16]\n\t"
            "ldr r12, [lr, #12]\n\t"
            "ldr r0, [lr, #8]\n\t"
            "cmp r1, #0\n\t"
            "bne 6f\n\t"
            TNF_TILE_FINISH(r4, r5, r6, r7)
            TNF_TILE_FINISH(r8, r9, r10, r11)
            "5:\n\t" /* bytes are stored */
            "str r0, [lr, #8]\n\t"
            "ldr r0, [lr]\n\t"
            "ldr r1, [lr, #4]\n\t"
            "ldr r2, [sp]\n\t" /* the next pair's weights */
            "ldr r12, [sp, #24]\n\t"
            "add r3, r0, r1\n\t"
            "strb r4, [r0]\n\t"
            "strb r8, [r0, #1]\n\t"
            "strb r5, [r3]\n\t"
            "strb r9, [r3, #1]\n\t"
            "add r3, r3, r1\n\t"
            "add r0, r0, #2\n\t"
            "strb r6, [r3]\n\t"
            "strb r10, [r3, #1]\n\t"
            "add r3, r3, r1\n\t"
            "cmp r2, r12\n\t"
            "strb r7, [r3]\n\t"
            "strb r11, [r3, #1]\n\t"
            "str r0, [lr]\n\t"
            "bne 1b\n\t"
            "7:\n\t"
            "add sp, #28\n\t"
            "pop {r4-r11, pc}\n\t"
            "6:\n\t" /* double rounding */
            TNF_TILE_FINISH_DOUBLE(r4, r5, r6, r7)
            TNF_TILE_FINISH_DOUBLE(r8, r9, r10, r11)
            "b 5b\n\t");
}

#undef TNF_TILE_STEP
#undef TNF_TILE_LOAD
#undef TNF_TILE_FINISH
#undef TNF_TILE_FINISH_DOUBLE

#else

static inline void tnf_tile_sums(int32_t *sums, const uint32_t *tile, const uint32_t *weight, int32_t quads, int32_t pairs,
                                 tnf_tile_last_step *last)
{
    int32_t channel, step, row;
    for (channel = 0; channel < TNF_TILE_CHANNELS * pairs; channel++) {
        const uint32_t *x = tile, *w = weight + channel / TNF_TILE_CHANNELS * 2 * quads;
        int32_t own[TNF_TILE_ROWS] = {0, 0, 0, 0};
        for (step = 0; step < 2 * quads; step++) {
            const uint32_t pair = channel % TNF_TILE_CHANNELS == 0 ? tnf_even_pair(w[step]) : tnf_odd_pair(w[step]);
            for (row = 0; row < TNF_TILE_ROWS; row++) {
                own[row] = tnf_smlad(*x++, pair, own[row]);
            }
        }
        if (last == 0) {
            for (row = 0; row < TNF_TILE_ROWS; row++) {
                *sums++ = own[row];
            }
        } else {
            const tnf_quick_scale scale = tnf_scale_of(last->channel[1], last->channel[2], last->doubled >> 1, last->rounding);
            for (row = 0; row < TNF_TILE_ROWS; row++) {
                last->y[row * last->stride] = (int8_t)tnf_ssat8(tnf_scaled(own[row] + last->channel[0], scale, last->rounding));
            }
            last->channel += 3;
            last->y++;
        }
    }
}

#endif

/* The same for a tile of one row, two pairs at a time: sums [2 * pairs], and two more where their number is odd. */
TNF_OWN_FUNCTION void tnf_row_sums(int32_t *sums, const uint32_t *row, const uint32_t *weight, int32_t quads, int32_t pairs)
{
    const uint32_t *end = row + 2 * quads;
    for (; pairs > 0; pairs -= 2) {
        const uint32_t *x = row, *other = pairs == 1 ? weight : weight + 2 * quads;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        do {
            uint32_t pair = x[0], a = weight[0], b = other[0];
            s0 = tnf_smlad(pair, tnf_even_pair(a), s0);
            s1 = tnf_smlad(pair, tnf_odd_pair(a), s1);
            s2 = tnf_smlad(pair, tnf_even_pair(b), s2);
            s3 = tnf_smlad(pair, tnf_odd_pair(b), s3);
            pair = x[1];
            a = weight[1];
            b = other[1];
            s0 = tnf_smlad(pair, tnf_even_pair(a), s0);
            s1 = tnf_smlad(pair, tnf_odd_pair(a), s1);
            s2 = tnf_smlad(pair, tnf_even_pair(b), s2);
            s3 = tnf_smlad(pair, tnf_odd_pair(b), s3);
            x += 2;
            weight += 2;
            other += 2;
        } while (x != end);
        weight = other;
        sums[0] = s0;
        sums[1] = s1;
        sums[2] = s2;
        sums[3] = s3;
        sums += 4;
    }
}

/* Pairs of channels between two visits to a tile's sums: few enough for the stack. */
#define TNF_TILE_PAIRS 8

/* Channels of weights, in the tile's order, and how their sums become bytes; channel as in tnf_tile_last_step. `stride` bytes are from
 * one row of the output to the next. `quick` tells that the quick last step serves all channels; otherwise each is asked. */
typedef struct {
    const uint32_t *weight;
    const int32_t *channel;
    int32_t quads, channels, stride;
    int32_t zero_point, act_min, act_max;
    int32_t rounding, quick;
} tnf_tile_layer;

/* The last step of the first `rows` rows of sums [channels][tile_rows]. */
TNF_OWN_FUNCTION void tnf_tile_finish(const tnf_tile_layer *layer, const int32_t *channel, int32_t channels, const int32_t *sums,
                                      int8_t *y, int32_t rows, int32_t tile_rows)
{
    const int32_t *end = channel + 3 * channels;
    int32_t row;
    for (; channel != end; channel += 3) {
        for (row = 0; row < rows; row++) {
            y[row * layer->stride] = tnf_requantize_to_int8(sums[row] + channel[0], channel[1], channel[2], layer->rounding,
                                                            layer->zero_point, layer->act_min, layer->act_max);
        }
        sums += tile_rows;
        y++;
    }
}

/* Whether the quick last step serves both channels of a pair. */
static inline int32_t tnf_is_quick_pair(const tnf_tile_layer *layer, const int32_t *channel)
{
    return tnf_is_quick(channel[2], layer->rounding) && tnf_is_quick(channel[5], layer->rounding);
}

/* How many of the next `pairs` pairs the quick last step serves, or serves not: those before the first that differs. */
TNF_OWN_FUNCTION int32_t tnf_alike_pairs(const tnf_tile_layer *layer, const int32_t *channel, int32_t pairs, int32_t quick)
{
    int32_t n = 0;
    for (; n < pairs && tnf_is_quick_pair(layer, channel) == quick; n++) {
        channel += 3 * TNF_TILE_CHANNELS;
    }
    return n;
}

/* Every channel of the first `rows` rows of a tile: y [rows][channels]. A single row is a tile of one. The pairs of channels of a whole tile
 * that the quick last step serves become bytes at once. */
TNF_OWN_FUNCTION void tnf_tile_outputs(const tnf_tile_layer *layer, const uint32_t *tile, int32_t rows, int8_t *y)
{
    const int32_t whole = rows == TNF_TILE_ROWS;
    const uint32_t *weight = layer->weight;
    const int32_t *channel = layer->channel;
    int32_t left = layer->channels, row;
    while (left > 0) {
        int32_t pairs = left / TNF_TILE_CHANNELS, channels = left;
        int32_t quick = whole && pairs > 0;
        if (quick > layer->quick) {
            quick = tnf_is_quick_pair(layer, channel);
            pairs = tnf_alike_pairs(layer, channel, pairs, quick);
            channels = TNF_TILE_CHANNELS * pairs;
        }
        if (quick != 0) {
            tnf_tile_last_step last;
            last.y = y;
            last.stride = layer->stride;
            last.channel = channel;
            last.doubled = 2 * layer->zero_point + 1;
            last.rounding = layer->rounding;
            tnf_tile_sums(0, tile, weight, layer->quads, pairs, &last);
            channels = TNF_TILE_CHANNELS * pairs;
            if (layer->act_min > -128 || layer->act_max < 127) {
                for (row = 0; row < TNF_TILE_ROWS; row++) {
                    tnf_clamp_bytes(y + row * layer->stride, channels, layer->act_min, layer->act_max);
                }
            }
        } else {
            int32_t sums[TNF_TILE_PAIRS * TNF_TILE_CHANNELS * TNF_TILE_ROWS];
            channels = channels < TNF_TILE_CHANNELS * TNF_TILE_PAIRS ? channels : TNF_TILE_CHANNELS * TNF_TILE_PAIRS;
            pairs = (channels + 1) / TNF_TILE_CHANNELS;
            if (rows == 1) {
                tnf_row_sums(sums, tile, weight, layer->quads, pairs);
            } else {
                tnf_tile_sums(sums, tile, weight, layer->quads, pairs, 0);
            }
            tnf_tile_finish(layer, channel, channels, sums, y, rows, rows == 1 ? 1 : TNF_TILE_ROWS);
        }
        weight += pairs * 2 * layer->quads;
        channel += 3 * channels;
        y += channels;
        left -= channels;
    }
}

#endif
