#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

#define ONES 0x00010001u

static tnf_layernorm_scale measure_row(const tnf_layernorm_dsp_params *p, const int8_t *x)
{
    int32_t sum = 0, squares = 0, n = p->n;
    for (; n >= 4; n -= 4) {
        const uint32_t bytes = tnf_load4(x), even = tnf_even_pair(bytes), odd = tnf_odd_pair(bytes);
        sum = tnf_smlad(odd, ONES, tnf_smlad(even, ONES, sum));
        squares = tnf_smlad(odd, odd, tnf_smlad(even, even, squares));
        x += 4;
    }
    for (; n > 0; n--) {
        sum += *x;
        squares += *x * *x;
        x++;
    }
    return tnf_layernorm_scale_of(sum, squares, p->n, p->scale_bits, p->epsilon_low, p->epsilon_high);
}

/* Of one row: h is ((x * unit - mean) * reciprocal + half * 2^32) >> (32 + right), in 16 bits. */
typedef struct {
    uint32_t unit, mean;
    int32_t reciprocal, half, right;
} normalisation;

static int32_t normalised(int32_t x, const normalisation *row, int32_t gamma, int32_t beta)
{
    const int32_t deviation = (int32_t)((uint32_t)x * row->unit - row->mean);
    return tnf_ssat16(tnf_smmla(deviation, row->reciprocal, row->half) >> row->right) * gamma + beta;
}

TNF_OWN_FUNCTION void finish_row(const tnf_layernorm_dsp_params *p, const normalisation *row, const int8_t *x, int8_t *y)
{
    const tnf_quick_scale scale = tnf_quick_scale_of(p->multiplier, p->shift, p->output_zero_point);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    const int16_t *gamma = p->gamma;
    const int32_t *beta = p->beta;
    const normalisation r = *row;
    int32_t n = p->n;
    for (; n >= 4; n -= 4) {
        const uint32_t bytes = tnf_load4(x);
        int32_t v[4], i;
        for (i = 0; i < 4; i++) {
            v[i] = normalised(tnf_byte(bytes, i), &r, gamma[i], beta[i]);
        }
        for (i = 0; i < 4; i++) {
            v[i] = tnf_ssat8(tnf_quick_requantize(v[i], scale));
        }
        tnf_store4(y, tnf_clamp4(tnf_pack4(v[0], v[1], v[2], v[3]), lo, hi));
        x += 4;
        y += 4;
        gamma += 4;
        beta += 4;
    }
    for (; n > 0; n--) {
        *y++ = (int8_t)tnf_clamp(tnf_quick_requantize(normalised(*x++, &r, *gamma++, *beta++), scale), p->act_min, p->act_max);
    }
}

void tnf_layernorm_dsp(const tnf_layernorm_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    int32_t row;
    (void)scratch;
    for (row = 0; row < p->rows; row++) {
        const tnf_layernorm_scale scale = measure_row(p, x);
        normalisation r;
        r.unit = (uint32_t)p->n * (uint32_t)scale.prescale;
        r.mean = (uint32_t)scale.sum * (uint32_t)scale.prescale;
        r.reciprocal = scale.reciprocal;
        r.half = (int32_t)1 << (scale.right - 1);
        r.right = scale.right;
        finish_row(p, &r, x, y);
        x += p->n;
        y += p->n;
    }
}
