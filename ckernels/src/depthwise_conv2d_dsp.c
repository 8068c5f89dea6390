#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* Four channels at a time, a strip of the image is taken apart into a plane of words [columns][rows][LANES][2]: of each channel the
 * pairs of int16 (x0, x1) and (x2, x3), where x0 is the first position that the windows of a column read. With stride 1 a column is
 * two neighbouring windows, else one. Positions outside the image hold the zero point, which the bias takes back. The sums then take
 * the place of what nothing reads any more. */
#define LANES 4
#define STEP (2 * LANES) /* words from one row of a column to the next */

/* ---- image to plane ---- */

/* Positions (x0, x1) of four channels: they begin a column, and end the one before. */
static inline void put(uint32_t *begin, uint32_t *end, uint32_t x0, uint32_t x1)
{
    const uint32_t even0 = tnf_even_pair(x0), odd0 = tnf_odd_pair(x0);
    const uint32_t even1 = tnf_even_pair(x1), odd1 = tnf_odd_pair(x1);
    const uint32_t lane0 = tnf_low_halves(even0, even1), lane1 = tnf_low_halves(odd0, odd1);
    const uint32_t lane2 = tnf_high_halves(even0, even1), lane3 = tnf_high_halves(odd0, odd1);
    begin[0] = lane0;
    begin[2] = lane1;
    begin[4] = lane2;
    begin[6] = lane3;
    end[0] = lane0;
    end[2] = lane1;
    end[4] = lane2;
    end[6] = lane3;
}

/* `count` columns whose positions are all inside the image. */
TNF_OWN_FUNCTION void put_inside(uint32_t *begin, int32_t column, const int8_t *x, int32_t channels, int32_t count)
{
    uint32_t *end = begin - column + 1;
    const int8_t *x1 = x + channels;
    for (;;) {
        put(begin, end, tnf_load4(x), tnf_load4(x1));
        if (--count == 0) {
            break; /* before the pointers leave the tensor */
        }
        begin += column;
        end += column;
        x += 2 * channels;
        x1 += 2 * channels;
    }
}

/* A row of the image, whose first position is at x, into a row of the plane; `column` words lie between two columns. */
static void put_row(const tnf_depthwise_conv2d_dsp_params *p, const int8_t *x, uint32_t *begin, int32_t column, int32_t columns)
{
    const uint32_t outside = tnf_repeat4(p->input_zero_point);
    uint32_t *end = begin; /* nothing is before the first column */
    int32_t at = -p->pad_left, k = 0;
    while (k <= columns) {
        int32_t count = (p->input_w - at) / 2;
        count = count < columns - k ? count : columns - k;
        if (k > 0 && at >= 0 && count > 0) {
            put_inside(begin, column, x + at * p->channels, p->channels, count);
        } else {
            const uint32_t x0 = at >= 0 && at < p->input_w ? tnf_load4(x + at * p->channels) : outside;
            const uint32_t x1 = at >= -1 && at < p->input_w - 1 ? tnf_load4(x + (at + 1) * p->channels) : outside;
            put(k < columns ? begin : end, end, x0, x1); /* nothing begins after the last column */
            count = 1;
        }
        begin += count * column;
        end = begin - column + 1;
        at += 2 * count;
        k += count;
    }
}

static void put_outside(uint32_t *to, int32_t column, int32_t columns, int32_t zero_point)
{
    const uint32_t pair = tnf_even_pair(tnf_repeat4(zero_point));
    int32_t k, i;
    for (k = 0; k < columns; k++) {
        for (i = 0; i < STEP; i++) {
            to[i] = pair;
        }
        to += column;
    }
}

/* ---- plane to sums ---- */

/* The weights of a row of the kernel come as bytes (w0, w1, w2, 0). */
static inline uint32_t pair01(uint32_t bytes)
{
    return tnf_low_halves(tnf_even_pair(bytes), tnf_odd_pair(bytes));
}

static inline uint32_t pair20(uint32_t bytes)
{
    return tnf_even_pair(bytes) >> 16;
}

/* Stride 1: the two sums of each column's `rows` windows of one channel, an even number, where the window's first words were. */
#if TNF_DSP_INSTRUCTIONS

/* Registers: r0 the plane, r1 where the loop ends, r2 and r3 a row's (x0, x1) and (x2, x3); r4-r9 each kernel row's (w0, w1) and
 * (w1, w2); r10-r11 and r12-lr the sums of two rows of windows. Each row of the plane is loaded once: it ends one row of windows,
 * is in the middle of the next and begins another. */
#define UNPACK(first, second)                \
    "sxtb16 r12, " #first "\n\t"             \
    "sxtb16 lr, " #first ", ror #8\n\t"      \
    "pkhbt " #first ", r12, lr, lsl #16\n\t" \
    "pkhtb " #second ", r12, lr\n\t"
#define LOAD(at) "ldr r2, [r0, #" #at "]\n\tldr r3, [r0, #" #at "+4]\n\t"
#if defined(TNF_DUAL_ISSUE) /* a load issues together with a product */
#define LOAD_EARLY(at) "ldr r2, [r0, #" #at "]\n\t"
#define LOAD_LATE(at) "ldr r3, [r0, #" #at "+4]\n\t"
#else /* a load takes one cycle less after another */
#define LOAD_EARLY(at)
#define LOAD_LATE(at) LOAD(at)
#endif
#define BEGIN(f, g, at)                    \
    "smuad " #f ", r2, r4\n\t"             \
    "smultb " #g ", r2, r4\n\t"            \
    LOAD_EARLY(at)                         \
    "smlabt " #f ", r3, r5, " #f "\n\t"    \
    "smlad " #g ", r3, r5, " #g "\n\t"     \
    LOAD_LATE(at)
#define MIDDLE(f, g)                       \
    "smlad " #f ", r2, r6, " #f "\n\t"     \
    "smlatb " #g ", r2, r6, " #g "\n\t"    \
    "smlabt " #f ", r3, r7, " #f "\n\t"    \
    "smlad " #g ", r3, r7, " #g "\n\t"
#define END(f, g)                          \
    "smlad " #f ", r2, r8, " #f "\n\t"     \
    "smlatb " #g ", r2, r8, " #g "\n\t"    \
    "smlabt " #f ", r3, r9, " #f "\n\t"    \
    "smlad " #g ", r3, r9, " #g "\n\t"
#define STORE(f, g, at) "str " #f ", [r0, #" #at "]\n\tstr " #g ", [r0, #" #at "+4]\n\t"

__attribute__((naked, noinline)) static void sums_of_pairs(uint32_t *plane, int32_t columns, int32_t rows, const int32_t *weight)
{
    __asm__("push {r4-r11, lr}\n\t"
            "lsl r2, r2, #5\n\t"
            "ldr r4, [r3]\n\t"
            "ldr r6, [r3, #4]\n\t"
            "ldr r8, [r3, #8]\n\t"
            "push {r1, r2}\n\t"
            UNPACK(r4, r5)
            UNPACK(r6, r7)
            UNPACK(r8, r9)
            "1:\n\t" /* a column */
            LOAD(0)
            "ldr r1, [sp, #4]\n\t"
            "add r1, r1, r0\n\t"
            BEGIN(r10, r11, 32)
            MIDDLE(r10, r11)
            BEGIN(r12, lr, 64)
            "add r0, r0, #64\n\t"
            "cmp r0, r1\n\t"
            "beq 3f\n\t"
            "2:\n\t" /* two rows */
            END(r10, r11)
            MIDDLE(r12, lr)
            STORE(r10, r11, -64)
            BEGIN(r10, r11, 32)
            END(r12, lr)
            MIDDLE(r10, r11)
            STORE(r12, lr, -32)
            BEGIN(r12, lr, 64)
            "add r0, r0, #64\n\t"
            "cmp r0, r1\n\t"
            "bne 2b\n\t"
            "3:\n\t"
            END(r10, r11)
            MIDDLE(r12, lr)
            STORE(r10, r11, -64)
            LOAD(32)
            END(r12, lr)
            "ldr r1, [sp]\n\t"
            STORE(r12, lr, -32)
            "add r0, r0, #64\n\t"
            "subs r1, r1, #1\n\t"
            "str r1, [sp]\n\t"
            "bne 1b\n\t"
            "add sp, sp, #8\n\t"
            "pop {r4-r11, pc}\n\t");
}

#else

static void sums_of_pairs(uint32_t *plane, int32_t columns, int32_t rows, const int32_t *weight)
{
    int32_t k, row, tap;
    for (k = 0; k < columns; k++) {
        for (row = 0; row < rows; row++) {
            int32_t first = 0, second = 0;
            for (tap = 0; tap < 3; tap++) {
                const uint32_t bytes = (uint32_t)weight[tap], x01 = plane[tap * STEP], x23 = plane[tap * STEP + 1];
                first = tnf_smlad(x23, pair20(bytes), tnf_smlad(x01, pair01(bytes), first));
                second = tnf_smlad(x23, pair01(bytes >> 8), tnf_smlad(x01, tnf_even_pair(bytes) << 16, second));
            }
            plane[0] = (uint32_t)first;
            plane[1] = (uint32_t)second;
            plane += STEP;
        }
        plane += 2 * STEP;
    }
}

#endif

/* Stride 2: the sum of each column's `rows` windows of one channel, in the first word of as many rows. */
static void sums_of_windows(uint32_t *plane, int32_t columns, int32_t rows, int32_t stride, int32_t column,
                            const int32_t *weight)
{
    const uint32_t a01 = pair01((uint32_t)weight[0]), a20 = pair20((uint32_t)weight[0]);
    const uint32_t b01 = pair01((uint32_t)weight[1]), b20 = pair20((uint32_t)weight[1]);
    const uint32_t c01 = pair01((uint32_t)weight[2]), c20 = pair20((uint32_t)weight[2]);
    int32_t k, row;
    for (k = 0; k < columns; k++) {
        const uint32_t *x = plane;
        uint32_t *to = plane;
        for (row = 0; row < rows; row++) {
            int32_t sum = tnf_smlad(x[0], a01, 0);
            sum = tnf_smlad(x[1], a20, sum);
            sum = tnf_smlad(x[STEP], b01, sum);
            sum = tnf_smlad(x[STEP + 1], b20, sum);
            sum = tnf_smlad(x[2 * STEP], c01, sum);
            sum = tnf_smlad(x[2 * STEP + 1], c20, sum);
            *to = (uint32_t)sum;
            x += stride * STEP;
            to += STEP;
        }
        plane += column;
    }
}

/* ---- sums to bytes ---- */

/* What a strip looks like: rows of windows and of the image in the plane, words from one column to the next. */
typedef struct {
    int32_t outputs, rows, column;
} strip;

/* The last step of a channel where the quick one serves, saturated to int8. */
typedef struct {
    tnf_quick_scale scale;
    int32_t bias, right, down;
} quick_step;

static inline int32_t quick_output(uint32_t sum, quick_step step)
{
    return tnf_ssat8(tnf_quick_requantize((int32_t)sum + step.bias, step.scale));
}

/* Outputs of a column of `rows` pairs of sums, two rows at a time: the steps of four outputs do not wait for each other. */
static inline void finish_pairs(const uint32_t *sums, int8_t *y, int32_t rows, quick_step step)
{
    for (; rows >= 2; rows -= 2) {
        const int32_t v0 = quick_output(sums[0], step), v1 = quick_output(sums[1], step);
        const int32_t v2 = quick_output(sums[STEP], step), v3 = quick_output(sums[STEP + 1], step);
        y[0] = (int8_t)v0;
        y[step.right] = (int8_t)v1;
        y[step.down] = (int8_t)v2;
        y[step.down + step.right] = (int8_t)v3;
        sums += 2 * STEP;
        y += rows > 2 ? 2 * step.down : 0;
    }
    if (rows > 0) {
        y[0] = (int8_t)quick_output(sums[0], step);
        y[step.right] = (int8_t)quick_output(sums[1], step);
    }
}

TNF_OWN_FUNCTION void finish_quickly(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, int32_t channel, const uint32_t *sums, int8_t *y)
{
    quick_step step;
    int32_t left = p->output_w, row;
    step.scale = tnf_quick_scale_of(p->multiplier[channel], p->shift[channel], p->output_zero_point);
    step.bias = p->bias[channel];
    step.right = p->channels;
    step.down = p->output_w * p->channels;
    if (p->stride_w == 1) {
        for (; left >= 2; left -= 2) {
            finish_pairs(sums, y, s->outputs, step);
            sums += s->column;
            y += left > 2 ? 2 * step.right : 0;
        }
    }
    for (; left > 0; left--) {
        for (row = 0; row < s->outputs; row++) {
            y[row * step.down] = (int8_t)quick_output(sums[row * STEP], step);
        }
        sums += s->column;
        y += left > 1 ? step.right : 0;
    }
}

/* What was saturated to int8 is clamped to less, n bytes. */
static void clamp_bytes(int8_t *y, int32_t n, int32_t lo, int32_t hi)
{
    const uint32_t least = tnf_repeat4(lo), most = tnf_repeat4(hi);
    for (; n >= 4; n -= 4) {
        tnf_store4(y, tnf_min4(tnf_max4(tnf_load4(y), least), most));
        y += 4;
    }
    for (; n > 0; n--) {
        *y = (int8_t)tnf_clamp(*y, lo, hi);
        y++;
    }
}

static void finish(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, int32_t channel, const uint32_t *sums, int8_t *y)
{
    int32_t oh, ow;
    for (oh = 0; oh < s->outputs; oh++) {
        for (ow = 0; ow < p->output_w; ow++) {
            const int32_t word = p->stride_w == 1 ? ow / 2 * s->column + ow % 2 : ow * s->column;
            y[(oh * p->output_w + ow) * p->channels] =
                tnf_requantize_to_int8((int32_t)sums[oh * STEP + word] + p->bias[channel], p->multiplier[channel], p->shift[channel],
                                       p->rounding, p->output_zero_point, p->act_min, p->act_max);
        }
    }
}

/* ---- the operator ---- */

/* The part of the image that a strip's windows read, whose first row is `top`, of four channels, which begin at x. */
static void fill_plane(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, const int8_t *x, int32_t top, uint32_t *plane,
                       int32_t columns)
{
    int32_t row;
    for (row = 0; row < s->rows; row++) {
        if (top + row >= 0 && top + row < p->input_h) {
            put_row(p, x + (top + row) * p->input_w * p->channels, plane + row * STEP, s->column, columns);
        } else {
            put_outside(plane + row * STEP, s->column, columns, p->input_zero_point);
        }
    }
}

void tnf_depthwise_conv2d_dsp(const tnf_depthwise_conv2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t columns = p->stride_w == 1 ? (p->output_w + 1) / 2 : p->output_w;
    const int32_t narrow = p->act_min != -128 || p->act_max != 127;
    uint32_t *plane = (uint32_t *)scratch;
    int32_t first, group, lane;
    for (first = 0; first < p->output_h; first += p->strip) {
        strip s;
        s.outputs = p->output_h - first < p->strip ? p->output_h - first : p->strip;
        s.rows = ((s.outputs + 1) / 2 * 2 - 1) * p->stride_h + 3;
        s.column = s.rows * STEP;
        for (group = 0; group < p->channels; group += LANES) {
            /* the last four overlap those before where the channels are no multiple of four */
            const int32_t start = group + LANES <= p->channels ? group : p->channels - LANES;
            fill_plane(p, &s, x + start, first * p->stride_h - p->pad_top, plane, columns);
            for (lane = 0; lane < LANES; lane++) {
                const int32_t channel = start + lane;
                uint32_t *sums = plane + 2 * lane;
                int8_t *to = y + first * p->output_w * p->channels + channel;
                if (p->stride_w == 1) {
                    sums_of_pairs(sums, columns, (s.outputs + 1) / 2 * 2, p->weight + 3 * channel);
                } else {
                    sums_of_windows(sums, columns, s.outputs, p->stride_h, s.column, p->weight + 3 * channel);
                }
                if (p->quick != 0) {
                    finish_quickly(p, &s, channel, sums, to);
                } else {
                    finish(p, &s, channel, sums, to);
                }
            }
        }
        if (p->quick != 0 && narrow) {
            clamp_bytes(y + first * p->output_w * p->channels, s.outputs * p->output_w * p->channels, p->act_min, p->act_max);
        }
    }
}
