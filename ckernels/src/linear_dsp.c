#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* Pairs of channels between two visits to the tile's sums: few enough for the stack. */
#define PAIRS 8

static void finish(const tnf_linear_dsp_params *p, const int32_t *sums, int32_t channel, int32_t pairs, int32_t rows, int8_t *y)
{
    const int32_t end = channel + 2 * pairs < p->output_c ? channel + 2 * pairs : p->output_c;
    int32_t row;
    for (; channel < end; channel++) {
        for (row = 0; row < rows; row++) {
            y[row * p->output_c + channel] =
                tnf_requantize_to_int8(sums[TNF_TILE_CHANNELS * row] + p->bias[channel], p->multiplier[channel], p->shift[channel],
                                       p->rounding, p->output_zero_point, p->act_min, p->act_max);
        }
        sums += channel % 2 == 0 ? 1 : TNF_TILE_SUMS - 1;
    }
}

/* The same for whole tiles where the quick last step serves. */
static void finish_quickly(const tnf_linear_dsp_params *p, const int32_t *sums, int32_t channel, int32_t pairs, int8_t *y)
{
    const int32_t end = channel + 2 * pairs < p->output_c ? channel + 2 * pairs : p->output_c;
    const int32_t lo = p->act_min, hi = p->act_max, zero_point = p->output_zero_point;
    int8_t *y0 = y + channel, *y1 = y0 + p->output_c, *y2 = y1 + p->output_c;
    const int32_t *bias = p->bias, *multiplier = p->multiplier, *shift = p->shift;
    for (; channel < end; channel++) {
        const tnf_quick_scale scale = tnf_quick_scale_of(multiplier[channel], shift[channel], zero_point);
        const int32_t b = bias[channel];
        *y0++ = (int8_t)tnf_clamp(tnf_quick_requantize(sums[0] + b, scale), lo, hi);
        *y1++ = (int8_t)tnf_clamp(tnf_quick_requantize(sums[2] + b, scale), lo, hi);
        *y2++ = (int8_t)tnf_clamp(tnf_quick_requantize(sums[4] + b, scale), lo, hi);
        sums += (channel & 1) == 0 ? 1 : TNF_TILE_SUMS - 1;
    }
}

void tnf_linear_dsp(const tnf_linear_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    uint32_t *tile = (uint32_t *)scratch;
    const int32_t quads = (p->input_c + 3) / 4;
    const int32_t pairs = (p->output_c + 1) / 2;
    int32_t first, row, pair;
    for (first = 0; first < p->rows; first += TNF_TILE_ROWS) {
        const int32_t rows = p->rows - first < TNF_TILE_ROWS ? p->rows - first : TNF_TILE_ROWS;
        for (row = 0; row < TNF_TILE_ROWS; row++) { /* missing rows repeat the last, so that the tile holds nothing stale */
            tnf_tile_row(tile, row, x, p->input_c);
            x += row + 1 < rows ? p->input_c : 0;
        }
        x += p->input_c;
        for (pair = 0; pair < pairs; pair += PAIRS) {
            const int32_t count = pairs - pair < PAIRS ? pairs - pair : PAIRS;
            int32_t sums[PAIRS * TNF_TILE_SUMS];
            tnf_tile_sums(sums, tile, (const uint32_t *)p->weight + pair * quads * TNF_TILE_CHANNELS, quads, count);
            if (p->quick != 0 && rows == TNF_TILE_ROWS) {
                finish_quickly(p, sums, 2 * pair, count, y);
            } else {
                finish(p, sums, 2 * pair, count, rows, y);
            }
        }
        y += rows * p->output_c;
    }
}
