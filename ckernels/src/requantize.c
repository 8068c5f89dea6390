#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

void tnf_requantize(const tnf_requantize_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t size = p->size, z_x = p->input_zero_point, z_y = p->output_zero_point;
    const int32_t multiplier = p->multiplier, shift = p->shift, rounding = p->rounding;
    const int32_t lo = p->act_min, hi = p->act_max;
    int32_t i;
    (void)scratch;
    for (i = 0; i < size; i++) {
        y[i] = tnf_requantize_to_int8(x[i] - z_x, multiplier, shift, rounding, z_y, lo, hi);
    }
}
