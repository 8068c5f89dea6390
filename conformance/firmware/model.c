/* The program of a firmware around a generated model: runs every sample of a file and writes what each step wrote to another.
 *
 * inputs.bin: the inputs of one sample after the other, in the order of the model's ports, int8.
 * trace.bin: of each sample the outputs of all steps, in order, each as it was when its step ended; then the model's outputs.
 *
 * The build says what the model is: TNF_RUN, its function; TNF_ARENA_BYTES; TNF_INPUTS and TNF_OUTPUTS, a {offset, bytes} for
 * each port. The model is built with TNF_TRACE.
 */
#include "boot.h"
#include "semihosting.h"

struct port {
    uint32_t offset, bytes;
};
static const struct port inputs[] = {TNF_INPUTS};
static const struct port outputs[] = {TNF_OUTPUTS};

extern int8_t tnf_arena[];

void TNF_RUN(void *arena);
void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes);

static int32_t trace;
static uint32_t unwritten;

void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes)
{
    (void)step;
    unwritten += tnf_write(trace, data, (uint32_t)bytes);
}

/* True once the next sample is in the arena, whose other bytes are what no model may rely on. */
static int32_t next_sample(int32_t file)
{
    for (uint32_t i = 0u; i < TNF_ARENA_BYTES; i++) {
        tnf_arena[i] = -91; /* 0xA5 */
    }
    for (uint32_t i = 0u; i < sizeof inputs / sizeof inputs[0]; i++) {
        if (tnf_read(file, tnf_arena + inputs[i].offset, inputs[i].bytes) != 0u) {
            return 0;
        }
    }
    return 1;
}

uint32_t tnf_program(void)
{
    const int32_t file = tnf_open("inputs.bin", TNF_READ_BINARY);
    trace = tnf_open("trace.bin", TNF_WRITE_BINARY);
    if (file < 0 || trace < 0) {
        tnf_print("inputs.bin cannot be read or trace.bin not be written\n");
        return TNF_FILE_ERROR;
    }
    while (next_sample(file)) {
        TNF_RUN(tnf_arena);
        for (uint32_t i = 0u; i < sizeof outputs / sizeof outputs[0]; i++) {
            unwritten += tnf_write(trace, tnf_arena + outputs[i].offset, outputs[i].bytes);
        }
    }
    tnf_close(trace);
    return unwritten == 0u ? TNF_ENDED : TNF_FILE_ERROR;
}
