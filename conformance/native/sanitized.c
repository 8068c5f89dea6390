/* Runs a trace build of a generated model on what a file says, in a program of its own, so that sanitizers may end it.
 *
 * argv[1] holds runs, one after the other: a count of patches, and for each patch its step (-1: before the run), its offset in
 * the arena, its size, and its bytes; numbers are int32 of this machine. argv[2] receives the output of every step of every run.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GLUE(a, b) a##b
#define RUN_OF(prefix) GLUE(prefix, _run)
#define RUN RUN_OF(TNF_PREFIX)

struct patch {
    int32_t head[3]; /* step, offset, size */
    unsigned char *data;
};

void RUN(void *arena);
void tnf_trace_mark(int32_t step);
void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes);

static FILE *results;
static unsigned char *arena;
static struct patch *patches;
static int32_t patch_count;

void tnf_trace_mark(int32_t step)
{
    for (int32_t i = 0; i < patch_count; i++) {
        if (patches[i].head[0] == step) {
            memcpy(arena + patches[i].head[1], patches[i].data, (size_t)patches[i].head[2]);
        }
    }
}

void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes)
{
    (void)step;
    if (fwrite(data, 1, (size_t)bytes, results) != (size_t)bytes) {
        exit(3);
    }
}

static void *reserve(size_t size)
{
    void *memory = malloc(size);
    if (memory == NULL) {
        exit(3);
    }
    return memory;
}

int main(int argc, char **argv)
{
    FILE *runs = argc == 3 ? fopen(argv[1], "rb") : NULL;
    results = argc == 3 ? fopen(argv[2], "wb") : NULL;
    if (runs == NULL || results == NULL) {
        return 3;
    }
    arena = reserve(TNF_ARENA_BYTES);
    while (fread(&patch_count, sizeof patch_count, 1, runs) == 1) {
        patches = reserve(sizeof *patches * (size_t)(patch_count + 1));
        for (int32_t i = 0; i < patch_count; i++) {
            if (fread(patches[i].head, sizeof patches[i].head, 1, runs) != 1) {
                return 3;
            }
            const size_t size = (size_t)patches[i].head[2];
            patches[i].data = reserve(size + 1u);
            if (fread(patches[i].data, 1, size, runs) != size) {
                return 3;
            }
        }
        memset(arena, 0xA5, TNF_ARENA_BYTES);
        tnf_trace_mark(-1);
        RUN(arena);
        if (fflush(results) != 0) {
            return 3;
        }
        for (int32_t i = 0; i < patch_count; i++) {
            free(patches[i].data);
        }
        free(patches);
    }
    free(arena);
    return fclose(results) == 0 ? 0 : 3;
}
