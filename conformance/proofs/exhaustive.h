#ifndef TINYFORMER_EXHAUSTIVE_H
#define TINYFORMER_EXHAUSTIVE_H

#include <stdint.h>

int64_t tnf_try_exp_negative(int64_t first, int64_t count, int64_t step);
int64_t tnf_try_reciprocal(int64_t first, int64_t count, int64_t step);
int64_t tnf_try_divide_2_61(int64_t first, int64_t count, int64_t step);
int64_t tnf_try_isqrt(int64_t first, int64_t count, int64_t step);

#endif
