#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

void tnf_mean(const tnf_mean_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t n = p->n, inner = p->inner;
    const int32_t zero = n * p->input_zero_point;
    int32_t outer, c, i;
    (void)scratch;
    for (outer = 0; outer < p->outer; outer++) {
        for (c = 0; c < inner; c++) {
            int32_t sum = 0;
            int32_t at = c;
            for (i = 0; i < n; i++) {
                sum += x[at];
                at += inner;
            }
            y[c] = tnf_requantize_to_int8(sum - zero, p->multiplier, p->shift, p->rounding, p->output_zero_point, p->act_min,
                                          p->act_max);
        }
        x += n * inner;
        y += inner;
    }
}
