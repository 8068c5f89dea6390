#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

static inline int32_t product_of(int32_t a, int32_t b, tnf_quick_scale scale, int32_t rounding)
{
    return tnf_ssat8(tnf_scaled(a * b, scale, rounding));
}

TNF_INLINE void mul_rounded(const tnf_mul_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, int32_t n, int32_t rounding)
{
    const int32_t a_offset = -p->a_zero_point, b_offset = -p->b_zero_point;
    const tnf_quick_scale scale = tnf_scale_of(p->multiplier, p->shift, p->output_zero_point, rounding);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    for (; n >= 4; n -= 4) {
        const uint32_t as = tnf_load4(a), bs = tnf_load4(b);
        const int32_t y0 = product_of(tnf_byte_plus(a_offset, as, 0), tnf_byte_plus(b_offset, bs, 0), scale, rounding);
        const int32_t y1 = product_of(tnf_byte_plus(a_offset, as, 1), tnf_byte_plus(b_offset, bs, 1), scale, rounding);
        const int32_t y2 = product_of(tnf_byte_plus(a_offset, as, 2), tnf_byte_plus(b_offset, bs, 2), scale, rounding);
        const int32_t y3 = product_of(tnf_byte_plus(a_offset, as, 3), tnf_byte_plus(b_offset, bs, 3), scale, rounding);
        tnf_store4(y, tnf_clamp4(tnf_pack4(y0, y1, y2, y3), lo, hi));
        a += 4;
        b += 4;
        y += 4;
    }
    for (; n > 0; n--) {
        *y++ = (int8_t)tnf_clamp(product_of(*a++ + a_offset, *b++ + b_offset, scale, rounding), p->act_min, p->act_max);
    }
}

static void mul_single(const void *params, const int8_t *a, const int8_t *b, int8_t *y, int32_t n)
{
    mul_rounded((const tnf_mul_dsp_params *)params, a, b, y, n, TNF_ROUNDING_SINGLE);
}

static void mul_double(const void *params, const int8_t *a, const int8_t *b, int8_t *y, int32_t n)
{
    mul_rounded((const tnf_mul_dsp_params *)params, a, b, y, n, TNF_ROUNDING_DOUBLE);
}

void tnf_mul_dsp(const tnf_mul_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const tnf_element_rows walk = {p->rows, p->n, p->a_row, p->a_step, p->b_row, p->b_step};
    (void)scratch;
    tnf_by_rows(walk, p->rounding == TNF_ROUNDING_DOUBLE ? mul_double : mul_single, p, a, b, y);
}
