#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

static int8_t finish(const tnf_linear_params *p, int32_t acc, int32_t o)
{
    return tnf_requantize_to_int8(acc, p->multiplier[o], p->shift[o], p->rounding, p->output_zero_point, p->act_min, p->act_max);
}

void tnf_linear(const tnf_linear_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t n = p->input_c;
    const int32_t outputs = p->output_c;
    int32_t row, o, j;
    (void)scratch;
    for (row = 0; row < p->rows; row++) {
        const int8_t *w = p->weight;
        for (o = 0; o + 4 <= outputs; o += 4) {
            int32_t acc[4];
            for (j = 0; j < 4; j++) {
                acc[j] = p->bias[o + j];
            }
            tnf_dot4(acc, x, w, n, n, p->input_zero_point);
            for (j = 0; j < 4; j++) {
                y[o + j] = finish(p, acc[j], o + j);
            }
            w += 4 * n;
        }
        for (; o < outputs; o++) {
            y[o] = finish(p, tnf_dot(p->bias[o], x, w, n, p->input_zero_point), o);
            w += n;
        }
        x += n;
        y += outputs;
    }
}
