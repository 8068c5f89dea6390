/* The other side of a trace build's hooks: writes every step's output to a log. */
#include "trace.h"

/* Set in the mark that ends a step, so that the copying below is not counted as part of it. */
#define STEP_ENDS ((int32_t)1 << 30)

void tnf_trace_mark(int32_t step);
void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes);

static int8_t *next; /* 0: steps are marked only */

void tnf_trace_begin(int8_t *log)
{
    next = log;
}

void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes)
{
    tnf_trace_mark(step | STEP_ENDS);
    if (next != 0) {
        __builtin_memcpy(next, data, (uint32_t)bytes);
        next += bytes;
    }
}

/* On a Cortex-M the start-up code has it, where the emulator watches for it. */
#if !defined(__arm__)
void tnf_trace_mark(int32_t step)
{
    (void)step;
}
#endif
