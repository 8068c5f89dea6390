#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

/* The largest byte of each channel over `rows` x `cols` positions, two channels at a time. */
static void pool_pixel(const tnf_max_pool2d_params *p, const int8_t *x, int32_t rows, int32_t cols, int8_t *y)
{
    const int32_t channels = p->channels;
    const int32_t row_stride = p->input_w * channels;
    int32_t c, r, k;
    for (c = 0; c < channels; c += 2) {
        const int32_t next = c + 1 < channels ? 1 : 0; /* an odd last channel is taken twice */
        int32_t m0 = -128, m1 = -128;
        for (r = 0; r < rows; r++) {
            int32_t at = r * row_stride + c;
            for (k = 0; k < cols; k++) {
                const int32_t x0 = x[at];
                const int32_t x1 = x[at + next];
                m0 = x0 > m0 ? x0 : m0;
                m1 = x1 > m1 ? x1 : m1;
                at += channels;
            }
        }
        y[c] = (int8_t)tnf_clamp(m0, p->act_min, p->act_max);
        y[c + next] = (int8_t)tnf_clamp(m1, p->act_min, p->act_max);
    }
}

void tnf_max_pool2d(const tnf_max_pool2d_params *p, const int8_t *x, int8_t *y, void *scratch)
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
