#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* Rows whose bytes add up within 16 bits. */
#define ROWS 255

static int8_t finish(const tnf_mean_dsp_params *p, int32_t sum)
{
    return tnf_requantize_to_int8(sum - p->n * p->input_zero_point, p->multiplier, p->shift, p->rounding, p->output_zero_point,
                                  p->act_min, p->act_max);
}

/* Of n neighbouring bytes. */
TNF_OWN_FUNCTION int32_t sum_of(const int8_t *x, int32_t n)
{
    int32_t sum = 0;
    for (; n >= 4; n -= 4) {
        const uint32_t bytes = tnf_load4(x);
        sum = tnf_smlad(tnf_odd_pair(bytes), 0x10001u, tnf_smlad(tnf_even_pair(bytes), 0x10001u, sum));
        x += 4;
    }
    for (; n > 0; n--) {
        sum += *x++;
    }
    return sum;
}

/* Of four columns of n rows that are `inner` bytes long. */
TNF_OWN_FUNCTION void sums_of(int32_t sums[4], const int8_t *x, int32_t n, int32_t inner)
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    while (n > 0) {
        int32_t rows = n < ROWS ? n : ROWS;
        uint32_t even = 0u, odd = 0u;
        n -= rows;
        for (;;) {
            const uint32_t bytes = tnf_load4(x);
            even = tnf_even_pair_plus(even, bytes);
            odd = tnf_odd_pair_plus(odd, bytes);
            if (--rows == 0) {
                break; /* before the pointer leaves the tensor */
            }
            x += inner;
        }
        x += n > 0 ? inner : 0;
        s0 += (int16_t)(uint16_t)(even & 0xFFFFu);
        s1 += (int16_t)(uint16_t)(odd & 0xFFFFu);
        s2 += (int16_t)(uint16_t)(even >> 16);
        s3 += (int16_t)(uint16_t)(odd >> 16);
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

void tnf_mean_dsp(const tnf_mean_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t n = p->n, inner = p->inner;
    int32_t outer, c, i;
    (void)scratch;
    for (outer = 0; outer < p->outer; outer++) {
        for (c = 0; c < inner; c += 4) {
            /* the last four columns overlap those before where they do not come in fours */
            const int32_t start = c + 4 <= inner ? c : inner - 4;
            int32_t sums[4];
            if (inner == 1) {
                y[0] = finish(p, sum_of(x, n));
                break;
            }
            sums_of(sums, x + start, n, inner);
            for (i = 0; i < 4; i++) {
                y[start + i] = finish(p, sums[i]);
            }
        }
        x += n * inner;
        y += inner;
    }
}
