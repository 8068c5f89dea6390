#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

void tnf_requantize_dsp(const tnf_requantize_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    int8_t *table = (int8_t *)scratch;
    int32_t i;
    for (i = 0; i < 256; i++) {
        table[i] = tnf_requantize_to_int8(i - 128 - p->input_zero_point, p->multiplier, p->shift, p->rounding, p->output_zero_point,
                                          p->act_min, p->act_max);
    }
    tnf_lookup_bytes(table, x, y, p->size);
}
