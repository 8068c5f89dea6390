#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

void tnf_lookup(const tnf_lookup_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int8_t *table = p->table + 128; /* indexed by x itself */
    const int32_t size = p->size;
    int32_t i;
    (void)scratch;
    for (i = 0; i < size; i++) {
        y[i] = table[x[i]];
    }
}
