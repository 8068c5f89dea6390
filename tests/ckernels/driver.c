/* Runs kernel cases read from standard input and writes each output to standard output. Every array lives in an allocation of
 * exactly its size, so that the address sanitizer sees any byte read or written outside; int8 arrays start at odd addresses.
 * Exit status 3: a kernel wrote to something that is not its output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinyformer/kernels.h"

typedef struct {
    int32_t size;
    int8_t *allocation, *data, *before;
} array;

static int32_t read_int(void)
{
    int32_t v;
    if (fread(&v, sizeof v, 1, stdin) != 1) {
        exit(2);
    }
    return v;
}

static array new_array(int32_t size, int32_t odd)
{
    array out;
    out.size = size;
    out.allocation = malloc((size_t)(size + odd));
    out.data = out.allocation + odd;
    out.before = NULL;
    return out;
}

static array read_array(void)
{
    const int32_t size = read_int();
    array out = new_array(size, read_int());
    out.before = malloc((size_t)size);
    if (fread(out.data, 1, (size_t)size, stdin) != (size_t)size) {
        exit(2);
    }
    memcpy(out.before, out.data, (size_t)size);
    return out;
}

static void check_and_free(array a, int32_t is_output)
{
    if (a.before != NULL && !is_output && memcmp(a.before, a.data, (size_t)a.size) != 0) {
        exit(3);
    }
    free(a.before);
    free(a.allocation);
}


#define UNARY(name) \
    static void run_##name(const void *p, const int8_t *const *x, int8_t *y, void *scratch) { tnf_##name(p, x[0], y, scratch); }
#define BINARY(name) \
    static void run_##name(const void *p, const int8_t *const *x, int8_t *y, void *scratch) { tnf_##name(p, x[0], x[1], y, scratch); }
#define TERNARY(name) \
    static void run_##name(const void *p, const int8_t *const *x, int8_t *y, void *scratch) \
    { \
        tnf_##name(p, x[0], x[1], x[2], y, scratch); \
    }
#define VARIADIC(name) \
    static void run_##name(const void *p, const int8_t *const *x, int8_t *y, void *scratch) { tnf_##name(p, x, y, scratch); }
#define OPERATORS(U, B, T, V) \
    U(conv2d) U(depthwise_conv2d) U(linear) B(matmul) B(add) B(mul) U(requantize) U(lookup) U(softmax) U(layernorm) \
    U(max_pool2d) U(average_pool2d) U(mean) U(reshape) U(transpose) U(slice) U(pad) T(attention) V(concat)
OPERATORS(UNARY, BINARY, TERNARY, VARIADIC)

typedef struct {
    const char *name;
    void (*run)(const void *p, const int8_t *const *x, int8_t *y, void *scratch);
} operator_entry;
#define ENTRY(name) {#name, run_##name},
static const operator_entry operators[] = {OPERATORS(ENTRY, ENTRY, ENTRY, ENTRY)};

static void run_case(const char *name)
{
    array params = read_array();
    const int32_t inputs = read_int();
    const int32_t tables = read_int();
    const int32_t in_place = read_int();
    const int32_t scratch_size = read_int();
    array y = new_array(read_int(), 1);
    array scratch = new_array(scratch_size, 0);
    array arrays[16];
    const int8_t *xs[16];
    size_t k;
    int32_t i;
    for (i = 0; i < inputs + tables; i++) {
        if (i >= inputs) { /* where in params the pointer to this table stands */
            const int32_t offset = read_int();
            arrays[i] = read_array();
            memcpy(params.data + offset, &arrays[i].data, sizeof arrays[i].data);
        } else {
            arrays[i] = read_array();
            xs[i] = arrays[i].data;
        }
    }
    memcpy(params.before, params.data, (size_t)params.size);
    memset(scratch.data, 0x5A, (size_t)scratch.size);
    for (k = 0; k < sizeof operators / sizeof operators[0]; k++) {
        if (strcmp(operators[k].name, name) == 0) {
            operators[k].run(params.data, xs, in_place >= 0 ? arrays[in_place].data : y.data, scratch_size ? scratch.data : NULL);
        }
    }
    fwrite(in_place >= 0 ? arrays[in_place].data : y.data, 1, (size_t)y.size, stdout);
    for (i = 0; i < inputs + tables; i++) {
        check_and_free(arrays[i], i == in_place);
    }
    check_and_free(params, 0);
    check_and_free(scratch, 1);
    check_and_free(y, 1);
}

int main(void)
{
    char name[32];
    while (fread(name, sizeof name, 1, stdin) == 1) {
        run_case(name);
    }
    return 0;
}
