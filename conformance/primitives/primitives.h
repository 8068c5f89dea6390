/* Calls a primitive of numerics.h or dsp.h on many arguments, as if it were a kernel: see primitives.c. */
#ifndef TINYFORMER_PRIMITIVES_H
#define TINYFORMER_PRIMITIVES_H

#include <stdint.h>

/* function: its place in the list of primitives.c, from 0; rows: how many times it is called. */
typedef struct {
    int32_t function;
    int32_t rows;
} tnf_primitives_params;

void tnf_primitives(const tnf_primitives_params *p, const int8_t *x, int8_t *y, void *scratch);

#endif
