#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* An input's place in the sum: (x + offset) * 2^left times the multiplier's high word, rounded. 20 + 32 - t bits to the left make the
 * contract's division by 2^t one by 2^32, where t = 31 - shift. */
typedef struct {
    int32_t offset, left, multiplier;
} term;

static int32_t raised(uint32_t bytes, int32_t index, term t)
{
    return (int32_t)((uint32_t)(tnf_byte(bytes, index) + t.offset) << t.left);
}

static int32_t sum_of(uint32_t a, uint32_t b, int32_t index, term ta, term tb, tnf_quick_scale scale)
{
    const int32_t sum = tnf_smmlar(raised(b, index, tb), tb.multiplier, tnf_smmulr(raised(a, index, ta), ta.multiplier));
    return tnf_ssat8(tnf_quick_requantize(sum, scale));
}

void tnf_add_dsp(const tnf_add_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const term ta = {-p->a_zero_point, 21 + p->a_shift, p->a_multiplier};
    const term tb = {-p->b_zero_point, 21 + p->b_shift, p->b_multiplier};
    const tnf_quick_scale scale = tnf_quick_scale_of(p->output_multiplier, p->output_shift, p->output_zero_point);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    int32_t n = p->size;
    (void)scratch;
    for (; n >= 4; n -= 4) {
        const uint32_t as = tnf_load4(a), bs = tnf_load4(b);
        const uint32_t sums = tnf_pack4(sum_of(as, bs, 0, ta, tb, scale), sum_of(as, bs, 1, ta, tb, scale),
                                        sum_of(as, bs, 2, ta, tb, scale), sum_of(as, bs, 3, ta, tb, scale));
        tnf_store4(y, tnf_clamp4(sums, lo, hi));
        a += 4;
        b += 4;
        y += 4;
    }
    for (; n > 0; n--) {
        *y++ = (int8_t)tnf_clamp(sum_of((uint8_t)*a++, (uint8_t)*b++, 0, ta, tb, scale), p->act_min, p->act_max);
    }
}
