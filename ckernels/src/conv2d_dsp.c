#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

static int8_t *copy(int8_t *to, const int8_t *x, int32_t n)
{
    for (; n >= 4; n -= 4) {
        tnf_store4(to, tnf_load4(x));
        to += 4;
        x += 4;
    }
    for (; n > 0; n--) {
        *to++ = *x++;
    }
    return to;
}

static int8_t *fill(int8_t *to, uint32_t bytes, int32_t n)
{
    for (; n >= 4; n -= 4) {
        tnf_store4(to, bytes);
        to += 4;
    }
    for (; n > 0; n--) {
        *to++ = (int8_t)(uint8_t)(bytes & 0xFFu);
    }
    return to;
}

/* What the weights of one output position meet, in their order: kernel_h rows of kernel_w taps of input_c bytes. Outside the image it
 * is the input's zero point. */
static void gather(const tnf_conv2d_dsp_params *p, const int8_t *x, int32_t top, int32_t left, int8_t *to)
{
    const uint32_t outside = tnf_repeat4(p->input_zero_point);
    const int32_t channels = p->input_c, row = p->input_w * channels;
    const int32_t first = tnf_window_first(left, p->dilation_w);
    const int32_t end = tnf_window_end(left, p->dilation_w, p->kernel_w, p->input_w);
    int32_t taps = end > first ? end - first : 0;
    int32_t kh, i;
    x += taps > 0 ? (left + first * p->dilation_w) * channels : 0;
    for (kh = 0; kh < p->kernel_h; kh++) {
        const int32_t h = top + kh * p->dilation_h;
        if (taps == 0 || h < 0 || h >= p->input_h) {
            to = fill(to, outside, p->kernel_w * channels);
        } else {
            to = fill(to, outside, first * channels);
            if (p->dilation_w == 1) {
                to = copy(to, x + h * row, taps * channels);
            } else {
                for (i = 0; i < taps; i++) {
                    to = copy(to, x + h * row + i * p->dilation_w * channels, channels);
                }
            }
            to = fill(to, outside, (p->kernel_w - end) * channels);
        }
    }
}

void tnf_conv2d_dsp(const tnf_conv2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t taps = p->kernel_h * p->kernel_w * p->input_c;
    int8_t *bytes = (int8_t *)scratch;
    int32_t left = p->output_h * p->output_w;
    int32_t h = 0, w = 0, row;
    tnf_tile_layer layer;
    uint32_t *tile;
    layer.weight = (const uint32_t *)p->weight;
    layer.channel = p->channel;
    layer.quads = (taps + 3) / 4;
    layer.channels = p->output_c;
    layer.zero_point = p->output_zero_point;
    layer.act_min = p->act_min;
    layer.act_max = p->act_max;
    layer.rounding = p->rounding;
    layer.quick = p->quick;
    tile = (uint32_t *)scratch + layer.quads;
    for (; left > 0; left -= TNF_TILE_ROWS) {
        const int32_t rows = left < TNF_TILE_ROWS ? left : TNF_TILE_ROWS;
        const int32_t tile_rows = rows == 1 ? 1 : TNF_TILE_ROWS;
        for (row = 0; row < tile_rows; row++) { /* missing rows repeat the last, so that the tile holds nothing stale */
            if (row < rows) {
                gather(p, x, h * p->stride_h - p->pad_top, w * p->stride_w - p->pad_left, bytes);
                w++;
                if (w == p->output_w) {
                    w = 0;
                    h++;
                }
            }
            tnf_tile_row(tile + row, tile_rows, bytes, taps, 0);
        }
        tnf_tile_outputs(&layer, tile, rows, y);
        y += rows * p->output_c;
    }
}
