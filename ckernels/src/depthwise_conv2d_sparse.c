#include "tinyformer/kernels.h"
#include "tinyformer/sparse.h"

/* A strip of one input channel is widened into a plane of int16, rows of `pitch`, and serves the output channels that read it. Of each,
 * the blocks are taken apart once; then four windows of a row are computed together, whose sums share the pairs that they load.
 * Positions outside the image hold the zero point, which the bias takes back. */
#define BLOCK 3
#define WINDOWS 4

/* A block: where it begins in the plane, relative to the window, and its weights as pairs (w0, w1) and (w1, w2). */
typedef struct {
    int32_t offset;
    uint32_t first, last;
} taps;

/* A channel's outputs in a strip, and what they are computed from. */
typedef struct {
    const taps *begin, *end;
    int32_t bias, shift, quick; /* quick: a high product, a sum and a shift */
    tnf_quick_scale scale;      /* where that serves; else the multiplier alone */
    int32_t rows, width; /* windows */
    int32_t step;        /* bytes from one output to the next */
} channel_strip;

/* Two neighbours of a row. */
static inline uint32_t pair_at(const int16_t *x)
{
#if TNF_DSP_INSTRUCTIONS
    return tnf_load4((const int8_t *)(const void *)x);
#else
    return (uint32_t)(uint16_t)x[0] | (uint32_t)(uint16_t)x[1] << 16;
#endif
}

/* sum + the high half of x times the low half of w, and the other way around. */
static inline int32_t high_low(uint32_t x, uint32_t w, int32_t sum)
{
#if TNF_DSP_INSTRUCTIONS
    __asm__("smlatb %0, %1, %2, %0" : "+r"(sum) : "r"(x), "r"(w));
    return sum;
#else
    return sum + (int16_t)(uint16_t)(x >> 16) * (int16_t)(uint16_t)(w & 0xFFFFu);
#endif
}

static inline int32_t low_high(uint32_t x, uint32_t w, int32_t sum)
{
    return high_low(w, x, sum);
}

/* The last step but for the range; not quick. */
TNF_OWN_FUNCTION int32_t requantized(const tnf_depthwise_conv2d_sparse_params *p, const channel_strip *strip, int32_t sum)
{
    if (tnf_is_quick(strip->shift, p->rounding)) { /* rounded twice */
        return tnf_scaled(sum, strip->scale, p->rounding);
    }
    return tnf_requantize_value(sum, strip->scale.multiplier, strip->shift, p->rounding) + p->output_zero_point;
}

static inline int8_t *store(const tnf_depthwise_conv2d_sparse_params *p, int8_t *y, int32_t v, int32_t any)
{
    *y = (int8_t)(any ? tnf_ssat8(v) : tnf_clamp(v, p->act_min, p->act_max));
    return y;
}

/* The outputs of a row of windows that are `stride` positions apart, x the first one's first; `any` int8 may result, or what lies within
 * the layer's range. */
TNF_COPIED void output_row(const tnf_depthwise_conv2d_sparse_params *p, const int16_t *x, const channel_strip *strip, int8_t *y,
                           int32_t stride, int32_t any)
{
    const int32_t step = strip->step;
    const taps *const begin = strip->begin, *const end = strip->end;
    int32_t left;
    for (left = strip->width; left > 0; left -= WINDOWS) {
        int32_t s0 = strip->bias, s1 = s0, s2 = s0, s3 = s0;
        const taps *block;
        for (block = begin; block != end; block++) {
            const int16_t *at = x + block->offset;
            const uint32_t first = block->first, last = block->last;
            uint32_t pair = pair_at(at), next = pair_at(at + 2);
            s0 = low_high(next, last, tnf_smlad(pair, first, s0));
            if (stride == 1) {
                s1 = tnf_smlad(next, last, high_low(pair, first, s1));
                pair = pair_at(at + 4);
                s2 = low_high(pair, last, tnf_smlad(next, first, s2));
                s3 = tnf_smlad(pair, last, high_low(next, first, s3));
            } else {
                pair = pair_at(at + 4);
                s1 = low_high(pair, last, tnf_smlad(next, first, s1));
                next = pair_at(at + 6);
                s2 = low_high(next, last, tnf_smlad(pair, first, s2));
                pair = pair_at(at + 8);
                s3 = low_high(pair, last, tnf_smlad(next, first, s3));
            }
        }
        x += WINDOWS * stride;
        if (strip->quick) {
            s0 = tnf_quick_requantize(s0, strip->scale);
            s1 = tnf_quick_requantize(s1, strip->scale);
            s2 = tnf_quick_requantize(s2, strip->scale);
            s3 = tnf_quick_requantize(s3, strip->scale);
        } else {
            s0 = requantized(p, strip, s0);
            s1 = requantized(p, strip, s1);
            s2 = requantized(p, strip, s2);
            s3 = requantized(p, strip, s3);
        }
        y = store(p, y, s0, any);
        if (left == 1) {
            break; /* before the pointer leaves the tensor */
        }
        y = store(p, y + step, s1, any);
        if (left == 2) {
            break;
        }
        y = store(p, y + step, s2, any);
        if (left == 3) {
            break;
        }
        y = store(p, y + step, s3, any);
        if (left > WINDOWS) {
            y += step;
        }
    }
}

TNF_COPIED void output_rows(const tnf_depthwise_conv2d_sparse_params *p, const int16_t *plane, const channel_strip *strip, int8_t *y,
                            int32_t stride, int32_t any)
{
    const int32_t move = strip->width * strip->step;
    int32_t left;
    for (left = strip->rows;;) {
        output_row(p, plane, strip, y, stride, any);
        if (--left == 0) {
            break; /* before the pointer leaves the tensor */
        }
        plane += stride * p->pitch;
        y += move;
    }
}

/* All outputs of a strip. */
TNF_OWN_FUNCTION void output_strip(const tnf_depthwise_conv2d_sparse_params *p, const int16_t *plane, const channel_strip *strip, int8_t *y)
{
    const int32_t any = p->act_min == -128 && p->act_max == 127;
    if (p->stride == 1 && any) {
        output_rows(p, plane, strip, y, 1, 1);
    } else if (p->stride == 1) {
        output_rows(p, plane, strip, y, 1, 0);
    } else if (any) {
        output_rows(p, plane, strip, y, 2, 1);
    } else {
        output_rows(p, plane, strip, y, 2, 0);
    }
}

/* `rows` rows of n positions of a channel, each `step` bytes after the one before and `move` bytes after the row before. */
TNF_OWN_FUNCTION void widen(int16_t *plane, int32_t pitch, const int8_t *x, int32_t step, int32_t move, int32_t rows, int32_t n)
{
    for (; rows > 0; rows--) {
        const int8_t *from = x;
        int16_t *to = plane;
        int32_t left;
        for (left = n; left > 4; left -= 4) {
            const int32_t x0 = from[0], x1 = from[step];
            from += 2 * step;
            to[0] = (int16_t)x0;
            to[1] = (int16_t)x1;
            to[2] = from[0];
            to[3] = from[step];
            to += 4;
            from += 2 * step;
        }
        for (;;) {
            *to++ = *from;
            if (--left == 0) {
                break; /* before the pointer leaves the tensor */
            }
            from += step;
        }
        plane += pitch;
        x += rows > 1 ? move : 0;
    }
}

/* Take a channel's blocks apart; where the next channel's begin. */
static const int32_t *take_apart(const tnf_depthwise_conv2d_sparse_params *p, const int32_t *stream, taps *to, int32_t blocks)
{
    const int32_t across = (p->kernel_w + BLOCK - 1) / BLOCK;
    int32_t row = 0, column = 0;
    for (; blocks > 0; blocks--) {
        const uint32_t bytes = (uint32_t)*stream++, even = tnf_even_pair(bytes), odd = tnf_odd_pair(bytes & 0xFFFFu);
        for (column += (int32_t)(bytes >> 24); column >= across; column -= across) {
            row++;
        }
        to->offset = row * p->pitch + BLOCK * column;
        to->first = tnf_low_halves(even, odd);
        to->last = (odd & 0xFFFFu) | (even & 0xFFFF0000u);
        to++;
    }
    return stream;
}

void tnf_depthwise_conv2d_sparse(const tnf_depthwise_conv2d_sparse_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    int16_t *plane = (int16_t *)scratch;
    const int32_t each = p->output_c / p->input_c;
    const int32_t most = ((p->strip - 1) * p->stride + p->kernel_h) * p->pitch;
    const int32_t move = p->input_w * p->input_c;
    taps *blocks = (taps *)(void *)(plane + most);
    int32_t first, o, i;
    for (first = 0; first < p->output_h; first += p->strip) {
        const int32_t rows = p->output_h - first < p->strip ? p->output_h - first : p->strip;
        const int32_t top = first * p->stride - p->pad_top, bottom = top + (rows - 1) * p->stride + p->kernel_h;
        const int32_t begin = top < 0 ? 0 : top, end = bottom < p->input_h ? bottom : p->input_h;
        const int32_t *stream = p->weight, *record = p->channel;
        for (i = 0; i < most; i++) {
            plane[i] = (int16_t)p->input_zero_point;
        }
        for (o = 0; o < p->output_c; o++) {
            channel_strip strip;
            if (o % each == 0 && begin < end) {
                widen(plane + (begin - top) * p->pitch + p->pad_left, p->pitch, x + begin * move + o / each, p->input_c, move, end - begin,
                      p->input_w);
            }
            strip.begin = blocks;
            strip.end = blocks + ((uint32_t)record[2] >> 8);
            strip.bias = record[0];
            strip.shift = tnf_byte((uint32_t)record[2], 0);
            strip.quick = tnf_is_quick(strip.shift, p->rounding);
            strip.scale.multiplier = record[1];
            if (strip.quick != 0) {
                strip.scale = tnf_scale_of(record[1], strip.shift, p->output_zero_point, p->rounding);
                strip.quick = p->rounding != TNF_ROUNDING_DOUBLE;
            }
            strip.rows = rows;
            strip.width = p->output_w;
            strip.step = p->output_c;
            stream = take_apart(p, stream, blocks, (int32_t)((uint32_t)record[2] >> 8));
            output_strip(p, plane, &strip, y + first * p->output_w * p->output_c + o);
            record += TNF_SPARSE_CHANNEL;
        }
    }
}
