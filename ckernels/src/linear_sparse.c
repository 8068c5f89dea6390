#include "tinyformer/kernels.h"
#include "tinyformer/sparse.h"

void tnf_linear_sparse(const tnf_linear_sparse_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    uint32_t *tile = (uint32_t *)scratch;
    const tnf_sparse_layer layer = TNF_SPARSE_LAYER(p);
    int32_t first, row;
    for (first = 0; first < p->rows; first += TNF_SPARSE_ROWS) {
        const int32_t rows = p->rows - first < TNF_SPARSE_ROWS ? p->rows - first : TNF_SPARSE_ROWS;
        for (row = 0; row < TNF_SPARSE_ROWS; row++) { /* missing rows repeat the last */
            tnf_sparse_fill(tile, row, x, p->input_c, p->block);
            x += row + 1 < rows ? p->input_c : 0;
        }
        x += p->input_c;
        tnf_sparse_tile(&layer, tile, rows, y);
        y += rows * p->output_c;
    }
}
