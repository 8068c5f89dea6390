#include "tinyformer/kernels.h"
#include "tinyformer/sparse.h"

void tnf_linear_sparse(const tnf_linear_sparse_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const tnf_sparse_layer layer = TNF_SPARSE_LAYER(p);
    int32_t left = p->rows, row;
    for (; left > TNF_SPARSE_FEW; left -= TNF_SPARSE_ROWS) {
        const int32_t rows = left < TNF_SPARSE_ROWS ? left : TNF_SPARSE_ROWS;
        for (row = 0; row < TNF_SPARSE_ROWS; row++) { /* missing rows repeat the last */
            tnf_sparse_fill(tnf_sparse_row(scratch, row, p->block), x, p->input_c, p->block, TNF_SPARSE_ROWS);
            x += row + 1 < rows ? p->input_c : 0;
        }
        tnf_sparse_tile(&layer, (const uint32_t *)scratch, rows, y);
        if (left <= TNF_SPARSE_ROWS) {
            return;
        }
        x += p->input_c;
        y += rows * p->output_c;
    }
    for (;;) {
        tnf_sparse_fill((int16_t *)scratch, x, p->input_c, p->block, 1);
        tnf_sparse_single_row(&layer, scratch, y);
        if (--left == 0) {
            return; /* before the pointers leave the tensors */
        }
        x += p->input_c;
        y += p->output_c;
    }
}
