#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* Bytes are taken as x + 128, so that a row's part of the table begins within the table: the exponential of distance max - x is at
 * 255 - (max - x), which is (127 - max) + (x + 128). */
#define FLIP 0x80808080u

static int32_t unsigned_byte(uint32_t bytes, int32_t index)
{
    return (int32_t)(bytes >> 8 * index & 0xFFu);
}

TNF_OWN_FUNCTION int32_t largest(const int8_t *x, int32_t n)
{
    uint32_t most = FLIP; /* four times -128 */
    int32_t max, i;
    for (; n >= 16; n -= 16) {
        const uint32_t a = tnf_load4(x), b = tnf_load4(x + 4), c = tnf_load4(x + 8), d = tnf_load4(x + 12);
        most = tnf_max4(tnf_max4(tnf_max4(tnf_max4(most, a), b), c), d);
        x += 16;
    }
    for (; n >= 4; n -= 4) {
        most = tnf_max4(most, tnf_load4(x));
        x += 4;
    }
    max = tnf_byte(most, 0);
    for (i = 1; i < 4; i++) {
        max = tnf_byte(most, i) > max ? tnf_byte(most, i) : max;
    }
    for (; n > 0; n--) {
        max = *x > max ? *x : max;
        x++;
    }
    return max;
}

/* E divided by 2^12, rounded; E is not negative. */
static uint32_t addend(int32_t e)
{
    return ((uint32_t)e + 2048u) >> 12;
}

TNF_OWN_FUNCTION uint32_t sum_of(const int32_t *value, const int8_t *x, int32_t n)
{
    uint32_t sum = 0u;
    for (; n >= 4; n -= 4) {
        const uint32_t bytes = tnf_load4(x) ^ FLIP;
        const int32_t e0 = value[unsigned_byte(bytes, 0)], e1 = value[unsigned_byte(bytes, 1)];
        const int32_t e2 = value[unsigned_byte(bytes, 2)], e3 = value[unsigned_byte(bytes, 3)];
        sum += addend(e0);
        sum += addend(e1);
        sum += addend(e2);
        sum += addend(e3);
        x += 4;
    }
    for (; n > 0; n--) {
        sum += addend(value[*x++ + 128]);
    }
    return sum;
}

/* rdbpot(srdhm(reciprocal, e), right) for a reciprocal of 2^30 or more, given less 2^31 and doubled: e * 2^32 + e * (2 * reciprocal -
 * 2^32) is twice the product. */
static uint32_t quotient(int32_t e, int32_t excess, int32_t right)
{
    return ((uint32_t)tnf_smmlar(e, excess, e) + ((uint32_t)1 << (right - 1))) >> right;
}

TNF_OWN_FUNCTION void divide(const int32_t *value, const int8_t *x, int8_t *y, int32_t n, int32_t excess, int32_t right)
{
    for (; n >= 4; n -= 4) {
        const uint32_t bytes = tnf_load4(x) ^ FLIP;
        const int32_t e0 = value[unsigned_byte(bytes, 0)], e1 = value[unsigned_byte(bytes, 1)];
        const int32_t e2 = value[unsigned_byte(bytes, 2)], e3 = value[unsigned_byte(bytes, 3)];
        const uint32_t even = tnf_usat8_pair(quotient(e0, excess, right) | quotient(e2, excess, right) << 16);
        const uint32_t odd = tnf_usat8_pair(quotient(e1, excess, right) | quotient(e3, excess, right) << 16);
        tnf_store4(y, (even | odd << 8) ^ FLIP);
        x += 4;
        y += 4;
    }
    for (; n > 0; n--) {
        *y++ = (int8_t)(tnf_usat8_pair(quotient(value[*x++ + 128], excess, right)) - 128u);
    }
}

void tnf_softmax_dsp_begin(const tnf_softmax_dsp_params *p, void *scratch)
{
    int32_t *table = (int32_t *)scratch; /* E of the distances from 255 down to 0 */
    int32_t i;
    for (i = 0; i < 256; i++) {
        table[i] = tnf_softmax_exponential(255 - i, p->multiplier, p->shift, p->diff_min);
    }
}

void tnf_softmax_dsp_rows(const tnf_softmax_dsp_params *p, const int8_t *x, int8_t *y, const void *scratch)
{
    const int32_t *table = (const int32_t *)scratch;
    const int32_t n = p->n;
    int32_t row, i;
    for (row = 0; row < p->rows; row++) {
        const int32_t *value = table + (127 - largest(x, n));
        const uint32_t sum = sum_of(value, x, n);
        const int32_t zeros = tnf_leading_zeros(sum);
        const int32_t right = 12 - zeros + 23;
        if (right > 31) { /* so many elements alike that each is less than half a step */
            for (i = 0; i < n; i++) {
                y[i] = -128;
            }
        } else {
            /* At least 2^30: of all fractions only those above 2^31 - 16 give less, and here four bits are 0. */
            const int32_t reciprocal = tnf_reciprocal((int32_t)((sum << zeros) & 0x7FFFFFFFu));
            divide(value, x, y, n, (reciprocal - INT32_MAX - 1) * 2, right);
        }
        x += n;
        y += n;
    }
}

void tnf_softmax_dsp(const tnf_softmax_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    tnf_softmax_dsp_begin(p, scratch);
    tnf_softmax_dsp_rows(p, x, y, scratch);
}
