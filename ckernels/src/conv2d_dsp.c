#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* A row of a tile, written from its first column on. Its quads need not begin where runs of the image do, unless channels come in
 * fours: otherwise the row is put together as bytes first. */
typedef struct {
    uint32_t *tile; /* the row's next quad, in a tile of so many rows */
    int32_t rows;
    int8_t *bytes; /* the next byte, or NULL where runs go straight to the tile */
} tile_row;

static void copy(int8_t *to, const int8_t *x, int32_t n)
{
    if (n < 4) {
        for (; n > 0; n--) {
            *to++ = *x++;
        }
        return;
    }
    for (; n > 4; n -= 4) {
        tnf_store4(to, tnf_load4(x));
        to += 4;
        x += 4;
    }
    tnf_store4(to + n - 4, tnf_load4(x + n - 4)); /* the last four, some of them once more */
}

TNF_OWN_FUNCTION void put(tile_row *to, const int8_t *x, int32_t n)
{
    if (to->bytes != 0) {
        copy(to->bytes, x, n);
        to->bytes += n;
    } else {
        tnf_tile_row(to->tile, to->rows, x, n, 0);
        to->tile += n / 2 * to->rows;
    }
}

TNF_OWN_FUNCTION void put_outside(tile_row *to, int32_t zero_point, int32_t n)
{
    const uint32_t bytes = tnf_repeat4(zero_point);
    if (to->bytes != 0) {
        for (; n > 0; n--) {
            *to->bytes++ = (int8_t)zero_point;
        }
    }
    for (; n > 0; n -= 4) {
        tnf_tile_quad(to->tile, to->rows, bytes, 0);
        to->tile += 2 * to->rows;
    }
}

/* What the weights of one group meet at one output position, in their order: kernel_h rows of kernel_w taps of so many channels, x the
 * first of them in the image. Outside the image it is the input's zero point. */
static void gather(const tnf_conv2d_dsp_params *p, const int8_t *x, int32_t channels, int32_t top, int32_t left, tile_row to)
{
    const int32_t pixel = p->input_c, row = p->input_w * pixel;
    const int32_t first = tnf_window_first(left, p->dilation_w);
    const int32_t end = tnf_window_end(left, p->dilation_w, p->kernel_w, p->input_w);
    const int32_t taps = end > first ? end - first : 0;
    int32_t kh, i;
    x += taps > 0 ? (left + first * p->dilation_w) * pixel : 0;
    for (kh = 0; kh < p->kernel_h; kh++) {
        const int32_t h = top + kh * p->dilation_h;
        if (taps == 0 || h < 0 || h >= p->input_h) {
            put_outside(&to, p->input_zero_point, p->kernel_w * channels);
            continue;
        }
        if (first > 0) {
            put_outside(&to, p->input_zero_point, first * channels);
        }
        if (p->dilation_w == 1 && channels == pixel) {
            put(&to, x + h * row, taps * channels);
        } else {
            for (i = 0; i < taps; i++) {
                put(&to, x + h * row + i * p->dilation_w * pixel, channels);
            }
        }
        if (end < p->kernel_w) {
            put_outside(&to, p->input_zero_point, (p->kernel_w - end) * channels);
        }
    }
}

void tnf_conv2d_dsp(const tnf_conv2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t channels = p->input_c / p->groups;
    const int32_t taps = p->kernel_h * p->kernel_w * channels;
    int8_t *bytes = channels % 4 == 0 ? 0 : (int8_t *)scratch;
    int32_t left = p->output_h * p->output_w;
    int32_t h = 0, w = 0, row, group;
    tnf_tile_layer layer;
    uint32_t *tile;
    layer.quads = (taps + 3) / 4;
    layer.channels = p->output_c / p->groups;
    layer.stride = p->output_c;
    layer.zero_point = p->output_zero_point;
    layer.act_min = p->act_min;
    layer.act_max = p->act_max;
    layer.rounding = p->rounding;
    layer.quick = p->quick;
    tile = (uint32_t *)scratch + (bytes != 0 ? layer.quads : 0);
    for (row = taps; bytes != 0 && row < 4 * layer.quads; row++) {
        bytes[row] = 0;
    }
    for (; left > 0; left -= TNF_TILE_ROWS) {
        const int32_t rows = left < TNF_TILE_ROWS ? left : TNF_TILE_ROWS;
        const int32_t tile_rows = rows == 1 ? 1 : TNF_TILE_ROWS;
        const int32_t first_h = h, first_w = w;
        const int8_t *from = x;
        layer.weight = (const uint32_t *)p->weight;
        layer.channel = p->channel;
        for (group = 0; group < p->groups; group++) {
            h = first_h; /* the positions of the tile are the same for each */
            w = first_w;
            for (row = 0; row < tile_rows; row++) { /* missing rows repeat the last, so that the tile holds nothing stale */
                tile_row to;
                to.tile = tile + row;
                to.rows = tile_rows;
                to.bytes = bytes;
                gather(p, from, channels, h * p->stride_h - p->pad_top, w * p->stride_w - p->pad_left, to);
                if (bytes != 0) {
                    tnf_tile_row(to.tile, tile_rows, bytes, 4 * layer.quads, 0);
                }
                if (row < rows - 1 || row == tile_rows - 1) {
                    w++;
                }
                if (w == p->output_w) {
                    w = 0;
                    h++;
                }
            }
            tnf_tile_outputs(&layer, tile, rows, y + group * layer.channels);
            layer.weight += (layer.channels + 1) / TNF_TILE_CHANNELS * 2 * layer.quads;
            layer.channel += 3 * layer.channels;
            from += channels;
        }
        y += rows * p->output_c;
    }
}
