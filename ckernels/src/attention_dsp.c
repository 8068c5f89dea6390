#include "tinyformer/kernels.h"

/* As tnf_attention, with the kernels for the DSP extension; keys and values of a head are packed once for all of its tiles. */

static int32_t up_to(int32_t v, int32_t multiple)
{
    return (v + multiple - 1) / multiple * multiple;
}

void tnf_attention_dsp(const tnf_attention_dsp_params *p, const int8_t *q, const int8_t *k, const int8_t *v, int8_t *y, void *scratch)
{
    tnf_matmul_dsp_params scores = {
        .batch = 1,
        .m = 0,
        .k = p->k,
        .n = p->n,
        .transpose_b = p->scores_transpose_b,
        .a_zero_point = p->scores_a_zero_point,
        .b_zero_point = p->scores_b_zero_point,
        .output_zero_point = p->scores_output_zero_point,
        .multiplier = p->scores_multiplier,
        .shift = p->scores_shift,
        .act_min = p->scores_act_min,
        .act_max = p->scores_act_max,
        .rounding = p->scores_rounding,
        .quick = p->scores_quick,
        .columns = 0,
    };
    tnf_matmul_dsp_params context = {
        .batch = 1,
        .m = 0,
        .k = p->n,
        .n = p->d,
        .transpose_b = p->context_transpose_b,
        .a_zero_point = p->context_a_zero_point,
        .b_zero_point = p->context_b_zero_point,
        .output_zero_point = p->context_output_zero_point,
        .multiplier = p->context_multiplier,
        .shift = p->context_shift,
        .act_min = p->context_act_min,
        .act_max = p->context_act_max,
        .rounding = p->context_rounding,
        .quick = p->context_quick,
        .columns = 0,
    };
    tnf_softmax_dsp_params softmax = {
        .rows = 0,
        .n = p->n,
        .multiplier = p->softmax_multiplier,
        .shift = p->softmax_shift,
        .diff_min = p->softmax_diff_min,
    };
    int8_t *keys = (int8_t *)scratch + TNF_SOFTMAX_DSP_SCRATCH_BYTES;
    int8_t *values = keys + up_to(p->k, 4) * up_to(p->n, 2);
    int8_t *work = values + up_to(p->n, 4) * up_to(p->d, 2);
    int8_t *tile = work + 8 * up_to(p->k > p->n ? p->k : p->n, 4);
    int32_t batch, row;
    tnf_softmax_dsp_begin(&softmax, scratch);
    for (batch = 0; batch < p->batch; batch++) {
        tnf_matmul_dsp_pack(&scores, k, keys);
        tnf_matmul_dsp_pack(&context, v, values);
        for (row = 0; row < p->m; row += p->tile_rows) {
            const int32_t rows = p->m - row < p->tile_rows ? p->m - row : p->tile_rows;
            scores.m = softmax.rows = context.m = rows;
            tnf_matmul_dsp_packed(&scores, q, keys, tile, work);
            tnf_softmax_dsp_rows(&softmax, tile, tile, scratch);
            tnf_matmul_dsp_packed(&context, tile, values, y, work);
            q += rows * p->k;
            y += rows * p->d;
        }
        k += p->k * p->n;
        v += p->n * p->d;
    }
}
