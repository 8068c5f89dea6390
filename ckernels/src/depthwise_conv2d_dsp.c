#include "tinyformer/dsp.h"
#include "tinyformer/kernels.h"

/* Four channels at a time, a strip of the image is taken apart into a plane of words [columns][rows][LANES][2]: of each channel the
 * pairs of int16 (x0, x1) and (x2, x3), where x0 is the first position that the windows of a column read. With stride 1 a column is
 * two neighbouring windows, with stride 2 one. Positions outside the image hold the zero point, which the bias takes back. The sums
 * take the place of what nothing reads any more: of windows (2 k, 2 k + 1) in the pairs of column k, whichever the stride. */
#define LANES 4
#define STEP (2 * LANES) /* words from one row of a column to the next */

/* ---- image to plane ---- */

/* `count` rows, at least one, of positions (x0, x1) of four channels: they begin a column, and end the one before. From row to row x0 and x1 move on
 * by so many bytes. */
TNF_OWN_FUNCTION void put_rows(uint32_t *begin, uint32_t *end, const int8_t *x0, int32_t move0, const int8_t *x1, int32_t move1,
                               int32_t count)
{
    for (;;) {
        const uint32_t bytes0 = tnf_load4(x0), bytes1 = tnf_load4(x1);
        const uint32_t even0 = tnf_even_pair(bytes0), odd0 = tnf_odd_pair(bytes0);
        const uint32_t even1 = tnf_even_pair(bytes1), odd1 = tnf_odd_pair(bytes1);
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
        if (--count == 0) {
            break; /* before the pointers leave the tensor */
        }
        begin += STEP;
        end += STEP;
        x0 += move0;
        x1 += move1;
    }
}

/* What a strip looks like: rows of windows, and how many are computed, which is even; rows of the image that they read, of which `above` are before its first and `inside`
 * in it; words of the plane from one column to the next. */
typedef struct {
    int32_t outputs, computed, rows, above, inside, columns, column;
} strip;

/* A strip of the image, from its first row in the image on, of four channels. */
static void fill_plane(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, const int8_t *x, uint32_t *plane)
{
    const int8_t zero = (int8_t)p->input_zero_point;
    const int8_t outside[LANES] = {zero, zero, zero, zero};
    const int32_t row = p->input_w * p->channels;
    const int32_t below = s->rows - s->above - s->inside;
    uint32_t *begin = plane, *end = plane; /* nothing is before the first column */
    int32_t k;
    for (k = 0; k <= s->columns; k++) {
        const int32_t at = 2 * k - p->pad_left;
        const int32_t inside0 = at >= 0 && at < p->input_w, inside1 = at >= -1 && at < p->input_w - 1;
        const int8_t *x0 = inside0 ? x + at * p->channels : outside, *x1 = inside1 ? x + (at + 1) * p->channels : outside;
        if (k == s->columns) {
            begin = end; /* nothing is after the last */
        }
        if (s->above > 0) {
            put_rows(begin, end, outside, 0, outside, 0, s->above);
        }
        if (s->inside > 0) {
            put_rows(begin + s->above * STEP, end + s->above * STEP, x0, inside0 ? row : 0, x1, inside1 ? row : 0, s->inside);
        }
        if (below > 0) {
            const int32_t after = (s->above + s->inside) * STEP;
            put_rows(begin + after, end + after, outside, 0, outside, 0, below);
        }
        end = plane + k * s->column + 1;
        begin = plane + (k + 1) * s->column;
    }
}

/* ---- plane to sums ---- */

/* The sums of one channel's windows, `rows` of them in each of `columns` columns, an even number. The columns of the plane are as long
 * as these windows need. A row of the kernel comes as bytes (w0, w1, w2, 0). */
#if TNF_DSP_INSTRUCTIONS

/* Stride 1. Registers: r0 the plane, r1 where the loop ends, r2 and r3 a row's (x0, x1) and (x2, x3); r4-r9 each kernel row's (w0, w1) and
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
#define END_AND_MIDDLE(f, g, m, n, at)     \
    "smlad " #f ", r2, r8, " #f "\n\t"     \
    "smlatb " #g ", r2, r8, " #g "\n\t"    \
    "smlad " #m ", r2, r6, " #m "\n\t"     \
    "smlatb " #n ", r2, r6, " #n "\n\t"    \
    "smlabt " #f ", r3, r9, " #f "\n\t"    \
    "smlad " #g ", r3, r9, " #g "\n\t"     \
    "smlabt " #m ", r3, r7, " #m "\n\t"    \
    "str " #f ", [r0, #" #at "]\n\t"       \
    "smlad " #n ", r3, r7, " #n "\n\t"     \
    "str " #g ", [r0, #" #at "+4]\n\t"

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
            END_AND_MIDDLE(r10, r11, r12, lr, -64)
            BEGIN(r10, r11, 32)
            END_AND_MIDDLE(r12, lr, r10, r11, -32)
            BEGIN(r12, lr, 64)
            "add r0, r0, #64\n\t"
            "cmp r0, r1\n\t"
            "bne 2b\n\t"
            "3:\n\t"
            END_AND_MIDDLE(r10, r11, r12, lr, -64)
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

/* Stride 2. Registers as above, but for r2, r3 and lr of two rows of the plane, r10 and r11 the sums of two windows, one below the
 * other, and r12 where they go. A step ends one, whose first row it has seen, and begins the next. */
#define TWO_ROWS(f, g, at, to)           \
    "ldr r2, [r0, #" #at "+32]\n\t"      \
    "ldr r3, [r0, #" #at "+36]\n\t"      \
    "ldr lr, [r0, #" #at "+64]\n\t"      \
    "smlad " #f ", r2, r6, " #f "\n\t"   \
    "ldr r2, [r0, #" #at "+68]\n\t"      \
    "smlabt " #f ", r3, r7, " #f "\n\t"  \
    "smuad " #g ", lr, r4\n\t"           \
    "smlad " #f ", lr, r8, " #f "\n\t"   \
    "smlabt " #g ", r2, r5, " #g "\n\t"  \
    "smlabt " #f ", r2, r9, " #f "\n\t"  \
    "str " #f ", [r12, #" #to "]\n\t"

__attribute__((naked, noinline)) static void sums_of_windows(uint32_t *plane, int32_t columns, int32_t rows, const int32_t *weight)
{
    __asm__("push {r4-r11, lr}\n\t"
            "lsl r2, r2, #5\n\t" /* half a column, which is also what the sums take */
            "add r11, r2, #28\n\t"
            "rsb r10, r2, #4\n\t"
            "push {r1, r2, r10, r11}\n\t" /* from a column's last sums to the next column's first, from even and odd columns */
            "ldr r4, [r3]\n\t"
            "ldr r6, [r3, #4]\n\t"
            "ldr r8, [r3, #8]\n\t"
            UNPACK(r4, r5)
            UNPACK(r6, r7)
            UNPACK(r8, r9)
            "mov r12, r0\n\t"
            "1:\n\t" /* a column */
            LOAD(0)
            "ldr r1, [sp, #4]\n\t"
            "add r1, r0, r1, lsl #1\n\t"
            "smuad r10, r2, r4\n\t"
            "smlabt r10, r3, r5, r10\n\t"
            "2:\n\t" /* two windows */
            TWO_ROWS(r10, r11, 0, 0)
            TWO_ROWS(r11, r10, 64, 32)
            "add r0, r0, #128\n\t"
            "add r12, r12, #64\n\t"
            "cmp r0, r1\n\t"
            "bne 2b\n\t"
            "pop {r1, r2, r3, lr}\n\t"
            "add r12, r12, r3\n\t"
            "add r0, r0, #32\n\t"
            "subs r1, r1, #1\n\t"
            "mov r11, r3\n\t"
            "mov r10, lr\n\t"
            "push {r1, r2, r10, r11}\n\t"
            "bne 1b\n\t"
            "add sp, sp, #16\n\t"
            "pop {r4-r11, pc}\n\t");
}

#else

/* (w0, w1) */
static inline uint32_t pair01(uint32_t bytes)
{
    return tnf_low_halves(tnf_even_pair(bytes), tnf_odd_pair(bytes));
}

/* (w2, 0) */
static inline uint32_t pair20(uint32_t bytes)
{
    return tnf_even_pair(bytes) >> 16;
}

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

static void sums_of_windows(uint32_t *plane, int32_t columns, int32_t rows, const int32_t *weight)
{
    const int32_t column = (2 * rows + 1) * STEP;
    int32_t k, row, tap;
    for (k = 0; k < columns; k++) {
        const uint32_t *x = plane + k * column;
        uint32_t *to = plane + k / 2 * column + k % 2;
        for (row = 0; row < rows; row++) {
            int32_t sum = 0;
            for (tap = 0; tap < 3; tap++) {
                const uint32_t bytes = (uint32_t)weight[tap];
                sum = tnf_smlad(x[tap * STEP + 1], pair20(bytes), tnf_smlad(x[tap * STEP], pair01(bytes), sum));
            }
            *to = (uint32_t)sum;
            x += 2 * STEP;
            to += STEP;
        }
    }
}

#endif

/* ---- sums to bytes ---- */

/* The last step of a channel where the quick one of its rounding serves, saturated to int8. */
typedef struct {
    tnf_quick_scale scale;
    int32_t bias, right, down;
} quick_step;

/* Four at once, none of whose steps waits for another's. */
TNF_INLINE void quick_outputs(int32_t v[4], quick_step step, int32_t rounding)
{
#if TNF_DSP_INSTRUCTIONS
    if (rounding == TNF_ROUNDING_DOUBLE) {
        __asm__("smmlar %0, %0, %4, %0\n\tsmmlar %1, %1, %4, %1\n\tsmmlar %2, %2, %4, %2\n\tsmmlar %3, %3, %4, %3\n\t"
                "add %0, %0, %0, asr #31\n\tqadd %0, %0, %5\n\tadd %1, %1, %1, asr #31\n\tqadd %1, %1, %5\n\t"
                "add %2, %2, %2, asr #31\n\tqadd %2, %2, %5\n\tadd %3, %3, %3, asr #31\n\tqadd %3, %3, %5\n\t"
                "asr %0, %0, %6\n\tasr %1, %1, %6\n\tasr %2, %2, %6\n\tasr %3, %3, %6\n\t"
                "ssat %0, #8, %0\n\tssat %1, #8, %1\n\tssat %2, #8, %2\n\tssat %3, #8, %3"
                : "+&r"(v[0]), "+&r"(v[1]), "+&r"(v[2]), "+&r"(v[3])
                : "r"(step.scale.multiplier), "r"(step.scale.offset), "r"(step.scale.right)
                : "cc");
        return;
    }
    __asm__("smmla %0, %0, %4, %5\n\tsmmla %1, %1, %4, %5\n\tsmmla %2, %2, %4, %5\n\tsmmla %3, %3, %4, %5\n\t"
            "asr %0, %0, %6\n\tasr %1, %1, %6\n\tasr %2, %2, %6\n\tasr %3, %3, %6\n\t"
            "ssat %0, #8, %0\n\tssat %1, #8, %1\n\tssat %2, #8, %2\n\tssat %3, #8, %3"
            : "+&r"(v[0]), "+&r"(v[1]), "+&r"(v[2]), "+&r"(v[3])
            : "r"(step.scale.multiplier), "r"(step.scale.offset), "r"(step.scale.right)
            : "cc");
#else
    int32_t i;
    for (i = 0; i < 4; i++) {
        v[i] = tnf_ssat8(tnf_scaled(v[i], step.scale, rounding));
    }
#endif
}

/* Outputs of a column of `rows` pairs of sums. */
TNF_INLINE void finish_pairs(const uint32_t *sums, int8_t *y, int32_t rows, quick_step step, int32_t rounding)
{
    for (;;) {
        int32_t v[4];
        v[0] = (int32_t)sums[0] + step.bias;
        v[1] = (int32_t)sums[1] + step.bias;
        v[2] = (int32_t)sums[STEP] + step.bias;
        v[3] = (int32_t)sums[STEP + 1] + step.bias;
        quick_outputs(v, step, rounding);
        y[0] = (int8_t)v[0];
        y[step.right] = (int8_t)v[1];
        if (rows == 1) {
            break;
        }
        y += step.down;
        y[0] = (int8_t)v[2];
        y[step.right] = (int8_t)v[3];
        rows -= 2;
        if (rows == 0) {
            break; /* before the pointer leaves the tensor */
        }
        y += step.down;
        sums += 2 * STEP;
    }
}

TNF_INLINE void finish_rounded(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, int32_t channel, const uint32_t *sums,
                                  int8_t *y, int32_t rounding)
{
    quick_step step;
    int32_t left = p->output_w, row;
    step.scale = tnf_scale_of(p->multiplier[channel], p->shift[channel], p->output_zero_point, rounding);
    step.bias = p->bias[channel];
    step.right = p->channels;
    step.down = p->output_w * p->channels;
    for (; left >= 2; left -= 2) {
        finish_pairs(sums, y, s->outputs, step, rounding);
        sums += s->column;
        y += left > 2 ? 2 * step.right : 0;
    }
    if (left > 0) {
        for (row = 0; row < s->outputs; row++) {
            y[row * step.down] = (int8_t)tnf_ssat8(tnf_scaled((int32_t)sums[row * STEP] + step.bias, step.scale, rounding));
        }
    }
}

TNF_OWN_FUNCTION void finish_single(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, int32_t channel, const uint32_t *sums,
                                    int8_t *y)
{
    finish_rounded(p, s, channel, sums, y, TNF_ROUNDING_SINGLE);
}

TNF_OWN_FUNCTION void finish_double(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, int32_t channel, const uint32_t *sums,
                                    int8_t *y)
{
    finish_rounded(p, s, channel, sums, y, TNF_ROUNDING_DOUBLE);
}

/* Where it does not serve, one after the other. */
TNF_OWN_FUNCTION void finish(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, int32_t channel, const uint32_t *sums, int8_t *y)
{
    int32_t oh, ow;
    for (oh = 0; oh < s->outputs; oh++) {
        for (ow = 0; ow < p->output_w; ow++) {
            const int32_t word = ow / 2 * s->column + ow % 2;
            y[(oh * p->output_w + ow) * p->channels] =
                tnf_requantize_to_int8((int32_t)sums[oh * STEP + word] + p->bias[channel], p->multiplier[channel], p->shift[channel],
                                       p->rounding, p->output_zero_point, p->act_min, p->act_max);
        }
    }
}

/* ---- the operator ---- */

/* The strip that begins with row `first` of the output. */
static strip strip_at(const tnf_depthwise_conv2d_dsp_params *p, int32_t first)
{
    const int32_t left = p->output_h - first, top = first * p->stride - p->pad_top;
    int32_t last;
    strip s;
    s.outputs = left < p->strip ? left : p->strip;
    s.computed = (s.outputs + 1) / 2 * 2;
    s.rows = (s.computed - 1) * p->stride + 3;
    s.above = tnf_clamp(-top, 0, s.rows);
    last = tnf_clamp(p->input_h - top, s.above, s.rows);
    s.inside = last - s.above;
    s.columns = p->stride == 1 ? (p->output_w + 1) / 2 : p->output_w;
    s.column = s.rows * STEP;
    return s;
}

/* Outputs of a strip of one channel from its sums. */
typedef void finisher(const tnf_depthwise_conv2d_dsp_params *p, const strip *s, int32_t channel, const uint32_t *sums, int8_t *y);
/* Sums from its plane. */
typedef void summer(uint32_t *plane, int32_t columns, int32_t rows, const int32_t *weight);

void tnf_depthwise_conv2d_dsp(const tnf_depthwise_conv2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    summer *const sums_of = p->stride == 1 ? sums_of_pairs : sums_of_windows;
    finisher *const finish_quickly = p->rounding == TNF_ROUNDING_DOUBLE ? finish_double : finish_single;
    const int32_t narrow = p->act_min != -128 || p->act_max != 127;
    uint32_t *plane = (uint32_t *)scratch;
    int32_t first, group, channel;
    for (first = 0; first < p->output_h; first += p->strip) {
        const strip s = strip_at(p, first);
        const int32_t top = first * p->stride - p->pad_top + s.above;
        int8_t *out = y + first * p->output_w * p->channels;
        for (group = 0; group < p->channels; group += LANES) {
            /* the last four overlap those before where the channels are no multiple of four */
            const int32_t start = group + LANES <= p->channels ? group : p->channels - LANES;
            fill_plane(p, &s, s.inside > 0 ? x + top * p->input_w * p->channels + start : x, plane);
            for (channel = start; channel < start + LANES; channel++) {
                uint32_t *sums = plane + 2 * (channel - start);
                sums_of(sums, s.columns, s.computed, p->weight + 3 * channel);
                (tnf_is_quick(p->shift[channel], p->rounding) ? finish_quickly : finish)(p, &s, channel, sums, out + channel);
            }
        }
        if (narrow) {
            tnf_clamp_bytes(out, s.outputs * p->output_w * p->channels, p->act_min, p->act_max);
        }
    }
}
