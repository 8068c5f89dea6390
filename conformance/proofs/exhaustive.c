/* Primitives that no solver decides, tried on every argument against the definition written out in 64 bits. Each function
 * tries `count` arguments from `first` on and gives the number of those that differ, of which a sum or product leaves the int32 that
 * it is in C, or of which the result is not where the kernels want it. */
#include "tinyformer/numerics.h"

#include "exhaustive.h"

static int64_t truncating(int64_t a, int64_t b)
{
    return a / b; /* in C towards zero, as the contract has it */
}

static int64_t srdhm(int64_t a, int64_t b)
{
    const int64_t ab = a * b;
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    return truncating(ab + (ab >= 0 ? (int64_t)1 << 30 : 1 - ((int64_t)1 << 30)), (int64_t)1 << 31);
}

static int64_t rdbpot(int64_t v, int n)
{
    const int64_t divisor = (int64_t)1 << n;
    return truncating(v >= 0 ? v + divisor / 2 : v - divisor / 2, divisor);
}

static int64_t left_int32;

static int64_t word(int64_t v)
{
    left_int32 += v < INT32_MIN || v > INT32_MAX;
    return v;
}

static int64_t saturated(int64_t v)
{
    return v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : v;
}

static int64_t exponential(int64_t a)
{
    static const int64_t c[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    int64_t q, x, x2, x3, x4, u, e;
    int bit;
    if (a == 0) {
        return INT32_MAX;
    }
    q = (int64_t)((uint64_t)a & 0xFFFFFFu) - (1 << 24);
    x = word(word(q * 32) + (1 << 28));
    x2 = srdhm(x, x);
    x3 = srdhm(x2, x);
    x4 = srdhm(x2, x2);
    u = rdbpot(word(srdhm(word(rdbpot(x4, 2) + x3), 715827883) + x2), 1);
    e = word(1895147668 + srdhm(1895147668, word(x + u)));
    for (bit = 24; bit <= 30; bit++) {
        if ((q - a) >> bit & 1) {
            e = srdhm(e, c[bit - 24]);
        }
    }
    return e;
}

static int64_t one_over(int64_t a)
{
    const int64_t half = word(truncating(a + INT32_MAX + 1, 2));
    int64_t x = word(1515870810 + srdhm(half, -1010580540));
    int i;
    for (i = 0; i < 3; i++) {
        x = word(x + saturated(srdhm(x, word(((int64_t)1 << 29) - srdhm(half, x))) * 4));
    }
    return saturated(x * 2);
}

int64_t tnf_try_exp_negative(int64_t first, int64_t count, int64_t step)
{
    int64_t i, wrong = 0;
    left_int32 = 0;
    for (i = first; i < first + count; i += step) {
        const int64_t e = exponential(-i);
        wrong += tnf_exp_negative((int32_t)-i) != e || e < 0;
    }
    return wrong + left_int32;
}

int64_t tnf_try_reciprocal(int64_t first, int64_t count, int64_t step)
{
    int64_t i, wrong = 0;
    left_int32 = 0;
    for (i = first; i < first + count; i += step) {
        const int64_t r = one_over(i), least = i <= INT32_MAX - 15 ? (int64_t)1 << 30 : 0; /* as tnf_softmax_dsp has it */
        wrong += tnf_reciprocal((int32_t)i) != r || r < least;
    }
    return wrong + left_int32;
}

int64_t tnf_try_divide_2_61(int64_t first, int64_t count, int64_t step)
{
    int64_t i, wrong = 0;
    for (i = first; i < first + count; i += step) {
        wrong += tnf_divide_2_61((uint32_t)i) != ((uint64_t)1 << 61) / (uint64_t)i;
    }
    return wrong;
}

int64_t tnf_try_isqrt(int64_t first, int64_t count, int64_t step)
{
    int64_t i, wrong = 0;
    for (i = first; i < first + count; i += step) {
        const uint64_t r = (uint64_t)i, square = r * r;
        wrong += tnf_isqrt(square) != r || tnf_isqrt(square + r) != r || tnf_isqrt(square + 2 * r) != r;
    }
    return wrong;
}
