#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

void tnf_linear_dsp(const tnf_linear_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    uint32_t *tile = (uint32_t *)scratch;
    tnf_tile_layer layer;
    int32_t left, row;
    layer.weight = (const uint32_t *)p->weight;
    layer.channel = p->channel;
    layer.quads = (p->input_c + 3) / 4;
    layer.channels = p->output_c;
    layer.stride = p->output_c;
    layer.zero_point = p->output_zero_point;
    layer.act_min = p->act_min;
    layer.act_max = p->act_max;
    layer.rounding = p->rounding;
    layer.quick = p->quick;
    for (left = p->rows; left > 0; left -= TNF_TILE_ROWS) {
        const int32_t rows = left < TNF_TILE_ROWS ? left : TNF_TILE_ROWS;
        const int32_t tile_rows = rows == 1 ? 1 : TNF_TILE_ROWS;
        for (row = 0; row < tile_rows; row++) { /* missing rows repeat the last, so that the tile holds nothing stale */
            tnf_tile_row(tile + row, tile_rows, x, p->input_c, 0);
            x += row < rows - 1 ? p->input_c : 0;
        }
        x += p->input_c;
        tnf_tile_outputs(&layer, tile, rows, y);
        y += rows * p->output_c;
    }
}
