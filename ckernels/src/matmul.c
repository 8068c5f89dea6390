#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

/* The zero point of b leaves the inner loop: sum (a - z_a)(b - z_b) = sum (a - z_a) b - z_b * sum (a - z_a). The bound on the
 * accumulator, K * A * B with B >= 128, covers both parts, and their difference is the accumulator itself. */

static int32_t row_sum(const int8_t *a, int32_t k, int32_t zero_point)
{
    int32_t sum = 0;
    int32_t i;
    for (i = 0; i < k; i++) {
        sum += a[i] - zero_point;
    }
    return sum;
}

/* acc[j] = sum over i < k of (a[i] - zero_point) * b[i * n + j]: four columns of b at a time. */
TNF_OWN_FUNCTION void columns4(int32_t acc[4], const int8_t *a, const int8_t *b, int32_t k, int32_t n, int32_t zero_point)
{
    const int8_t *end = a + k;
    int32_t v = *a++ - zero_point;
    int32_t a0 = v * b[0], a1 = v * b[1], a2 = v * b[2], a3 = v * b[3];
    while (a != end) {
        v = *a++ - zero_point;
        b += n;
        a0 += v * b[0];
        a1 += v * b[1];
        a2 += v * b[2];
        a3 += v * b[3];
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

static int32_t column(const int8_t *a, const int8_t *b, int32_t k, int32_t n, int32_t zero_point)
{
    int32_t acc = 0;
    int32_t at = 0;
    int32_t i;
    for (i = 0; i < k; i++) {
        acc += (a[i] - zero_point) * b[at];
        at += n;
    }
    return acc;
}

static int8_t finish(const tnf_matmul_params *p, int32_t acc)
{
    return tnf_requantize_to_int8(acc, p->multiplier, p->shift, p->rounding, p->output_zero_point, p->act_min, p->act_max);
}

void tnf_matmul(const tnf_matmul_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch)
{
    const int32_t k = p->k, n = p->n;
    int32_t batch, row, o, j;
    (void)scratch;
    for (batch = 0; batch < p->batch; batch++) {
        for (row = 0; row < p->m; row++) {
            const int32_t correction = p->b_zero_point == 0 ? 0 : p->b_zero_point * row_sum(a, k, p->a_zero_point);
            for (o = 0; o + 4 <= n; o += 4) {
                int32_t acc[4];
                if (p->transpose_b) {
                    acc[0] = acc[1] = acc[2] = acc[3] = 0;
                    tnf_dot4(acc, a, b + o * k, k, k, p->a_zero_point);
                } else {
                    columns4(acc, a, b + o, k, n, p->a_zero_point);
                }
                for (j = 0; j < 4; j++) {
                    y[o + j] = finish(p, acc[j] - correction);
                }
            }
            for (; o < n; o++) {
                const int32_t acc = p->transpose_b ? tnf_dot(0, a, b + o * k, k, p->a_zero_point)
                                                   : column(a, b + o, k, n, p->a_zero_point);
                y[o] = finish(p, acc - correction);
            }
            a += k;
            y += n;
        }
        b += k * n;
    }
}
