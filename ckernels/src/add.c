#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

static void add_row(const tnf_add_params *p, const int8_t *a, int32_t a_stride, const int8_t *b, int32_t b_stride, int8_t *y,
                    int32_t n)
{
    const int32_t unit = (int32_t)1 << 20;
    const int32_t sign = p->subtract ? -1 : 1;
    int32_t a_at = 0, b_at = 0;
    int32_t i;
    for (i = 0; i < n; i++) {
        const int32_t sa = tnf_requantize_value((a[a_at] - p->a_zero_point) * unit, p->a_multiplier, p->a_shift, p->rounding);
        const int32_t sb = tnf_requantize_value((b[b_at] - p->b_zero_point) * unit, p->b_multiplier, p->b_shift, p->rounding);
        y[i] = tnf_requantize_to_int8(sa + sign * sb, p->output_multiplier, p->output_shift, p->rounding, p->output_zero_point,
                                      p->act_min, p->act_max);
        a_at += a_stride;
        b_at += b_stride;
    }
}

/* The usual case: contiguous rows, one rounding, and inputs whose multipliers are at most 1/2, as (s_a, s_b) / (2 max(s_a, s_b))
 * are. Two more bits are moved to the left of the product (|255 * 2^22| < 2^30), so that its high word is all that matters. */
static void add_contiguous_row(const tnf_add_params *p, const int8_t *a, const int8_t *b, int8_t *y, int32_t n)
{
    const int32_t a_left = p->a_shift < -1 ? 0 : 2 + p->a_shift;
    const int32_t b_left = p->b_shift < -1 ? 0 : 2 + p->b_shift;
    const int32_t a_right = a_left - 1 - p->a_shift;
    const int32_t b_right = b_left - 1 - p->b_shift;
    const int32_t a_unit = (int32_t)1 << (20 + a_left);
    const int32_t b_unit = (int32_t)1 << (20 + b_left);
    const int32_t right = -1 - p->output_shift;
    const int32_t a_multiplier = p->a_multiplier, b_multiplier = p->b_multiplier, multiplier = p->output_multiplier;
    const int32_t a_zero = p->a_zero_point, b_zero = p->b_zero_point, zero = p->output_zero_point;
    const int32_t lo = p->act_min, hi = p->act_max;
    int32_t i;
    for (i = 0; i < n; i++) {
        const int32_t sa = tnf_multiply_high((a[i] - a_zero) * a_unit, a_multiplier, a_right);
        const int32_t sb = tnf_multiply_high((b[i] - b_zero) * b_unit, b_multiplier, b_right);
        y[i] = (int8_t)tnf_clamp(tnf_multiply_high(sa + sb, multiplier, right) + zero, lo, hi);
    }
}

void tnf_add(const tnf_add_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int32_t axes = p->rank - 1;
    const int32_t n = p->dims[axes];
    const int32_t a_stride = p->a_strides[axes];
    const int32_t b_stride = p->b_strides[axes];
    const int32_t usual = a_stride == 1 && b_stride == 1 && p->rounding == TNF_ROUNDING_SINGLE && p->a_shift <= 0 &&
                          p->b_shift <= 0 && p->output_shift < -1 && !p->subtract;
    int32_t index[TNF_MAX_RANK] = {0};
    (void)scratch;
    do {
        const int8_t *a_row = a + tnf_offset(index, p->a_strides, axes);
        const int8_t *b_row = b + tnf_offset(index, p->b_strides, axes);
        if (usual) {
            add_contiguous_row(p, a_row, b_row, y, n);
        } else {
            add_row(p, a_row, a_stride, b_row, b_stride, y, n);
        }
        y += n;
    } while (tnf_next_index(index, p->dims, axes));
}
