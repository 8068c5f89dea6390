#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

static tnf_layernorm_scale measure_row(const tnf_layernorm_params *p, const int8_t *x)
{
    tnf_layernorm_scale scale;
    int32_t sum = 0, squares = 0;
    int32_t i;
    for (i = 0; i < p->n; i++) {
        sum += x[i];
        squares += x[i] * x[i];
    }
    tnf_layernorm_scale_of(&scale, sum, squares, p->n, p->scale_bits, p->epsilon_low, p->epsilon_high);
    return scale;
}

void tnf_layernorm(const tnf_layernorm_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t n = p->n;
    int32_t row, i;
    (void)scratch;
    for (row = 0; row < p->rows; row++) {
        const tnf_layernorm_scale scale = measure_row(p, x);
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
