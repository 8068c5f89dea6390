#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

#define ONES 0x00010001u

static tnf_layernorm_scale measure_row(const tnf_layernorm_dsp_params *p, const int8_t *x)
{
    tnf_layernorm_scale scale;
    int32_t sum = 0, squares = 0, n = p->n;
    for (; n >= 4; n -= 4) {
        const uint32_t bytes = tnf_load4(x), even = tnf_even_pair(bytes), odd = tnf_odd_pair(bytes);
        sum = tnf_smlad(odd, ONES, tnf_smlad(even, ONES, sum));
        squares = tnf_smlad(odd, odd, tnf_smlad(even, even, squares));
        x += 4;
    }
    for (; n > 0; n--) {
        sum += *x;
        squares += *x * *x;
        x++;
    }
    tnf_layernorm_scale_of(&scale, sum, squares, p->n, p->scale_bits, p->epsilon_low, p->epsilon_high);
    return scale;
}

/* What one row needs: h is ((x * unit + minus_mean) * reciprocal + half * 2^32) >> (32 + right), in 16 bits. */
typedef struct {
    int32_t unit, minus_mean, reciprocal, half, right;
    tnf_quick_scale scale;
    const int8_t *end;
} row_constants;

static int32_t normalised(int32_t x, const row_constants *row, const int32_t *affine)
{
    const int32_t deviation = (int32_t)((uint32_t)x * (uint32_t)row->unit + (uint32_t)row->minus_mean);
    const int32_t h = tnf_ssat16(tnf_smmla(deviation, row->reciprocal, row->half) >> row->right);
    return tnf_ssat8(tnf_quick_requantize(h * affine[0] + affine[1], row->scale));
}

/* Four elements at a time, one group at least, until x is row->end. */
#if TNF_DSP_INSTRUCTIONS

/* Registers: r0 x, r1 y, r2 affine, r3-r6 the elements, r7-r11 the first five of the row's constants. The rest of them are on the stack,
 * and r10 lends its place to the last shift. */
__attribute__((naked, noinline)) static void finish_quads(const int8_t *x, int8_t *y, const int32_t *affine, const row_constants *row)
{
    __asm__("push {r4-r11, lr}\n\t"
            "ldm r3!, {r7-r11}\n\t"
            "ldm r3, {r4-r6, r12}\n\t"
            "push {r4-r6, r10, r12}\n\t"
            "1:\n\t"
            "ldr r12, [r0], #4\n\t"
            "sxtb r3, r12\n\t"
            "sxtb r4, r12, ror #8\n\t"
            "mla r3, r3, r7, r8\n\t"
            "sxtb r5, r12, ror #16\n\t"
            "mla r4, r4, r7, r8\n\t"
            "sxtb r6, r12, ror #24\n\t"
            "mla r5, r5, r7, r8\n\t"
            "ldr r12, [r2]\n\t"
            "ldr lr, [r2, #4]\n\t"
            "mla r6, r6, r7, r8\n\t"
            "smmla r3, r3, r9, r10\n\t"
            "smmla r4, r4, r9, r10\n\t"
            "asr r3, r3, r11\n\t"
            "smmla r5, r5, r9, r10\n\t"
            "asr r4, r4, r11\n\t"
            "ssat r3, #16, r3\n\t"
            "smmla r6, r6, r9, r10\n\t"
            "asr r5, r5, r11\n\t"
            "ssat r4, #16, r4\n\t"
            "mla r3, r3, r12, lr\n\t"
            "ldr r12, [r2, #8]\n\t"
            "ldr lr, [r2, #12]\n\t"
            "asr r6, r6, r11\n\t"
            "ssat r5, #16, r5\n\t"
            "mla r4, r4, r12, lr\n\t"
            "ldr r12, [r2, #16]\n\t"
            "ldr lr, [r2, #20]\n\t"
            "ssat r6, #16, r6\n\t"
            "ldr r10, [sp, #8]\n\t"
            "mla r5, r5, r12, lr\n\t"
            "ldr r12, [r2, #24]\n\t"
            "ldr lr, [r2, #28]\n\t"
            "add r2, #32\n\t"
            "mla r6, r6, r12, lr\n\t"
            "ldr r12, [sp]\n\t"
            "ldr lr, [sp, #4]\n\t"
            "smmla r3, r3, r12, lr\n\t"
            "smmla r4, r4, r12, lr\n\t"
            "asr r3, r3, r10\n\t"
            "smmla r5, r5, r12, lr\n\t"
            "asr r4, r4, r10\n\t"
            "ssat r3, #8, r3\n\t"
            "smmla r6, r6, r12, lr\n\t"
            "asr r5, r5, r10\n\t"
            "ssat r4, #8, r4\n\t"
            "ldr lr, [sp, #16]\n\t"
            "asr r6, r6, r10\n\t"
            "ldr r10, [sp, #12]\n\t"
            "bfi r3, r4, #8, #8\n\t"
            "ssat r5, #8, r5\n\t"
            "ssat r6, #8, r6\n\t"
            "bfi r3, r5, #16, #8\n\t"
            "bfi r3, r6, #24, #8\n\t"
            "cmp r0, lr\n\t"
            "str r3, [r1], #4\n\t"
            "bne 1b\n\t"
            "add sp, #20\n\t"
            "pop {r4-r11, pc}\n\t");
}

#else

static void finish_quads(const int8_t *x, int8_t *y, const int32_t *affine, const row_constants *row)
{
    while (x != row->end) {
        *y++ = (int8_t)normalised(*x++, row, affine);
        affine += 2;
    }
}

#endif

void tnf_layernorm_dsp(const tnf_layernorm_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t n = p->n, quads = n & ~3;
    int32_t row, i;
    (void)scratch;
    for (row = 0; row < p->rows; row++) {
        const tnf_layernorm_scale of = measure_row(p, x);
        row_constants constants;
        constants.unit = (int32_t)((uint32_t)n * (uint32_t)of.prescale);
        constants.minus_mean = (int32_t)(0u - (uint32_t)of.sum * (uint32_t)of.prescale);
        constants.reciprocal = of.reciprocal;
        constants.half = (int32_t)1 << (of.right - 1);
        constants.right = of.right;
        constants.scale = tnf_quick_scale_of(p->multiplier, p->shift, p->output_zero_point);
        constants.end = x + quads;
        if (quads > 0) {
            finish_quads(x, y, p->affine, &constants);
        }
        for (i = quads; i < n; i++) {
            y[i] = (int8_t)normalised(x[i], &constants, p->affine + 2 * i);
        }
        if (p->act_min > -128 || p->act_max < 127) {
            tnf_clamp_bytes(y, n, p->act_min, p->act_max);
        }
        x += n;
        y += n;
    }
}
