#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* sum / count to nearest, ties away from zero. */
static int32_t rounded_mean(int32_t sum, int32_t count)
{
    const uint32_t magnitude = sum < 0 ? 0u - (uint32_t)sum : (uint32_t)sum;
    const int32_t mean = (int32_t)((magnitude + ((uint32_t)count >> 1)) / (uint32_t)count);
    return sum < 0 ? -mean : mean;
}

static int32_t low_half(uint32_t pair)
{
    return (int16_t)(uint16_t)(pair & 0xFFFFu);
}

static int32_t high_half(uint32_t pair)
{
    return (int16_t)(uint16_t)(pair >> 16);
}

/* The mean byte of each channel over `rows` x `cols` positions, at most 255 so that sums fit 16 bits; four channels at a time. */
static void pool_pixel(const tnf_average_pool2d_dsp_params *p, const int8_t *x, int32_t rows, int32_t cols, int8_t *y)
{
    const int32_t channels = p->channels;
    const int32_t row_stride = p->input_w * channels;
    const int32_t count = rows * cols;
    const uint32_t lo = tnf_repeat4(p->act_min), hi = tnf_repeat4(p->act_max);
    int32_t c, r, k;
    for (c = 0; c + 4 <= channels; c += 4) {
        uint32_t even = 0u, odd = 0u;
        for (r = 0; r < rows; r++) {
            const int8_t *at = x + r * row_stride + c;
            for (k = cols; k > 0; k--) {
                const uint32_t bytes = tnf_load4(at);
                even = tnf_even_pair_plus(even, bytes);
                odd = tnf_odd_pair_plus(odd, bytes);
                at += channels;
            }
        }
        tnf_store4(y + c, tnf_clamp4(tnf_pack4(rounded_mean(low_half(even), count), rounded_mean(low_half(odd), count),
                                               rounded_mean(high_half(even), count), rounded_mean(high_half(odd), count)),
                                     lo, hi));
    }
    for (; c < channels; c++) {
        int32_t sum = 0;
        for (r = 0; r < rows; r++) {
            const int8_t *at = x + r * row_stride + c;
            for (k = cols; k > 0; k--) {
                sum += *at;
                at += channels;
            }
        }
        y[c] = (int8_t)tnf_clamp(rounded_mean(sum, count), p->act_min, p->act_max);
    }
}

void tnf_average_pool2d_dsp(const tnf_average_pool2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
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
