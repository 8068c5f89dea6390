/* Working memory of the kernels: a variable, low in RAM where a linker puts them. */
#include <stdint.h>

extern uint8_t tnf_validation_memory[];
__attribute__((aligned(16))) uint8_t tnf_validation_memory[TNF_VALIDATION_BYTES];
