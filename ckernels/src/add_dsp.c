#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* sa + sb of docs/numerics.md. Of the coarse input, whose multiplier is exactly 1/2, the term is (coarse - zero point) * 2^19. The
 * other's is (fine + offset) * 2^left times the multiplier's high word, rounded. With single rounding 20 + 32 - t bits to the left make
 * the contract's division by 2^t one by 2^32, where t = 31 - shift. With double rounding 21 bits give srdhm, and `half` and `right`
 * divide it by 2^-shift, ties away from zero. */
typedef struct {
    int32_t coarse_offset, offset, left, multiplier, half, right;
} terms;

static inline int32_t term_shifted(uint32_t bytes, int32_t index, int32_t offset, int32_t left)
{
    return (int32_t)((uint32_t)tnf_byte_plus(offset, bytes, index) << left);
}

/* Of bytes `index` of two words. */
static inline int32_t sum_of(uint32_t coarse, uint32_t fine, int32_t index, const terms *t, tnf_quick_scale scale, int32_t rounding)
{
    const int32_t raised = term_shifted(fine, index, t->offset, t->left), exact = term_shifted(coarse, index, t->coarse_offset, 19);
    if (rounding == TNF_ROUNDING_DOUBLE) {
        const int32_t product = tnf_smmulr(raised, t->multiplier);
        return tnf_ssat8(tnf_double_requantize(((product + (product >> 31) + t->half) >> t->right) + exact, scale));
    }
    return tnf_ssat8(tnf_quick_requantize(tnf_smmlar(raised, t->multiplier, exact), scale));
}

/* n elements; an input whose step is 0 gives the same one to all, four of which it holds. */
static inline void add_row(const tnf_add_dsp_params *p, const terms *at, const int8_t *coarse, int32_t coarse_step, const int8_t *fine,
                           int32_t fine_step, int8_t *y, int32_t rounding)
{
    const terms t = *at;
    const tnf_quick_scale scale = tnf_scale_of(p->output_multiplier, p->output_shift, p->output_zero_point, rounding);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    int32_t n = p->n;
    for (; n >= 4; n -= 4) {
        const uint32_t cs = tnf_load4(coarse), fs = tnf_load4(fine);
        const int32_t y0 = sum_of(cs, fs, 0, &t, scale, rounding);
        const int32_t y1 = sum_of(cs, fs, 1, &t, scale, rounding);
        const int32_t y2 = sum_of(cs, fs, 2, &t, scale, rounding);
        const int32_t y3 = sum_of(cs, fs, 3, &t, scale, rounding);
        tnf_store4(y, tnf_clamp4(tnf_pack4(y0, y1, y2, y3), lo, hi));
        coarse += 4 * coarse_step;
        fine += 4 * fine_step;
        y += 4;
    }
    for (; n > 0; n--) {
        *y++ = (int8_t)tnf_clamp(sum_of((uint8_t)*coarse, (uint8_t)*fine, 0, &t, scale, rounding), p->act_min, p->act_max);
        coarse += coarse_step;
        fine += fine_step;
    }
}

TNF_OWN_FUNCTION void add_row_single(const tnf_add_dsp_params *p, const terms *t, const int8_t *coarse, int32_t coarse_step,
                                     const int8_t *fine, int32_t fine_step, int8_t *y)
{
    add_row(p, t, coarse, coarse_step, fine, fine_step, y, TNF_ROUNDING_SINGLE);
}

TNF_OWN_FUNCTION void add_row_double(const tnf_add_dsp_params *p, const terms *t, const int8_t *coarse, int32_t coarse_step,
                                     const int8_t *fine, int32_t fine_step, int8_t *y)
{
    add_row(p, t, coarse, coarse_step, fine, fine_step, y, TNF_ROUNDING_DOUBLE);
}

void tnf_add_dsp(const tnf_add_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int32_t twice = p->rounding == TNF_ROUNDING_DOUBLE, second = p->coarse_second;
    const int32_t once_more = twice && p->fine_shift == 0; /* as twice the multiplier and half of it: exact, as it is 1/2 */
    int32_t row;
    terms t;
    (void)scratch;
    t.coarse_offset = -p->coarse_zero_point;
    t.offset = -p->fine_zero_point;
    t.left = 21 + (twice ? once_more : p->fine_shift);
    t.multiplier = p->fine_multiplier;
    t.right = twice ? once_more - p->fine_shift : 1;
    t.half = (int32_t)1 << (t.right - 1);
    for (row = 0; row < p->rows; row++) {
        const int8_t a4[4] = {*a, *a, *a, *a}, b4[4] = {*b, *b, *b, *b};
        const int8_t *from_a = p->a_step ? a : a4, *from_b = p->b_step ? b : b4;
        (twice ? add_row_double : add_row_single)(p, &t, second ? from_b : from_a, second ? p->b_step : p->a_step,
                                                  second ? from_a : from_b, second ? p->a_step : p->b_step, y);
        a += row + 1 < p->rows ? p->a_row : 0;
        b += row + 1 < p->rows ? p->b_row : 0;
        y += p->n;
    }
}
