/* What a firmware's program is to its boot code. */
#ifndef TNF_BOOT_H
#define TNF_BOOT_H

#include <stdint.h>

/* How a firmware ends, where it does not end with its program's own code. */
enum { TNF_ENDED = 0, TNF_FILE_ERROR = 2, TNF_FAULT = 3 };

/* The program; returns the exit code. */
uint32_t tnf_program(void);

#endif
