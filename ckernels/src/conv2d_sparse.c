#include "tinyformer/kernels.h"
#include "tinyformer/sparse.h"

/* Put the window at (oh, ow) into a row of the tile. */
static void fill_window(const tnf_conv2d_sparse_params *p, uint32_t *to, int32_t row, const int8_t *x, int32_t oh, int32_t ow)
{
    const int32_t top = oh * p->stride_h - p->pad_top;
    const int32_t left = ow * p->stride_w - p->pad_left;
    int32_t kh, kw;
    for (kh = 0; kh < p->kernel_h; kh++) {
        const int32_t h = top + kh * p->dilation_h;
        for (kw = 0; kw < p->kernel_w; kw++) {
            const int32_t w = left + kw * p->dilation_w;
            if (h >= 0 && h < p->input_h && w >= 0 && w < p->input_w) {
                to = tnf_sparse_fill(to, row, x + (h * p->input_w + w) * p->input_c, p->input_c, p->block);
            } else {
                to = tnf_sparse_pad(to, row, p->input_zero_point, p->input_c, p->block);
            }
        }
    }
}

void tnf_conv2d_sparse(const tnf_conv2d_sparse_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    uint32_t *tile = (uint32_t *)scratch;
    const tnf_sparse_layer layer = TNF_SPARSE_LAYER(p);
    const int32_t positions = p->output_h * p->output_w;
    int32_t oh = 0, ow = 0;
    int32_t first, row;
    for (first = 0; first < positions; first += TNF_SPARSE_ROWS) {
        const int32_t rows = positions - first < TNF_SPARSE_ROWS ? positions - first : TNF_SPARSE_ROWS;
        for (row = 0; row < TNF_SPARSE_ROWS; row++) { /* missing rows repeat the last */
            fill_window(p, tile, row, x, oh, ow);
            if (row + 1 < rows || row + 1 == TNF_SPARSE_ROWS) {
                ow++;
                if (ow == p->output_w) {
                    ow = 0;
                    oh++;
                }
            }
        }
        tnf_sparse_tile(&layer, tile, rows, y);
        y += rows * p->output_c;
    }
}
