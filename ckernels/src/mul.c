#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

void tnf_mul(const tnf_mul_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int32_t axes = p->rank - 1;
    const int32_t n = p->dims[axes];
    const int32_t a_stride = p->a_strides[axes];
    const int32_t b_stride = p->b_strides[axes];
    int32_t index[TNF_MAX_RANK] = {0};
    (void)scratch;
    do {
        int32_t a_at = tnf_offset(index, p->a_strides, axes);
        int32_t b_at = tnf_offset(index, p->b_strides, axes);
        int32_t i;
        for (i = 0; i < n; i++) {
            const int32_t product = (a[a_at] - p->a_zero_point) * (b[b_at] - p->b_zero_point);
            y[i] = tnf_requantize_to_int8(product, p->multiplier, p->shift, p->rounding, p->output_zero_point, p->act_min, p->act_max);
            a_at += a_stride;
            b_at += b_stride;
        }
        y += n;
    } while (tnf_next_index(index, p->dims, axes));
}
