/* The primitives of docs/numerics.md, each written once, and the few inner loops that several kernels share.
 *
 * C99 without libc and without undefined behaviour. Two things that C99 leaves to the implementation are relied on, both as every
 * compiler for these targets (gcc, clang and their relatives) defines them: `>>` of a negative number is arithmetic (floor), and
 * converting an out-of-range uint32_t to int32_t keeps the bits. Negative numbers are never shifted left: they are multiplied.
 */
#ifndef TINYFORMER_NUMERICS_H
#define TINYFORMER_NUMERICS_H

#include <stdint.h>

#include "tinyformer/kernels.h"

/* ---- saturation ---- */

static inline int32_t tnf_clamp(int32_t v, int32_t lo, int32_t hi)
{
    return v < lo ? lo : (v > hi ? hi : v);
}

static inline int32_t tnf_sat16(int32_t v)
{
    return tnf_clamp(v, -32768, 32767);
}

static inline int32_t tnf_sat32(int64_t v)
{
    return v < INT32_MIN ? INT32_MIN : (v > INT32_MAX ? INT32_MAX : (int32_t)v);
}

/* ---- fixed-point products and rounding divisions ---- */

/* srdhm of a and b that are not both -2^31, as no kernel has them. The contract's nudge and truncating division are together floor((ab + 2^30) / 2^31). */
static inline int32_t tnf_srdhm_unsaturated(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* v / 2^n rounded to nearest, ties away from zero; 0 <= n <= 31. */
static inline int32_t tnf_rdbpot(int32_t v, int32_t n)
{
    const int32_t mask = (int32_t)(((uint32_t)1 << n) - 1u);
    const int32_t threshold = (mask >> 1) + (v < 0);
    return (v >> n) + ((v & mask) > threshold);
}

/* tnf_rdbpot of a number that is not negative; 1 <= n <= 31. */
static inline int32_t tnf_rdbpot_unsigned(uint32_t v, int32_t n)
{
    return (int32_t)((v >> n) + ((v >> (n - 1)) & 1u));
}

/* (v * m + 2^(31 + n)) >> (32 + n) for 1 <= n <= 30: single rounding where the shift leaves the low word without influence. */
static inline int32_t tnf_multiply_high(int32_t v, int32_t m, int32_t n)
{
    const int32_t high = (int32_t)(((int64_t)v * m) >> 32);
    return (high + ((int32_t)1 << (n - 1))) >> n;
}

/* v * multiplier * 2^(shift - 31), rounded in the given mode. The builder has proven that nothing overflows. */
static inline int32_t tnf_requantize_value(int32_t v, int32_t multiplier, int32_t shift, int32_t rounding)
{
    if (rounding == TNF_ROUNDING_DOUBLE) {
        const int32_t left = shift > 0 ? shift : 0;
        return tnf_rdbpot(tnf_srdhm_unsaturated(v * ((int32_t)1 << left), multiplier), left - shift);
    }
    if (shift < -1) {
        return tnf_multiply_high(v, multiplier, -1 - shift);
    }
    return (int32_t)(((int64_t)v * multiplier + ((int64_t)1 << (30 - shift))) >> (31 - shift));
}

/* Requantised, moved to the zero point and clamped: how every requantising operator ends. */
static inline int8_t tnf_requantize_to_int8(int32_t v, int32_t multiplier, int32_t shift, int32_t rounding, int32_t zero_point,
                                            int32_t lo, int32_t hi)
{
    return (int8_t)tnf_clamp(tnf_requantize_value(v, multiplier, shift, rounding) + zero_point, lo, hi);
}

/* ---- bits, roots and reciprocals ---- */

/* Leading zeros of a 32-bit word; 32 for 0. TNF_NO_BUILTINS selects the portable form. */
static inline int32_t tnf_leading_zeros(uint32_t v)
{
#if defined(__GNUC__) && !defined(TNF_NO_BUILTINS)
    return v == 0u ? 32 : (int32_t)__builtin_clz((unsigned int)v);
#else
    int32_t n = 32;
    int32_t step;
    for (step = 16; step > 0; step >>= 1) {
        if (v >> step != 0u) {
            v >>= step;
            n -= step;
        }
    }
    return n - (int32_t)v;
#endif
}

static inline int32_t tnf_leading_zeros64(uint64_t v)
{
    const uint32_t high = (uint32_t)(v >> 32);
    return high != 0u ? tnf_leading_zeros(high) : 32 + tnf_leading_zeros((uint32_t)v);
}

/* The largest r with r * r <= v, for every v. With v scaled by a power of four so that one of its top two bits is set, the high word's
 * root takes two of Newton's steps, and one division gives the lower half, at most one too large (Zimmermann's Karatsuba root). */
static inline uint32_t tnf_isqrt(uint64_t v)
{
    const int32_t scale = tnf_leading_zeros64(v) & ~1;
    uint32_t high, low, dividend, quotient, remainder, root;
    if (v == 0u) {
        return 0u;
    }
    v <<= scale;
    high = (uint32_t)(v >> 32);
    low = (uint32_t)v;
    /* The tangent to the root at (3 * 2^14)^2 is 8 % too large at most, and what Newton's steps make of it one at most: tried for every
     * high word. */
    root = 24576u + ((high >> 16) * 43691u >> 16);
    root = (root + high / root) >> 1;
    root = (root + high / root) >> 1;
    if (root > 0xFFFFu || root * root > high) {
        root -= 1u;
    }
    remainder = high - root * root;
    /* Dividing by 2 * root: both sides are halved to stay within 32 bits (remainder <= 2 * root < 2^17). */
    dividend = (remainder << 15) + (low >> 17);
    quotient = dividend / root;
    remainder = (dividend - quotient * root) * 2u + ((low >> 16) & 1u);
    root = (root << 16) + quotient; /* may pass 2^32 by one, which the correction below takes back */
    if ((((uint64_t)remainder << 16) | (low & 0xFFFFu)) < (uint64_t)quotient * quotient) {
        root -= 1u;
    }
    return root >> (scale >> 1);
}

/* floor(2^61 / s) for 2^30 <= s < 2^31, as floor(2^62 / 2s) by schoolbook division in digits of 16 bits (no 64-bit division). */
static inline uint32_t tnf_divide_2_61(uint32_t s)
{
    const uint32_t divisor = s << 1;
    const uint32_t high = divisor >> 16;
    const uint32_t low = divisor & 0xFFFFu;
    uint32_t upper, lower, rest;
    upper = ((uint32_t)1 << 30) / high;
    rest = ((uint32_t)1 << 30) - upper * high;
    while (rest < 0x10000u && upper * low > rest << 16) {
        upper -= 1u;
        rest += high;
    }
    rest = 0u - upper * divisor; /* 2^46 - upper * divisor, modulo 2^32: it is below divisor */
    lower = rest / high;
    rest -= lower * high;
    while (rest < 0x10000u && (lower > 0xFFFFu || lower * low > rest << 16)) {
        lower -= 1u;
        rest += high;
    }
    return (upper << 16) + lower;
}

/* e^a for a <= 0 in Q5.26, as Q0.31. */
static inline int32_t tnf_exp_negative(int32_t a)
{
    static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    int32_t quarter, x, x2, x3, x4, u, e, i;
    uint32_t rest;
    if (a == 0) {
        return INT32_MAX;
    }
    quarter = (int32_t)((uint32_t)a & 0xFFFFFFu) - ((int32_t)1 << 24);
    x = quarter * 32 + ((int32_t)1 << 28);
    x2 = tnf_srdhm_unsaturated(x, x);
    x3 = tnf_srdhm_unsaturated(x2, x);
    x4 = tnf_srdhm_unsaturated(x2, x2);
    u = tnf_rdbpot(tnf_srdhm_unsaturated(tnf_rdbpot(x4, 2) + x3, 715827883) + x2, 1);
    e = 1895147668 + tnf_srdhm_unsaturated(1895147668, x + u);
    rest = ((uint32_t)quarter - (uint32_t)a) >> 24;
    for (i = 0; i < 7; i++) {
        if ((rest >> i) & 1u) {
            e = tnf_srdhm_unsaturated(e, factors[i]);
        }
    }
    return e;
}

/* How LayerNorm turns a row's (n * x - sum) into h: ((d * prescale) * reciprocal + 2^(31 + right)) >> (32 + right). */
typedef struct {
    int32_t sum, prescale, reciprocal, right;
} tnf_layernorm_scale;

/* From a row's sum and sum of squares; the 64-bit epsilon is epsilon_high * 2^32 + epsilon_low (low word unsigned). */
static inline void tnf_layernorm_scale_of(tnf_layernorm_scale *out, int32_t sum, int32_t squares, int32_t n, int32_t scale_bits,
                                          int32_t epsilon_low, int32_t epsilon_high)
{
    const uint64_t epsilon = (uint64_t)(uint32_t)epsilon_high << 32 | (uint32_t)epsilon_low;
    const uint64_t v = (uint64_t)((int64_t)n * squares - (int64_t)sum * sum) + epsilon;
    int32_t pairs, t;
    uint32_t reciprocal;
    out->sum = sum;
    out->prescale = 1;
    out->reciprocal = 0; /* h = 0 whatever x is */
    out->right = 1;
    if (v == 0u) {
        return;
    }
    pairs = (tnf_leading_zeros64(v) - 2) >> 1; /* floor((61 - L) / 2), L = 63 - leading zeros */
    reciprocal = tnf_divide_2_61(tnf_isqrt(pairs >= 0 ? v << 2 * pairs : v >> -2 * pairs));
    t = 61 - scale_bits - pairs;
    if (reciprocal == (uint32_t)1 << 31) { /* halved to fit a word; exact, as t is at least 17 */
        reciprocal >>= 1;
        t -= 1;
    }
    out->reciprocal = (int32_t)reciprocal;
    if (t < 33) {
        /* A small variance. d^2 <= n * V (Cauchy-Schwarz), so |d| < 2^(8 + L/2), while t > 15 + L/2: |d| * 2^(33 - t) < 2^26. */
        out->prescale = (int32_t)1 << (33 - t);
        t = 33;
    }
    out->right = t - 32;
}

/* Softmax's E(d) for d = -distance in [-255, 0]. It is 0 below diff_min, which gives the sum and the output that the contract asks
 * for there without another test. */
static inline int32_t tnf_softmax_exponential(int32_t distance, int32_t multiplier, int32_t shift, int32_t diff_min)
{
    return -distance < diff_min
               ? 0
               : tnf_exp_negative(tnf_srdhm_unsaturated((int32_t)((uint32_t)-distance << shift), multiplier));
}

/* 1 / (1 + a) for a >= 0 in Q0.31, as Q0.31. */
static inline int32_t tnf_reciprocal(int32_t a)
{
    const int32_t half = (a >> 1) + ((int32_t)1 << 30); /* (a + 2^31) / 2 */
    int32_t x = 1515870810 + tnf_srdhm_unsaturated(half, -1010580540);
    int32_t i;
    for (i = 0; i < 3; i++) {
        const int32_t error = ((int32_t)1 << 29) - tnf_srdhm_unsaturated(half, x);
        x += tnf_sat32((int64_t)tnf_srdhm_unsaturated(x, error) * 4);
    }
    return tnf_sat32((int64_t)x * 2);
}

/* ---- shared loops ---- */

/* Keeps an inner loop in a function of its own, where the registers are all its. */
#if defined(__GNUC__)
#define TNF_OWN_FUNCTION __attribute__((noinline, unused)) static
#else
#define TNF_OWN_FUNCTION static
#endif

/* acc[j] += sum over i < n of (x[i] - zero_point) * w[j * stride + i], for four rows of weights at a time. Walking pointers keep the
 * loop within the registers of a Cortex-M, where an index costs loads from the stack. */
TNF_OWN_FUNCTION void tnf_dot4(int32_t acc[4], const int8_t *x, const int8_t *w, int32_t stride, int32_t n, int32_t zero_point)
{
    const int8_t *end = x + n;
    const int8_t *w1 = w + stride;
    const int8_t *w2 = w1 + stride;
    const int8_t *w3 = w2 + stride;
    int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    while (x != end) {
        const int32_t v = *x++ - zero_point;
        a0 += v * *w++;
        a1 += v * *w1++;
        a2 += v * *w2++;
        a3 += v * *w3++;
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

/* acc + sum over i < n of (x[i] - zero_point) * w[i]. */
static inline int32_t tnf_dot(int32_t acc, const int8_t *x, const int8_t *w, int32_t n, int32_t zero_point)
{
    const int8_t *end = x + n;
    while (x != end) {
        acc += (*x++ - zero_point) * *w++;
    }
    return acc;
}

/* Windows over an axis of `size` positions: the window's k-th position is start + k * step, k < kernel. The positions inside the
 * axis are first <= k < end (none when end <= first). */
static inline int32_t tnf_window_first(int32_t start, int32_t step)
{
    return start >= 0 ? 0 : (step - 1 - start) / step;
}

static inline int32_t tnf_window_end(int32_t start, int32_t step, int32_t kernel, int32_t size)
{
    if (start + (kernel - 1) * step < size) {
        return kernel;
    }
    return start >= size ? 0 : (size - start + step - 1) / step;
}

/* Odometer over the first `axes` axes of a shape: steps index to the next position and returns 1, or returns 0 after the last. */
static inline int32_t tnf_next_index(int32_t *index, const int32_t *dims, int32_t axes)
{
    while (axes-- > 0) {
        if (++index[axes] < dims[axes]) {
            return 1;
        }
        index[axes] = 0;
    }
    return 0;
}

static inline int32_t tnf_offset(const int32_t *index, const int32_t *strides, int32_t axes)
{
    int32_t offset = 0;
    while (axes-- > 0) {
        offset += index[axes] * strides[axes];
    }
    return offset;
}

#endif
