#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* The largest byte of each channel over `rows` x `cols` positions, four channels at a time. */
static void pool_pixel(const tnf_max_pool2d_dsp_params *p, const int8_t *x, int32_t rows, int32_t cols, int8_t *y)
{
    const int32_t channels = p->channels;
    const int32_t row_stride = p->input_w * channels;
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    int32_t c, r, k;
    for (c = 0; c + 4 <= channels; c += 4) {
        uint32_t most = lo;
        for (r = 0; r < rows; r++) {
            const int8_t *at = x + r * row_stride + c;
            for (k = cols; k > 0; k--) {
                most = tnf_max4(most, tnf_load4(at));
                at += channels;
            }
        }
        tnf_store4(y + c, tnf_min4(most, hi));
    }
    for (; c < channels; c++) {
        int32_t most = p->act_min;
        for (r = 0; r < rows; r++) {
            const int8_t *at = x + r * row_stride + c;
            for (k = cols; k > 0; k--) {
                most = *at > most ? *at : most;
                at += channels;
            }
        }
        y[c] = (int8_t)(most < p->act_max ? most : p->act_max);
    }
}

void tnf_max_pool2d_dsp(const tnf_max_pool2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    int32_t oh, ow;
    (void)scratch;
    for (oh = 0; oh < p->output_h; oh++) {
        const int32_t top = oh * p->stride_h - p->pad_top;
        const int32_t kh = tnf_window_first(top, 1);
        const int32_t rows = tnf_window_end(top, 1, p->kernel_h, p->input_h) - kh;
        for (ow = 0; ow < p->output_w; ow++) {
            const int32_t left = ow * p->stride_w - p->pad_left;
            const int32_t kw = tnf_window_first(left, 1);
            const int32_t cols = tnf_window_end(left, 1, p->kernel_w, p->input_w) - kw;
            pool_pixel(p, x + ((top + kh) * p->input_w + left + kw) * p->channels, rows, cols, y);
            y += p->channels;
        }
    }
}
