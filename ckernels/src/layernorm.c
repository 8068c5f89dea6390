#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

/* How one row turns (C * x - s1) into h: ((d * prescale) * reciprocal + half) >> (32 + right). */
typedef struct {
    int32_t sum;
    int32_t prescale;
    int32_t reciprocal;
    int32_t right;
} row_scale;

static row_scale measure_row(const tnf_layernorm_params *p, const int8_t *x)
{
    const uint64_t epsilon = (uint64_t)(uint32_t)p->epsilon_high << 32 | (uint32_t)p->epsilon_low;
    row_scale out = {0, 1, 0, 1}; /* h = 0 whatever x is */
    int32_t squares = 0;
    int32_t i, pairs, t;
    uint32_t reciprocal;
    uint64_t v;
    for (i = 0; i < p->n; i++) {
        out.sum += x[i];
        squares += x[i] * x[i];
    }
    v = (uint64_t)((int64_t)p->n * squares - (int64_t)out.sum * out.sum) + epsilon;
    if (v == 0u) {
        return out;
    }
    pairs = (tnf_leading_zeros64(v) - 2) >> 1; /* floor((61 - L) / 2), L = 63 - leading zeros */
    reciprocal = tnf_divide_2_61(tnf_isqrt(pairs >= 0 ? v << 2 * pairs : v >> -2 * pairs));
    t = 61 - p->scale_bits - pairs;
    if (reciprocal == (uint32_t)1 << 31) { /* halved to fit a word; exact, as t is at least 17 */
        reciprocal >>= 1;
        t -= 1;
    }
    out.reciprocal = (int32_t)reciprocal;
    if (t < 33) {
        /* A small variance. d^2 <= C * V (Cauchy-Schwarz), so |d| < 2^(8 + L/2), while t > 15 + L/2: |d| * 2^(33 - t) < 2^26. */
        out.prescale = (int32_t)1 << (33 - t);
        t = 33;
    }
    out.right = t - 32;
    return out;
}

void tnf_layernorm(const tnf_layernorm_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t n = p->n;
    int32_t row, i;
    (void)scratch;
    for (row = 0; row < p->rows; row++) {
        const row_scale scale = measure_row(p, x);
        for (i = 0; i < n; i++) {
            const int32_t deviation = (n * x[i] - scale.sum) * scale.prescale;
            const int32_t h = tnf_sat16(tnf_multiply_high(deviation, scale.reciprocal, scale.right));
            y[i] = tnf_requantize_to_int8(h * p->gamma[i] + p->beta[i], p->multiplier, p->shift, p->rounding, p->output_zero_point,
                                          p->act_min, p->act_max);
        }
        x += n;
        y += n;
    }
}
