#include "tinyformer/kernels.h"
#include "tinyformer/sparse.h"

/* Put the window at (oh, ow) into a row of a tile of `rows`. */
TNF_COPIED void fill_window(const tnf_conv2d_sparse_params *p, int16_t *to, const int8_t *x, int32_t oh, int32_t ow, int32_t rows)
{
    const int32_t top = oh * p->stride_h - p->pad_top;
    const int32_t left = ow * p->stride_w - p->pad_left;
    int32_t kh, kw;
    for (kh = 0; kh < p->kernel_h; kh++) {
        const int32_t h = top + kh * p->dilation_h;
        for (kw = 0; kw < p->kernel_w; kw++) {
            const int32_t w = left + kw * p->dilation_w;
            if (h >= 0 && h < p->input_h && w >= 0 && w < p->input_w) {
                to = tnf_sparse_fill(to, x + (h * p->input_w + w) * p->input_c, p->input_c, p->block, rows);
            } else {
                to = tnf_sparse_pad(to, p->input_zero_point, p->input_c, p->block, rows);
            }
        }
    }
}

void tnf_conv2d_sparse(const tnf_conv2d_sparse_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const tnf_sparse_layer layer = TNF_SPARSE_LAYER(p);
    int32_t left = p->output_h * p->output_w, oh = 0, ow = 0, row;
    while (left > 0) {
        const int32_t tile_rows = left > TNF_SPARSE_FEW ? TNF_SPARSE_ROWS : 1;
        const int32_t rows = left < tile_rows ? left : tile_rows;
        for (row = 0; row < tile_rows; row++) { /* missing rows repeat the last */
            int16_t *to = tnf_sparse_row(scratch, row, p->block);
            if (tile_rows == 1) {
                fill_window(p, to, x, oh, ow, 1);
            } else {
                fill_window(p, to, x, oh, ow, TNF_SPARSE_ROWS);
            }
            if (row + 1 < rows || row + 1 == tile_rows) {
                ow++;
                if (ow == p->output_w) {
                    ow = 0;
                    oh++;
                }
            }
        }
        if (tile_rows == 1) {
            tnf_sparse_single_row(&layer, scratch, y);
        } else {
            tnf_sparse_tile(&layer, (const uint32_t *)scratch, rows, y);
        }
        left -= rows;
        y += left > 0 ? rows * p->output_c : 0;
    }
}
