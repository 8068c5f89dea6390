#include "dense.h"

void tnf_plain_linear(const tnf_dense_linear_params *p, const int8_t *x, int8_t *y)
{
    const int8_t *weight = p->weight;
    for (int32_t o = 0; o < p->outputs; o++) {
        int32_t sum = p->bias[o] * (1 << p->bias_shift) + (int32_t)((1u << p->output_shift) >> 1);
        for (int32_t i = 0; i < p->inputs; i++) {
            sum += *weight++ * x[i];
        }
        sum >>= p->output_shift;
        y[o] = (int8_t)(sum < -128 ? -128 : sum > 127 ? 127 : sum);
    }
}
