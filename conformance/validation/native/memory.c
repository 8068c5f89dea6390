/* Working memory of the kernels, low in RAM where a linker puts variables; .data, so that it is zero from the start. */
#include <stdint.h>

extern uint8_t tnf_validation_memory[];
__attribute__((aligned(16), section(".data.tnf_validation"))) uint8_t tnf_validation_memory[TNF_VALIDATION_BYTES] = {0};
