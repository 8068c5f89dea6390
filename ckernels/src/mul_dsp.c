#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

static int32_t product_of(int32_t a, int32_t b, tnf_quick_scale scale)
{
    return tnf_ssat8(tnf_quick_requantize(a * b, scale));
}

void tnf_mul_dsp(const tnf_mul_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int32_t a_offset = -p->a_zero_point, b_offset = -p->b_zero_point;
    const tnf_quick_scale scale = tnf_quick_scale_of(p->multiplier, p->shift, p->output_zero_point);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    int32_t n = p->size;
    (void)scratch;
    for (; n >= 4; n -= 4) {
        const uint32_t as = tnf_load4(a), bs = tnf_load4(b);
        const int32_t y0 = product_of(tnf_byte_plus(a_offset, as, 0), tnf_byte_plus(b_offset, bs, 0), scale);
        const int32_t y1 = product_of(tnf_byte_plus(a_offset, as, 1), tnf_byte_plus(b_offset, bs, 1), scale);
        const int32_t y2 = product_of(tnf_byte_plus(a_offset, as, 2), tnf_byte_plus(b_offset, bs, 2), scale);
        const int32_t y3 = product_of(tnf_byte_plus(a_offset, as, 3), tnf_byte_plus(b_offset, bs, 3), scale);
        tnf_store4(y, tnf_clamp4(tnf_pack4(y0, y1, y2, y3), lo, hi));
        a += 4;
        b += 4;
        y += 4;
    }
    for (; n > 0; n--) {
        *y++ = (int8_t)tnf_clamp(product_of(*a++ + a_offset, *b++ + b_offset, scale), p->act_min, p->act_max);
    }
}
