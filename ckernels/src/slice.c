#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

void tnf_slice(const tnf_slice_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t axes = p->rank - 1;
    const int32_t n = p->dims[axes];
    const int32_t stride = p->strides[axes];
    int32_t index[TNF_MAX_RANK] = {0};
    (void)scratch;
    do {
        const int8_t *row = x + p->offset + tnf_offset(index, p->strides, axes);
        int32_t i;
        if (stride == 1) {
            for (i = 0; i < n; i++) {
                y[i] = row[i];
            }
        } else {
            for (i = 0; i < n; i++) {
                y[i] = row[i * stride];
            }
        }
        y += n;
    } while (tnf_next_index(index, p->dims, axes));
}
