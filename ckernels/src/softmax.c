#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

/* E(d) of docs/numerics.md for d = x - max in [-255, 0], computed when it is first needed: entry -d of the table is valid when its
 * bit is set. E is 0 below diff_min, which gives the sum and the output that the contract asks for there without another test. */
typedef struct {
    int32_t value[256];
    uint32_t valid[8];
} exponentials;

typedef char exponentials_fit_the_scratch[sizeof(exponentials) == TNF_SOFTMAX_SCRATCH_BYTES ? 1 : -1];

static int32_t fill(const tnf_softmax_params *p, exponentials *table, int32_t minus_d)
{
    const int32_t e = tnf_softmax_exponential(minus_d, p->multiplier, p->shift, p->diff_min);
    table->value[minus_d] = e;
    table->valid[minus_d >> 5] |= (uint32_t)1 << (minus_d & 31);
    return e;
}

void tnf_softmax_begin(void *scratch)
{
    exponentials *table = (exponentials *)scratch;
    int32_t i;
    for (i = 0; i < 8; i++) {
        table->valid[i] = 0u;
    }
}

void tnf_softmax_rows(const tnf_softmax_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    exponentials *table = (exponentials *)scratch;
    const int32_t *value = table->value;
    const int32_t n = p->n;
    int32_t row, i;
    for (row = 0; row < p->rows; row++) {
        int32_t max = x[0];
        int32_t sum = 0;
        int32_t zeros, reciprocal, right;
        for (i = 1; i < n; i++) {
            max = x[i] > max ? x[i] : max;
        }
        for (i = 0; i < n; i++) {
            const int32_t minus_d = max - x[i];
            const int32_t known = (int32_t)((table->valid[minus_d >> 5] >> (minus_d & 31)) & 1u);
            const int32_t e = known ? value[minus_d] : fill(p, table, minus_d);
            sum += tnf_rdbpot_unsigned((uint32_t)e, 12);
        }
        zeros = tnf_leading_zeros((uint32_t)sum);
        reciprocal = tnf_reciprocal((int32_t)(((uint32_t)sum << zeros) & 0x7FFFFFFFu));
        right = 12 - zeros + 23;
        if (right > 31) { /* so many elements alike that each is less than half a step */
            reciprocal = 0;
            right = 31;
        }
        for (i = 0; i < n; i++) {
            const int32_t probability = tnf_srdhm_unsaturated(reciprocal, value[max - x[i]]);
            y[i] = (int8_t)tnf_clamp(tnf_rdbpot_unsigned((uint32_t)probability, right) - 128, -128, 127);
        }
        x += n;
        y += n;
    }
}

void tnf_softmax(const tnf_softmax_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    tnf_softmax_begin(scratch);
    tnf_softmax_rows(p, x, y, scratch);
}
