#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* As in tnf_matmul, the zero point of b leaves the inner loop: sum (a - z_a)(b - z_b) = sum (a - z_a) b - z_b * sum (a - z_a). */

/* Columns of b between two visits to the tile's sums: few enough for the stack. */
#define COLUMNS (TNF_TILE_CHANNELS * TNF_TILE_PAIRS)

static uint32_t two_bytes(const int8_t *x, int32_t step)
{
    return (uint32_t)(uint8_t)x[0] | (uint32_t)(uint8_t)x[step] << 8;
}

/* Columns of b in the words of tnf_tile_sums: they are `step` apart, their elements `k_step`. Beside the last of an odd number it stands
 * again, whose sums nobody takes. */
static void pack(uint32_t *to, const int8_t *b, int32_t columns, int32_t step, int32_t k, int32_t k_step)
{
    int32_t left;
    for (; columns > 0; columns -= 2) {
        const int8_t *x = b;
        const int32_t next = columns == 1 ? 0 : step;
        for (left = k; left > 0; left -= 4) {
            to[0] = two_bytes(x, next) | (left > 2 ? two_bytes(x + 2 * k_step, next) << 16 : 0u);
            to[1] = left > 1 ? two_bytes(x + k_step, next) : 0u;
            to[1] |= left > 3 ? two_bytes(x + 3 * k_step, next) << 16 : 0u;
            to += 2;
            x += left > 4 ? 4 * k_step : 0;
        }
        b += 2 * next;
    }
}

/* What z_b subtracts from each row's sums. */
static void correct(int32_t corrections[TNF_TILE_ROWS], const uint32_t *tile, int32_t quads, int32_t zero_point)
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    const uint32_t *end = tile + quads * TNF_TILE_WORDS;
    for (; zero_point != 0 && tile != end; tile += TNF_TILE_ROWS) {
        s0 = tnf_smlad(tile[0], 0x10001u, s0);
        s1 = tnf_smlad(tile[1], 0x10001u, s1);
        s2 = tnf_smlad(tile[2], 0x10001u, s2);
        s3 = tnf_smlad(tile[3], 0x10001u, s3);
    }
    corrections[0] = zero_point * s0;
    corrections[1] = zero_point * s1;
    corrections[2] = zero_point * s2;
    corrections[3] = zero_point * s3;
}

static void finish(const tnf_matmul_dsp_params *p, const int32_t *sums, const int32_t *corrections, int32_t columns, int32_t rows,
                   int8_t *y)
{
    int32_t row;
    for (; columns > 0; columns--) {
        for (row = 0; row < rows; row++) {
            y[row * p->n] = tnf_requantize_to_int8(sums[row] - corrections[row], p->multiplier, p->shift, p->rounding,
                                                   p->output_zero_point, p->act_min, p->act_max);
        }
        sums += TNF_TILE_ROWS;
        y++;
    }
}

TNF_INLINE void finish_rounded(tnf_quick_scale scale, const int32_t *sums, const int32_t *corrections, int32_t columns, int8_t *y,
                                  int8_t *y1, int32_t rounding)
{
    const int32_t first = corrections[0], second = corrections[1];
    const int32_t *end = sums + columns * TNF_TILE_ROWS;
    while (sums != end) {
        const int32_t v0 = sums[0], v1 = sums[1];
        *y++ = (int8_t)tnf_ssat8(tnf_scaled(v0 - first, scale, rounding));
        *y1++ = (int8_t)tnf_ssat8(tnf_scaled(v1 - second, scale, rounding));
        sums += TNF_TILE_ROWS;
    }
}

/* The same where the quick last step serves, saturated to int8: two rows. */
TNF_OWN_FUNCTION void finish_single(tnf_quick_scale scale, const int32_t *sums, const int32_t *corrections, int32_t columns, int8_t *y,
                                    int8_t *y1)
{
    finish_rounded(scale, sums, corrections, columns, y, y1, TNF_ROUNDING_SINGLE);
}

TNF_OWN_FUNCTION void finish_double(tnf_quick_scale scale, const int32_t *sums, const int32_t *corrections, int32_t columns, int8_t *y,
                                    int8_t *y1)
{
    finish_rounded(scale, sums, corrections, columns, y, y1, TNF_ROUNDING_DOUBLE);
}

/* `rows` rows in a tile times packed columns. */
static void tile_outputs(const tnf_matmul_dsp_params *p, const uint32_t *tile, const uint32_t *packed, int32_t columns, int32_t rows,
                         int8_t *y)
{
    const int32_t quads = (p->k + 3) / 4, of_row = columns;
    int32_t corrections[TNF_TILE_ROWS], row;
    int8_t *first = y;
    correct(corrections, tile, quads, p->b_zero_point);
    for (; columns > 0; columns -= COLUMNS) {
        const int32_t count = columns < COLUMNS ? columns : COLUMNS;
        int32_t sums[COLUMNS * TNF_TILE_ROWS];
        tnf_tile_sums(sums, tile, packed, quads, (count + 1) / 2, 0);
        if (p->quick != 0 && rows == TNF_TILE_ROWS) {
            const int32_t twice = p->rounding == TNF_ROUNDING_DOUBLE;
            const tnf_quick_scale scale = tnf_scale_of(p->multiplier, p->shift, p->output_zero_point, p->rounding);
            (twice ? finish_double : finish_single)(scale, sums, corrections, count, y, y + p->n);
            (twice ? finish_double : finish_single)(scale, sums + 2, corrections + 2, count, y + 2 * p->n, y + 3 * p->n);
        } else {
            finish(p, sums, corrections, count, rows, y);
        }
        packed += COLUMNS * quads;
        y += count;
    }
    if (p->quick != 0 && rows == TNF_TILE_ROWS && (p->act_min > -128 || p->act_max < 127)) {
        for (row = 0; row < TNF_TILE_ROWS; row++) {
            tnf_clamp_bytes(first + row * p->n, of_row, p->act_min, p->act_max);
        }
    }
}

static void pack_columns(const tnf_matmul_dsp_params *p, const int8_t *b, int32_t columns, uint32_t *packed)
{
    pack(packed, b, columns, p->transpose_b ? p->k : 1, p->k, p->transpose_b ? 1 : p->n);
}

/* All rows of a times packed columns. */
static void multiply(const tnf_matmul_dsp_params *p, const int8_t *a, const uint32_t *packed, int32_t columns, int8_t *y, uint32_t *tile)
{
    const int32_t k = p->k;
    int32_t first, row;
    for (first = 0; first < p->m; first += TNF_TILE_ROWS) {
        const int32_t rows = p->m - first < TNF_TILE_ROWS ? p->m - first : TNF_TILE_ROWS;
        for (row = 0; row < TNF_TILE_ROWS; row++) { /* missing rows repeat the last, so that the tile holds nothing stale */
            tnf_tile_row(tile + row, TNF_TILE_ROWS, a + (first + (row < rows ? row : rows - 1)) * k, k, p->a_zero_point);
        }
        tile_outputs(p, tile, packed, columns, rows, y + first * p->n);
    }
}

void tnf_matmul_dsp_pack(const tnf_matmul_dsp_params *p, const int8_t *b, void *packed)
{
    pack_columns(p, b, p->n, (uint32_t *)packed);
}

void tnf_matmul_dsp_packed(const tnf_matmul_dsp_params *p, const int8_t *a, const void *packed, int8_t *y, void *scratch)
{
    multiply(p, a, (const uint32_t *)packed, p->n, y, (uint32_t *)scratch);
}

void tnf_matmul_dsp(const tnf_matmul_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int32_t k = p->k, n = p->n;
    uint32_t *tile = (uint32_t *)scratch;
    uint32_t *packed = tile + (k + 3) / 4 * TNF_TILE_WORDS;
    int32_t batch, column;
    for (batch = 0; batch < p->batch; batch++) {
        for (column = 0; column < n; column += p->columns) {
            const int32_t columns = n - column < p->columns ? n - column : p->columns;
            pack_columns(p, b + column * (p->transpose_b ? k : 1), columns, packed);
            multiply(p, a, packed, columns, y + column, tile);
        }
        a += p->m * k;
        b += k * n;
        y += p->m * n;
    }
}
