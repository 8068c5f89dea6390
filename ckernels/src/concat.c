#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

static void rescale_chunk(const tnf_concat_params *p, int32_t k, const int8_t *x, int8_t *y)
{
    const int32_t n = p->chunk[k], z_x = p->zero_point[k], multiplier = p->multiplier[k], shift = p->shift[k];
    int32_t i;
    for (i = 0; i < n; i++) {
        y[i] = tnf_requantize_to_int8(x[i] - z_x, multiplier, shift, p->rounding, p->output_zero_point, -128, 127);
    }
}

static void copy_chunk(const int8_t *x, int8_t *y, int32_t n)
{
    int32_t i;
    for (i = 0; i < n; i++) {
        y[i] = x[i];
    }
}

void tnf_concat(const tnf_concat_params *p, const int8_t *const *xs, int8_t *y, void *scratch)
{
    int32_t row, k;
    (void)scratch;
    for (row = 0; row < p->outer; row++) {
        for (k = 0; k < p->count; k++) {
            const int8_t *x = xs[k] + row * p->chunk[k];
            if (p->rescale[k]) {
                rescale_chunk(p, k, x, y);
            } else {
                copy_chunk(x, y, p->chunk[k]);
            }
            y += p->chunk[k];
        }
    }
}
