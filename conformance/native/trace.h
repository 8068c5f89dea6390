/* How a trace build of a generated model hands its tensors out (see trace.c). */
#ifndef TNF_TRACE_H
#define TNF_TRACE_H

#include <stdint.h>

/* The next run writes every step's output, one after the other, to `log`, unless that is 0. */
void tnf_trace_begin(int8_t *log);

#endif
