/* An engine behind the protocol of docs/vectors.md: adapter CASE OUTPUTS.
 *
 * The engine is the portable kernels of ckernels/, of which a few are connected: put your own in the place of their calls. What a case
 * says is found by its names in the text of case.json; arrays are .npy files. The exit code is 0 where the output was written, 3 where
 * the case is not legal, and 4 where this adapter has no kernel for it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinyformer/kernels.h"

enum { FAILED = 1, REFUSED = 3, UNSUPPORTED = 4, MOST_AXES = 8 };

static const char *folder;
static char *text;

static void stop(int code, const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(code);
}

static void require(int legal, const char *why)
{
    if (!legal) {
        stop(REFUSED, why);
    }
}

/* ---- files ---- */

static char *read_file(const char *name, long *size)
{
    char path[4096];
    FILE *file;
    char *data;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        stop(FAILED, path);
    }
    *size = ftell(file);
    data = malloc((size_t)*size + 1);
    rewind(file);
    if (data == NULL || fread(data, 1, (size_t)*size, file) != (size_t)*size) {
        stop(FAILED, path);
    }
    data[*size] = 0;
    fclose(file);
    return data;
}

typedef struct {
    int32_t rank, size;
    int32_t shape[MOST_AXES];
    const void *data;
} array;

/* A .npy file of integers in C order: ten bytes, of which the last two are the header's length, the header, the data. */
static array load(const char *name)
{
    array result = {0, 1, {0}, NULL};
    char file[256];
    long bytes;
    char *data, *at;
    void *aligned;
    size_t header;
    snprintf(file, sizeof file, "%s.npy", name);
    data = read_file(file, &bytes);
    header = 10u + (size_t)(uint8_t)data[8] + 256u * (size_t)(uint8_t)data[9];
    at = strstr(data + 10, "'shape': (") + strlen("'shape': (");
    while (*at != ')') {
        char *end;
        const long length = strtol(at, &end, 10);
        if (end == at) {
            at += 1; /* a comma or a blank */
        } else {
            result.shape[result.rank++] = (int32_t)length;
            result.size *= (int32_t)length;
            at = end;
        }
    }
    aligned = malloc((size_t)bytes - header + 1);
    memcpy(aligned, data + header, (size_t)bytes - header);
    result.data = aligned;
    free(data);
    return result;
}

static void save(const char *outputs, const int8_t *data, int32_t rank, const int32_t *shape)
{
    char path[4096], header[118], dims[100] = "";
    size_t size = 1;
    int32_t i;
    FILE *file;
    for (i = 0; i < rank; i++) {
        snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%d,", (int)shape[i]);
        size *= (size_t)shape[i];
    }
    memset(header, ' ', sizeof header);
    i = snprintf(header, sizeof header, "{'descr': '|i1', 'fortran_order': False, 'shape': (%s), }", dims);
    header[i] = ' ';
    header[sizeof header - 1] = '\n';
    snprintf(path, sizeof path, "%s/output.npy", outputs);
    file = fopen(path, "wb");
    if (file == NULL || fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file) != 10 ||
        fwrite(header, 1, sizeof header, file) != sizeof header || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
        stop(FAILED, path);
    }
}

/* ---- parameters ---- */

/* What follows "name": in the descriptor. */
static const char *value_of(const char *name)
{
    char key[128];
    const char *at;
    snprintf(key, sizeof key, "\"%s\":", name);
    at = strstr(text, key);
    if (at == NULL) {
        stop(FAILED, name);
    }
    return at + strlen(key);
}

static int32_t number(const char *name)
{
    return (int32_t)strtol(value_of(name), NULL, 10);
}

static int32_t element(const char *name, int index)
{
    const char *at = strchr(value_of(name), '[') + 1;
    while (index-- > 0) {
        at = strchr(at, ',') + 1;
    }
    return (int32_t)strtol(at, NULL, 10);
}

static int says(const char *name, const char *value)
{
    const char *at = strchr(value_of(name), '"') + 1;
    return strncmp(at, value, strlen(value)) == 0 && at[strlen(value)] == '"';
}

/* ---- what is legal (docs/numerics.md, sections 1, 2 and 4) ---- */

/* An operator's last step, a multiplier and a shift for every channel. */
typedef struct {
    int32_t zero_point, act_min, act_max, rounding;
    int32_t *multiplier, *shift;
} last_step;

static int is_int8(int32_t v)
{
    return v >= -128 && v <= 127;
}

static last_step read_last_step(int32_t channels)
{
    const array multiplier = load("output.multiplier"), shift = load("output.shift");
    last_step last;
    int32_t c;
    last.zero_point = number("output.zero_point");
    last.act_min = number("output.act_min");
    last.act_max = number("output.act_max");
    last.rounding = says("output.rounding", "double") ? TNF_ROUNDING_DOUBLE : TNF_ROUNDING_SINGLE;
    last.multiplier = malloc((size_t)channels * sizeof(int32_t));
    last.shift = malloc((size_t)channels * sizeof(int32_t));
    require(is_int8(last.zero_point), "output zero point");
    require(is_int8(last.act_min) && is_int8(last.act_max) && last.act_min <= last.act_max, "activation range");
    require(multiplier.size == shift.size && (multiplier.size == 1 || multiplier.size == channels), "number of multipliers");
    for (c = 0; c < channels; c++) {
        const int32_t from = multiplier.size == 1 ? 0 : c;
        const int32_t m = ((const int32_t *)multiplier.data)[from], s = ((const int32_t *)shift.data)[from];
        const int32_t lowest = last.rounding == TNF_ROUNDING_DOUBLE ? 1 << 29 : 1 << 30;
        require((m >= lowest && s >= -31 && s <= 30) || (m == 0 && s == 0), "multiplier or shift");
        last.multiplier[c] = m;
        last.shift[c] = s;
    }
    return last;
}

/* No accumulator of at most this magnitude may leave int32, nor its product 2^30. */
static void check_bound(int64_t bound, int32_t multiplier, int32_t shift, int32_t rounding)
{
    const int32_t t = 31 - shift;
    require(bound <= INT32_MAX, "the accumulator may leave int32");
    if (multiplier == 0) {
        return;
    }
    if (rounding == TNF_ROUNDING_SINGLE) {
        require((bound * multiplier + ((int64_t)1 << (t - 1))) >> t <= 1 << 30, "the result may leave 2^30");
    } else {
        require(shift <= 0 || bound <= INT32_MAX >> shift, "the accumulator may leave int32 when shifted");
        require((bound * multiplier + ((int64_t)1 << t) - 1) >> t < 1 << 30, "the result may leave 2^30");
    }
}

static int64_t distance(int32_t zero_point)
{
    return zero_point < 0 ? 127 - zero_point : 128 + zero_point;
}

/* Weights [channels][terms], a bias for each channel. */
static void check_weights(const array *weight, const array *bias, int32_t zero_point, const last_step *last)
{
    const int32_t channels = weight->shape[0], terms = weight->size / channels;
    int32_t c, i;
    require(is_int8(zero_point), "input zero point");
    require(bias->size == channels, "number of biases");
    for (c = 0; c < channels; c++) {
        int64_t sum = 0;
        const int64_t b = ((const int32_t *)bias->data)[c];
        for (i = 0; i < terms; i++) {
            sum += abs(((const int8_t *)weight->data)[c * terms + i]);
        }
        check_bound((b < 0 ? -b : b) + distance(zero_point) * sum, last->multiplier[c], last->shift[c], last->rounding);
    }
}

static int32_t positions(int32_t size, int32_t before, int32_t after, int32_t kernel, int32_t stride, int32_t dilation)
{
    const int32_t span = dilation * (kernel - 1) + 1;
    require(kernel > 0 && stride > 0 && dilation > 0 && before >= 0 && after >= 0 && size + before + after >= span, "window");
    return (size + before + after - span) / stride + 1;
}

/* ---- operators: y has room for the output, whose shape is written to `shape` ---- */

static int8_t *room(int32_t rank, const int32_t *shape)
{
    size_t size = 1;
    int32_t i;
    for (i = 0; i < rank; i++) {
        size *= (size_t)shape[i];
    }
    return malloc(size);
}

static int8_t *linear(const array *x, int32_t *shape)
{
    const array weight = load("weight"), bias = load("bias");
    const int32_t inputs = weight.shape[1], outputs = weight.shape[0];
    const last_step last = read_last_step(outputs);
    tnf_linear_params p;
    int8_t *y;
    check_weights(&weight, &bias, number("input_zero_point"), &last);
    require(x->rank > 0 && x->shape[x->rank - 1] == inputs, "input shape");
    shape[x->rank - 1] = outputs;
    p = (tnf_linear_params){x->size / inputs, inputs, outputs, number("input_zero_point"), last.zero_point,
                            last.act_min, last.act_max, last.rounding, weight.data, bias.data, last.multiplier, last.shift};
    y = room(x->rank, shape);
    tnf_linear(&p, x->data, y, NULL);
    return y;
}

static int8_t *conv2d(const array *x, int32_t *shape)
{
    const array weight = load("weight"), bias = load("bias");
    const last_step last = read_last_step(weight.shape[0]);
    tnf_conv2d_params p;
    int8_t *y;
    check_weights(&weight, &bias, number("input_zero_point"), &last);
    memset(&p, 0, sizeof p);
    p.groups = number("groups");
    require(x->rank == 3 && x->shape[2] == weight.shape[3] * p.groups, "input shape");
    p.input_h = x->shape[0], p.input_w = x->shape[1], p.input_c = x->shape[2];
    p.kernel_h = weight.shape[1], p.kernel_w = weight.shape[2], p.output_c = weight.shape[0];
    p.stride_h = element("stride", 0), p.stride_w = element("stride", 1);
    p.dilation_h = element("dilation", 0), p.dilation_w = element("dilation", 1);
    p.pad_top = element("padding", 0), p.pad_left = element("padding", 1);
    p.output_h = positions(p.input_h, p.pad_top, element("padding", 2), p.kernel_h, p.stride_h, p.dilation_h);
    p.output_w = positions(p.input_w, p.pad_left, element("padding", 3), p.kernel_w, p.stride_w, p.dilation_w);
    p.input_zero_point = number("input_zero_point"), p.output_zero_point = last.zero_point;
    p.act_min = last.act_min, p.act_max = last.act_max, p.rounding = last.rounding;
    p.weight = weight.data, p.bias = bias.data, p.multiplier = last.multiplier, p.shift = last.shift;
    shape[0] = p.output_h, shape[1] = p.output_w, shape[2] = p.output_c;
    y = room(3, shape);
    tnf_conv2d(&p, x->data, y, NULL);
    return y;
}

static int8_t *requantize(const array *x, int32_t *shape)
{
    const last_step last = read_last_step(1);
    const int32_t zero_point = number("input_zero_point");
    const tnf_requantize_params p = {x->size, zero_point, last.zero_point, last.multiplier[0], last.shift[0],
                                     last.act_min, last.act_max, last.rounding};
    int8_t *y = room(x->rank, shape);
    require(is_int8(zero_point), "input zero point");
    check_bound(distance(zero_point), last.multiplier[0], last.shift[0], last.rounding);
    tnf_requantize(&p, x->data, y, NULL);
    return y;
}

static int8_t *lookup(const array *x, int32_t *shape)
{
    const array table = load("table");
    const tnf_lookup_params p = {x->size, table.data};
    int8_t *y = room(x->rank, shape);
    require(table.size == 256, "table");
    tnf_lookup(&p, x->data, y, NULL);
    return y;
}

static int8_t *softmax(const array *x, int32_t *shape)
{
    static int64_t scratch[(TNF_SOFTMAX_SCRATCH_BYTES + 7) / 8];
    const int32_t n = x->rank > 0 ? x->shape[x->rank - 1] : 0;
    const int32_t multiplier = number("multiplier"), shift = number("shift"), diff_min = number("diff_min");
    const tnf_softmax_params p = {n > 0 ? x->size / n : 0, n, multiplier, shift, diff_min};
    int8_t *y = room(x->rank, shape);
    require(n >= 1 && n <= 4095, "length of a row");
    require(multiplier >= 1 << 30 && shift >= 1 && shift <= 31, "multiplier or shift");
    require(diff_min == -(int32_t)(((int64_t)31 << 26) >> shift), "diff_min");
    tnf_softmax(&p, x->data, y, scratch);
    return y;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int8_t *(*run)(const array *x, int32_t *shape);
    } operators[] = {{"linear", linear}, {"conv2d", conv2d}, {"requantize", requantize}, {"lookup", lookup}, {"softmax", softmax}};
    size_t i;
    long size;
    if (argc != 3) {
        stop(FAILED, "usage: adapter CASE OUTPUTS");
    }
    folder = argv[1];
    text = read_file("case.json", &size);
    if (number("version") != 1 || says("kind", "model")) {
        stop(UNSUPPORTED, "only single operators of version 1");
    }
    for (i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (says("operator", operators[i].name)) {
            const array x = load("input0");
            int32_t shape[MOST_AXES];
            const int8_t *y;
            memcpy(shape, x.shape, sizeof shape);
            y = operators[i].run(&x, shape);
            save(argv[2], y, x.rank, shape);
            return 0;
        }
    }
    stop(UNSUPPORTED, "no kernel for this operator");
    return FAILED;
}
