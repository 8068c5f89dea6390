#include "tinyformer/kernels.h"

/* The kernels of the three operators, on a tile of query rows at a time and with one table of exponentials for all tiles. */

void tnf_attention(const tnf_attention_params *p, const int8_t *q, const int8_t *k, const int8_t *v, int8_t *y, void *scratch)
{
    tnf_matmul_params scores = {
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
    };
    tnf_matmul_params context = {
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
    };
    tnf_softmax_params softmax = {
        .rows = 0,
        .n = p->n,
        .multiplier = p->softmax_multiplier,
        .shift = p->softmax_shift,
        .diff_min = p->softmax_diff_min,
    };
    int8_t *tile = (int8_t *)scratch + TNF_SOFTMAX_SCRATCH_BYTES;
    int32_t batch, row;
    tnf_softmax_begin(scratch);
    for (batch = 0; batch < p->batch; batch++) {
        for (row = 0; row < p->m; row += p->tile_rows) {
            const int32_t rows = p->m - row < p->tile_rows ? p->m - row : p->tile_rows;
            scores.m = softmax.rows = context.m = rows;
            tnf_matmul(&scores, q, k, tile, (void *)0);
            tnf_softmax_rows(&softmax, tile, tile, scratch);
            tnf_matmul(&context, tile, v, y, (void *)0);
            q += rows * p->k;
            y += rows * p->d;
        }
        k += p->k * p->n;
        v += p->n * p->d;
    }
}
