#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

/* 1 where the output row at this index comes from the input, 0 where it is padding only. */
static int32_t inside(const tnf_pad_params *p, const int32_t *index, int32_t axes)
{
    int32_t axis;
    for (axis = 0; axis < axes; axis++) {
        const int32_t at = index[axis] - p->before[axis];
        if (at < 0 || at >= p->input_dims[axis]) {
            return 0;
        }
    }
    return 1;
}

void tnf_pad(const tnf_pad_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t axes = p->rank - 1;
    const int32_t n = p->output_dims[axes];
    const int32_t before = p->before[axes];
    const int32_t width = p->input_dims[axes];
    const int8_t value = (int8_t)p->value;
    int32_t index[TNF_MAX_RANK] = {0};
    (void)scratch;
    do {
        int32_t i = 0;
        /* Rows come in the order of the input's, so the input is read straight through. */
        if (inside(p, index, axes)) {
            for (; i < before; i++) {
                y[i] = value;
            }
            for (; i < before + width; i++) {
                y[i] = *x++;
            }
        }
        for (; i < n; i++) {
            y[i] = value;
        }
        y += n;
    } while (tnf_next_index(index, p->output_dims, axes));
}
