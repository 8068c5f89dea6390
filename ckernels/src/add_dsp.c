#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* sa + sb of docs/numerics.md. Of the coarse input, whose multiplier is exactly 1/2, the term is (coarse - zero point) * 2^19. The
 * other's is (fine + offset) * 2^left times the multiplier's high word, rounded: 20 + 32 - t bits to the left
 * make the contract's division by 2^t one by 2^32, where t = 31 - shift. */
typedef struct {
    int32_t coarse_offset, offset, left, multiplier;
} terms;

/* Of bytes `index` of two words. */
static int32_t sum_of(uint32_t coarse, uint32_t fine, int32_t index, terms t, tnf_quick_scale scale)
{
    const int32_t raised = (int32_t)((uint32_t)tnf_byte_plus(t.offset, fine, index) << t.left);
    const int32_t exact = (int32_t)((uint32_t)tnf_byte_plus(t.coarse_offset, coarse, index) << 19);
    return tnf_ssat8(tnf_quick_requantize(tnf_smmlar(raised, t.multiplier, exact), scale));
}

void tnf_add_dsp(const tnf_add_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int8_t *coarse = p->coarse_second != 0 ? b : a;
    const int8_t *fine = p->coarse_second != 0 ? a : b;
    const terms t = {-p->coarse_zero_point, -p->fine_zero_point, 21 + p->fine_shift, p->fine_multiplier};
    const tnf_quick_scale scale = tnf_quick_scale_of(p->output_multiplier, p->output_shift, p->output_zero_point);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    int32_t n = p->size;
    (void)scratch;
    for (; n >= 4; n -= 4) {
        const uint32_t cs = tnf_load4(coarse), fs = tnf_load4(fine);
        const int32_t y0 = sum_of(cs, fs, 0, t, scale);
        const int32_t y1 = sum_of(cs, fs, 1, t, scale);
        const int32_t y2 = sum_of(cs, fs, 2, t, scale);
        const int32_t y3 = sum_of(cs, fs, 3, t, scale);
        tnf_store4(y, tnf_clamp4(tnf_pack4(y0, y1, y2, y3), lo, hi));
        coarse += 4;
        fine += 4;
        y += 4;
    }
    for (; n > 0; n--) {
        *y++ = (int8_t)tnf_clamp(sum_of((uint8_t)*coarse++, (uint8_t)*fine++, 0, t, scale), p->act_min, p->act_max);
    }
}
