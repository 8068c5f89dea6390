#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

void tnf_mul_dsp(const tnf_mul_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int32_t a_offset = -p->a_zero_point, b_offset = -p->b_zero_point;
    const tnf_quick_scale scale = tnf_quick_scale_of(p->multiplier, p->shift, p->output_zero_point);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    int32_t n = p->size;
    (void)scratch;
    for (; n >= 4; n -= 4) {
        const uint32_t as = tnf_load4(a), bs = tnf_load4(b);
        int32_t product[4], i;
        for (i = 0; i < 4; i++) {
            product[i] = (tnf_byte(as, i) + a_offset) * (tnf_byte(bs, i) + b_offset);
            product[i] = tnf_ssat8(tnf_quick_requantize(product[i], scale));
        }
        tnf_store4(y, tnf_clamp4(tnf_pack4(product[0], product[1], product[2], product[3]), lo, hi));
        a += 4;
        b += 4;
        y += 4;
    }
    for (; n > 0; n--) {
        const int32_t product = (*a++ + a_offset) * (*b++ + b_offset);
        *y++ = (int8_t)tnf_clamp(tnf_quick_requantize(product, scale), p->act_min, p->act_max);
    }
}
