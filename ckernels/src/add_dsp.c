#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* sa + sb of docs/numerics.md. Of the coarse input, whose multiplier is exactly 1/2, the term is (coarse - zero point) * 2^19. The
 * other's is (fine + offset) * 2^left times the multiplier's high word, rounded. */

/* ---- single rounding ---- */

/* 20 + 32 - t bits to the left make the contract's division by 2^t one by 2^32, where t = 31 - shift. */
typedef struct {
    int32_t coarse_offset, offset, left, multiplier;
} single_terms;

/* Of bytes `index` of two words. */
static int32_t sum_of(uint32_t coarse, uint32_t fine, int32_t index, single_terms t, tnf_quick_scale scale)
{
    const int32_t raised = (int32_t)((uint32_t)tnf_byte_plus(t.offset, fine, index) << t.left);
    const int32_t exact = (int32_t)((uint32_t)tnf_byte_plus(t.coarse_offset, coarse, index) << 19);
    return tnf_ssat8(tnf_quick_requantize(tnf_smmlar(raised, t.multiplier, exact), scale));
}

static void add_single(const void *params, const int8_t *a, const int8_t *b, int8_t *y, int32_t n)
{
    const tnf_add_dsp_params *p = (const tnf_add_dsp_params *)params;
    const int8_t *coarse = p->coarse_second != 0 ? b : a;
    const int8_t *fine = p->coarse_second != 0 ? a : b;
    const single_terms t = {-p->coarse_zero_point, -p->fine_zero_point, 21 + p->fine_shift, p->fine_multiplier};
    const tnf_quick_scale scale = tnf_quick_scale_of(p->output_multiplier, p->output_shift, p->output_zero_point);
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
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

/* ---- double rounding ---- */

/* 21 bits to the left give srdhm, which `half` and `right` divide by 2^-shift. Ties go away from zero where 1 is taken from what is
 * negative: of both products their first factor tells, as only one that is 0 may have another sign, to which 1 makes no difference. */
typedef struct {
    int32_t offset, multiplier, half, right;
    int32_t coarse_offset;
    tnf_quick_scale scale;
    const int8_t *end; /* of the coarse elements in fours */
} double_terms;

static int32_t double_sum_of(int32_t coarse, int32_t fine, const double_terms *t)
{
    const int32_t raised = (fine + t->offset) * ((int32_t)1 << 21), exact = (coarse + t->coarse_offset) * ((int32_t)1 << 19);
    const int32_t term = (tnf_smmlar(raised, t->multiplier, t->half) + (raised >> 31)) >> t->right;
    return tnf_ssat8(tnf_double_requantize(term + exact, t->scale));
}

/* Four elements at a time, one group at least, until coarse is t->end. */
#if TNF_DSP_INSTRUCTIONS

/* Registers: r0 coarse, r1 fine, r2 y, r3 the terms, r4-r7 the elements, r8 four bytes. */
__attribute__((naked, noinline)) static void add_quads(const int8_t *coarse, const int8_t *fine, int8_t *y, const double_terms *t)
{
    __asm__("push {r4-r11, lr}\n\t"
            "1:\n\t"
            "ldr r8, [r1], #4\n\t"
            "ldr r9, [r3]\n\t"
            "ldr r10, [r3, #4]\n\t"
            "ldr r11, [r3, #8]\n\t"
            "ldr r12, [r3, #12]\n\t"
            "ldr lr, [r0], #4\n\t"
            "sxtab r4, r9, r8\n\t"
            "sxtab r5, r9, r8, ror #8\n\t"
            "lsl r4, r4, #21\n\t"
            "sxtab r6, r9, r8, ror #16\n\t"
            "lsl r5, r5, #21\n\t"
            "sxtab r7, r9, r8, ror #24\n\t"
            "lsl r6, r6, #21\n\t"
            "ldr r9, [r3, #16]\n\t"
            "add r8, r11, r4, asr #31\n\t"
            "smmlar r4, r4, r10, r8\n\t"
            "lsl r7, r7, #21\n\t"
            "add r8, r11, r5, asr #31\n\t"
            "smmlar r5, r5, r10, r8\n\t"
            "add r8, r11, r6, asr #31\n\t"
            "smmlar r6, r6, r10, r8\n\t"
            "add r8, r11, r7, asr #31\n\t"
            "smmlar r7, r7, r10, r8\n\t"
            "asr r4, r4, r12\n\t"
            "sxtab r8, r9, lr\n\t"
            "asr r5, r5, r12\n\t"
            "sxtab r10, r9, lr, ror #8\n\t"
            "asr r6, r6, r12\n\t"
            "sxtab r11, r9, lr, ror #16\n\t"
            "asr r7, r7, r12\n\t"
            "sxtab r12, r9, lr, ror #24\n\t"
            "add r5, r5, r10, lsl #19\n\t"
            "add r4, r4, r8, lsl #19\n\t"
            "add r6, r6, r11, lsl #19\n\t"
            "ldr r10, [r3, #20]\n\t"
            "ldr r11, [r3, #24]\n\t"
            "add r7, r7, r12, lsl #19\n\t"
            "ldr r12, [r3, #28]\n\t"
            "ldr lr, [r3, #32]\n\t"
            "add r8, r4, r4, asr #31\n\t"
            "add r9, r5, r5, asr #31\n\t"
            "add r8, r8, r11\n\t"
            "smmlar r4, r4, r10, r8\n\t"
            "add r9, r9, r11\n\t"
            "add r8, r6, r6, asr #31\n\t"
            "smmlar r5, r5, r10, r9\n\t"
            "add r8, r8, r11\n\t"
            "add r9, r7, r7, asr #31\n\t"
            "smmlar r6, r6, r10, r8\n\t"
            "add r9, r9, r11\n\t"
            "asr r4, r4, r12\n\t"
            "smmlar r7, r7, r10, r9\n\t"
            "asr r5, r5, r12\n\t"
            "ssat r4, #8, r4\n\t"
            "asr r6, r6, r12\n\t"
            "ssat r5, #8, r5\n\t"
            "asr r7, r7, r12\n\t"
            "ssat r6, #8, r6\n\t"
            "bfi r4, r5, #8, #8\n\t"
            "ssat r7, #8, r7\n\t"
            "bfi r4, r6, #16, #8\n\t"
            "cmp r0, lr\n\t"
            "bfi r4, r7, #24, #8\n\t"
            "str r4, [r2], #4\n\t"
            "bne 1b\n\t"
            "pop {r4-r11, pc}\n\t");
}

#else

static void add_quads(const int8_t *coarse, const int8_t *fine, int8_t *y, const double_terms *t)
{
    while (coarse != t->end) {
        *y++ = (int8_t)double_sum_of(*coarse++, *fine++, t);
    }
}

#endif

static void add_double(const void *params, const int8_t *a, const int8_t *b, int8_t *y, int32_t n)
{
    const tnf_add_dsp_params *p = (const tnf_add_dsp_params *)params;
    const int8_t *coarse = p->coarse_second != 0 ? b : a;
    const int8_t *fine = p->coarse_second != 0 ? a : b;
    const int32_t halved = p->fine_shift == 0; /* also 1/2: exact as (almost) 1, then halved */
    int32_t i;
    double_terms t;
    t.offset = -p->fine_zero_point;
    t.multiplier = halved ? INT32_MAX : p->fine_multiplier;
    t.right = halved ? 1 : -p->fine_shift;
    t.half = (int32_t)1 << (t.right - 1);
    t.coarse_offset = -p->coarse_zero_point;
    t.scale = tnf_double_scale_of(p->output_multiplier, p->output_shift, p->output_zero_point);
    t.end = coarse + (n & ~3);
    if (n >= 4) {
        add_quads(coarse, fine, y, &t);
    }
    for (i = n & ~3; i < n; i++) {
        y[i] = (int8_t)double_sum_of(coarse[i], fine[i], &t);
    }
    if (p->act_min > -128 || p->act_max < 127) {
        tnf_clamp_bytes(y, n, p->act_min, p->act_max);
    }
}

void tnf_add_dsp(const tnf_add_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const tnf_element_rows walk = {p->rows, p->n, p->a_row, p->a_step, p->b_row, p->b_step};
    (void)scratch;
    tnf_by_rows(walk, p->rounding == TNF_ROUNDING_DOUBLE ? add_double : add_single, p, a, b, y);
}
