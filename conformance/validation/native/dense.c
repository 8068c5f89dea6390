#include "dense.h"
#include "dsp.h"

/* Whatever the optimisation, what is constant in a kernel is constant in what it is made of. */
#define INLINE static inline __attribute__((always_inline))

/* How widened values lie in a column: as they came, or as SXTB16 gives them, (0, 2) (1, 3), which spares packing them. */
enum order { AS_IS, INTERLEAVED };

/* What a convolution does whatever its quantisation. */
typedef struct {
    int32_t input_h, input_w, input_c, output_h, output_w, output_c;
    int32_t kernel_h, kernel_w, stride, pad_h, pad_w;
    int32_t size; /* of a column */
    uint32_t offset; /* added to x: two halfwords */
    enum order order;
} convolution;

/* Two filters on two columns. */
typedef struct {
    int32_t upper_left, lower_left, upper_right, lower_right;
} sums;

INLINE void widen(const int8_t *x, int16_t *wide, int32_t size, uint32_t offset, enum order order)
{
    int32_t i = 0;
    for (; i + 4 <= size; i += 4) {
        const uint32_t four = *(const tnf_unaligned_word *)(const void *)(x + i);
        const uint32_t even = offset ? tnf_add_even_bytes(offset, four) : tnf_even_bytes(four);
        const uint32_t odd = offset ? tnf_add_odd_bytes(offset, four) : tnf_odd_bytes(four);
        tnf_unaligned_word *to = (tnf_unaligned_word *)(void *)(wide + i);
        to[0] = order == INTERLEAVED ? even : tnf_pack_low(even, odd);
        to[1] = order == INTERLEAVED ? odd : tnf_pack_high(even, odd);
    }
    for (; i < size; i++) {
        wide[i] = (int16_t)(x[i] + (int16_t)(offset & 0xFFFFu));
    }
}

/* The window of output (row, column), zero outside the image. */
INLINE void gather(const convolution *c, const int8_t *x, int32_t row, int32_t column, int16_t *to)
{
    const int32_t top = row * c->stride - c->pad_h, left = column * c->stride - c->pad_w;
    for (int32_t i = top; i < top + c->kernel_h; i++) {
        for (int32_t j = left; j < left + c->kernel_w; j++) {
            if (i < 0 || i >= c->input_h || j < 0 || j >= c->input_w) {
                for (int32_t k = 0; k < c->input_c; k++) {
                    to[k] = 0;
                }
            } else {
                widen(x + (i * c->input_w + j) * c->input_c, to, c->input_c, c->offset, c->order);
            }
            to += c->input_c;
        }
    }
}

INLINE sums multiply(sums s, const int8_t *upper, const int8_t *lower, const int16_t *a, const int16_t *b, int32_t size,
                            enum order order)
{
    for (int32_t fours = size >> 2; fours > 0; fours--) {
        const uint32_t u = *(const tnf_unaligned_word *)(const void *)upper, l = *(const tnf_unaligned_word *)(const void *)lower;
        uint32_t u0 = tnf_even_bytes(u), u1 = tnf_odd_bytes(u), l0 = tnf_even_bytes(l), l1 = tnf_odd_bytes(l);
        uint32_t a_pair = ((const tnf_word *)(const void *)a)[0], b_pair = ((const tnf_word *)(const void *)b)[0];
        if (order == AS_IS) {
            const uint32_t u_even = u0, l_even = l0;
            u0 = tnf_pack_low(u_even, u1);
            u1 = tnf_pack_high(u_even, u1);
            l0 = tnf_pack_low(l_even, l1);
            l1 = tnf_pack_high(l_even, l1);
        }
        s.upper_left = tnf_smlad(u0, a_pair, s.upper_left);
        s.upper_right = tnf_smlad(u0, b_pair, s.upper_right);
        s.lower_left = tnf_smlad(l0, a_pair, s.lower_left);
        s.lower_right = tnf_smlad(l0, b_pair, s.lower_right);
        a_pair = ((const tnf_word *)(const void *)a)[1];
        b_pair = ((const tnf_word *)(const void *)b)[1];
        s.upper_left = tnf_smlad(u1, a_pair, s.upper_left);
        s.upper_right = tnf_smlad(u1, b_pair, s.upper_right);
        s.lower_left = tnf_smlad(l1, a_pair, s.lower_left);
        s.lower_right = tnf_smlad(l1, b_pair, s.lower_right);
        upper += 4;
        lower += 4;
        a += 4;
        b += 4;
    }
    for (int32_t rest = size & 3; rest > 0; rest--) {
        s.upper_left += *upper * *a;
        s.upper_right += *upper++ * *b;
        s.lower_left += *lower * *a++;
        s.lower_right += *lower++ * *b++;
    }
    return s;
}

/* x * 2^left * multiplier / 2^31, rounded, halves up; then that / 2^right, rounded, halves away from zero: one of left and
 * right is 0, and shift is left - right. */
static inline int32_t requantise(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
    const int32_t high = (int32_t)(((int64_t)(x * (1 << left)) * multiplier + (1 << 30)) >> 31);
    const int32_t mask = (int32_t)((1u << right) - 1u), rest = high & mask;
    const int32_t threshold = (mask >> 1) + (high < 0);
    return (high >> right) + (rest > threshold);
}

static inline int8_t clamp(int32_t x, int32_t low, int32_t high)
{
    return (int8_t)(x < low ? low : x > high ? high : x);
}

INLINE void columns_q7(const tnf_dense_conv_params *p, const int16_t *left, const int16_t *right, int32_t size, int8_t *y,
                              enum order order)
{
    const int32_t round = (int32_t)((1u << p->output_shift) >> 1), output_c = p->output_c;
    const int8_t *weight = p->weight, *bias = p->bias;
    int8_t *y_right = y + output_c;
    for (int32_t o = 0; o < output_c; o += 2) {
        const int32_t upper = bias[0] * (1 << p->bias_shift) + round, lower = bias[1] * (1 << p->bias_shift) + round;
        const sums s = multiply((sums){upper, lower, upper, lower}, weight, weight + size, left, right, size, order);
        *y++ = tnf_saturate8(s.upper_left >> p->output_shift);
        *y++ = tnf_saturate8(s.lower_left >> p->output_shift);
        *y_right++ = tnf_saturate8(s.upper_right >> p->output_shift);
        *y_right++ = tnf_saturate8(s.lower_right >> p->output_shift);
        weight += 2 * size;
        bias += 2;
    }
}

static inline int8_t output_int8(const tnf_dense_int8_conv_params *p, int32_t sum, int32_t o)
{
    return clamp(requantise(sum, p->multiplier[o], p->shift[o]) + p->output_offset, p->act_min, p->act_max);
}

/* The last column of an odd number. */
INLINE void column_q7(const tnf_dense_conv_params *p, const int16_t *column, int32_t size, int8_t *y, enum order order)
{
    const int32_t round = (int32_t)((1u << p->output_shift) >> 1);
    const int8_t *weight = p->weight;
    for (int32_t o = 0; o < p->output_c; o++) {
        const int16_t *a = column;
        int32_t sum = p->bias[o] * (1 << p->bias_shift) + round;
        for (int32_t fours = size >> 2; fours > 0; fours--) {
            const uint32_t w = *(const tnf_unaligned_word *)(const void *)weight;
            const uint32_t even = tnf_even_bytes(w), odd = tnf_odd_bytes(w);
            const uint32_t first = ((const tnf_word *)(const void *)a)[0], second = ((const tnf_word *)(const void *)a)[1];
            sum = tnf_smlad(order == INTERLEAVED ? even : tnf_pack_low(even, odd), first, sum);
            sum = tnf_smlad(order == INTERLEAVED ? odd : tnf_pack_high(even, odd), second, sum);
            weight += 4;
            a += 4;
        }
        for (int32_t rest = size & 3; rest > 0; rest--) {
            sum += *weight++ * *a++;
        }
        y[o] = tnf_saturate8(sum >> p->output_shift);
    }
}

INLINE void columns_int8(const tnf_dense_int8_conv_params *p, const int16_t *left, const int16_t *right, int32_t size,
                                int8_t *y, enum order order)
{
    const int8_t *weight = p->weight;
    int8_t *y_right = y + p->output_c;
    for (int32_t o = 0; o < p->output_c; o += 2) {
        const int32_t upper = p->bias[o], lower = p->bias[o + 1];
        const sums s = multiply((sums){upper, lower, upper, lower}, weight, weight + size, left, right, size, order);
        y[o] = output_int8(p, s.upper_left, o);
        y[o + 1] = output_int8(p, s.lower_left, o + 1);
        y_right[o] = output_int8(p, s.upper_right, o);
        y_right[o + 1] = output_int8(p, s.lower_right, o + 1);
        weight += 2 * size;
    }
}

/* The product of the weights with two columns is a function of its own, as in a library. */
#define SEPARATE __attribute__((noinline))
typedef void product(const void *p, const int16_t *left, const int16_t *right, int32_t size, int8_t *y);

static SEPARATE void q7_as_is(const void *p, const int16_t *left, const int16_t *right, int32_t size, int8_t *y)
{
    columns_q7(p, left, right, size, y, AS_IS);
}

static SEPARATE void q7_interleaved(const void *p, const int16_t *left, const int16_t *right, int32_t size, int8_t *y)
{
    columns_q7(p, left, right, size, y, INTERLEAVED);
}

static SEPARATE void int8_as_is(const void *p, const int16_t *left, const int16_t *right, int32_t size, int8_t *y)
{
    columns_int8(p, left, right, size, y, AS_IS);
}

static SEPARATE void int8_interleaved(const void *p, const int16_t *left, const int16_t *right, int32_t size, int8_t *y)
{
    columns_int8(p, left, right, size, y, INTERLEAVED);
}

/* Where the output of a column belongs that is left over, in `columns`; NULL where none is. */
INLINE int8_t *convolve(const convolution *c, product *multiply_columns, const void *p, const int8_t *x, int8_t *y,
                            int16_t *columns)
{
    int16_t *second = columns + ((c->size + 1) & ~1);
    int32_t waiting = 0;
    for (int32_t row = 0; row < c->output_h; row++) {
        for (int32_t column = 0; column < c->output_w; column++) {
            gather(c, x, row, column, waiting ? second : columns);
            if (waiting) {
                multiply_columns(p, columns, second, c->size, y);
                y += 2 * c->output_c;
            }
            waiting = !waiting;
        }
    }
    return waiting ? y : 0;
}

#define CONVOLUTION(p, offset, order)                                                                                            \
    {(p)->input_h, (p)->input_w, (p)->input_c, (p)->output_h, (p)->output_w, (p)->output_c,                                      \
     (p)->kernel_h, (p)->kernel_w, (p)->stride, (p)->pad_h, (p)->pad_w,                                                          \
     (p)->kernel_h * (p)->kernel_w * (p)->input_c, (offset), (order)}

static inline uint32_t twice(int32_t offset)
{
    return ((uint32_t)offset & 0xFFFFu) | (uint32_t)offset << 16;
}

void tnf_dense_conv_any(const tnf_dense_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns)
{
    const convolution c = CONVOLUTION(p, 0u, AS_IS);
    int8_t *last = convolve(&c, q7_as_is, p, x, y, columns);
    if (last) {
        column_q7(p, columns, c.size, last, AS_IS);
    }
}

void tnf_dense_conv(const tnf_dense_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns)
{
    const convolution c = CONVOLUTION(p, 0u, INTERLEAVED);
    int8_t *last = convolve(&c, q7_interleaved, p, x, y, columns);
    if (last) {
        column_q7(p, columns, c.size, last, INTERLEAVED);
    }
}

void tnf_dense_int8_conv_any(const tnf_dense_int8_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns)
{
    const convolution c = CONVOLUTION(p, twice(p->input_offset), AS_IS);
    (void)convolve(&c, int8_as_is, p, x, y, columns);
}

void tnf_dense_int8_conv(const tnf_dense_int8_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns)
{
    const convolution c = CONVOLUTION(p, twice(p->input_offset), INTERLEAVED);
    (void)convolve(&c, int8_interleaved, p, x, y, columns);
}

static inline void copy(int8_t *to, const int8_t *from, int32_t size)
{
    for (int32_t i = 0; i < size; i += 4) {
        *(tnf_word *)(void *)(to + i) = *(const tnf_word *)(const void *)(from + i);
    }
}

/* Two words of four channels as four pairs, one of each channel. */
typedef struct {
    uint32_t c0, c1, c2, c3;
} pairs;

INLINE pairs pair_up(uint32_t first, uint32_t second)
{
    const uint32_t low = tnf_pack_low(first, second), high = tnf_pack_high(first, second);
    return (pairs){tnf_even_bytes(low), tnf_odd_bytes(low), tnf_even_bytes(high), tnf_odd_bytes(high)};
}

/* Four channels at a time, two positions of the window at a time. */
static SEPARATE void depthwise_pixel(const tnf_dense_conv_params *p, const int8_t *window, int8_t *y)
{
    const int32_t channels = p->output_c, size = p->kernel_h * p->kernel_w, shift = p->output_shift;
    const int32_t round = (int32_t)((1u << shift) >> 1);
    for (int32_t c = 0; c < channels; c += 4) {
        const int8_t *w = p->weight + c, *x = window + c, *bias = p->bias + c;
        int32_t s0 = bias[0] * (1 << p->bias_shift) + round, s1 = bias[1] * (1 << p->bias_shift) + round;
        int32_t s2 = bias[2] * (1 << p->bias_shift) + round, s3 = bias[3] * (1 << p->bias_shift) + round;
        for (int32_t twos = size >> 1; twos > 0; twos--) {
            const pairs a = pair_up(*(const tnf_word *)(const void *)w, *(const tnf_word *)(const void *)(w + channels));
            const pairs b = pair_up(*(const tnf_word *)(const void *)x, *(const tnf_word *)(const void *)(x + channels));
            s0 = tnf_smlad(a.c0, b.c0, s0);
            s1 = tnf_smlad(a.c1, b.c1, s1);
            s2 = tnf_smlad(a.c2, b.c2, s2);
            s3 = tnf_smlad(a.c3, b.c3, s3);
            w += 2 * channels;
            x += 2 * channels;
        }
        if ((size & 1) != 0) {
            s0 += w[0] * x[0];
            s1 += w[1] * x[1];
            s2 += w[2] * x[2];
            s3 += w[3] * x[3];
        }
        y[c] = tnf_saturate8(s0 >> shift);
        y[c + 1] = tnf_saturate8(s1 >> shift);
        y[c + 2] = tnf_saturate8(s2 >> shift);
        y[c + 3] = tnf_saturate8(s3 >> shift);
    }
}

void tnf_dense_depthwise(const tnf_dense_conv_params *p, const int8_t *x, int8_t *y, int8_t *window)
{
    const int32_t channels = p->input_c;
    for (int32_t row = 0; row < p->output_h; row++) {
        for (int32_t column = 0; column < p->output_w; column++) {
            const int32_t top = row * p->stride - p->pad_h, left = column * p->stride - p->pad_w;
            int8_t *to = window;
            for (int32_t i = top; i < top + p->kernel_h; i++) {
                for (int32_t j = left; j < left + p->kernel_w; j++, to += channels) {
                    if (i < 0 || i >= p->input_h || j < 0 || j >= p->input_w) {
                        for (int32_t k = 0; k < channels; k += 4) {
                            *(tnf_word *)(void *)(to + k) = 0u;
                        }
                    } else {
                        copy(to, x + (i * p->input_w + j) * channels, channels);
                    }
                }
            }
            depthwise_pixel(p, window, y);
            y += channels;
        }
    }
}

static inline void max_into(int8_t *x, const int8_t *other, int32_t size)
{
    for (int32_t i = 0; i < size; i += 4) {
        tnf_word *to = (tnf_word *)(void *)(x + i);
        *to = tnf_max_bytes(*to, *(const tnf_word *)(const void *)(other + i));
    }
}

/* Along the width in place first, then along the height: section 3.4 of the paper. */
void tnf_dense_max_pool(const tnf_dense_pool_params *p, int8_t *x, int8_t *y)
{
    const int32_t channels = p->channels, row_size = p->output_w * channels;
    for (int32_t row = 0; row < p->input_h; row++) {
        int8_t *line = x + row * p->input_w * channels;
        for (int32_t column = 0; column < p->output_w; column++) {
            const int32_t left = column * p->stride - p->pad;
            const int32_t first = left < 0 ? 0 : left, end = left + p->kernel < p->input_w ? left + p->kernel : p->input_w;
            int8_t *to = line + column * channels;
            if (first != column) {
                copy(to, line + first * channels, channels);
            }
            for (int32_t j = first + 1; j < end; j++) {
                max_into(to, line + j * channels, channels);
            }
        }
    }
    for (int32_t row = 0; row < p->output_h; row++) {
        const int32_t top = row * p->stride - p->pad;
        const int32_t first = top < 0 ? 0 : top, end = top + p->kernel < p->input_h ? top + p->kernel : p->input_h;
        copy(y, x + first * p->input_w * channels, row_size);
        for (int32_t i = first + 1; i < end; i++) {
            max_into(y, x + i * p->input_w * channels, row_size);
        }
        y += row_size;
    }
}

void tnf_dense_mean(const int8_t *x, int8_t *y, int32_t pixels, int32_t channels)
{
    for (int32_t c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < pixels; i++) {
            sum += x[i * channels + c];
        }
        y[c] = (int8_t)((sum > 0 ? sum + pixels / 2 : sum - pixels / 2) / pixels);
    }
}

void tnf_dense_linear(const tnf_dense_linear_params *p, const int8_t *x, int8_t *y, int16_t *wide)
{
    const int32_t round = (int32_t)((1u << p->output_shift) >> 1), inputs = p->inputs;
    const int8_t *upper = p->weight;
    widen(x, wide, inputs, 0u, INTERLEAVED);
    for (int32_t o = 0; o < p->outputs; o += 2) {
        const int8_t *lower = upper + inputs;
        const int16_t *a = wide;
        int32_t first = p->bias[o] * (1 << p->bias_shift) + round, second = p->bias[o + 1] * (1 << p->bias_shift) + round;
        for (int32_t fours = inputs >> 2; fours > 0; fours--) {
            const uint32_t u = *(const tnf_word *)(const void *)upper, l = *(const tnf_word *)(const void *)lower;
            const uint32_t even = ((const tnf_word *)(const void *)a)[0], odd = ((const tnf_word *)(const void *)a)[1];
            first = tnf_smlad(tnf_even_bytes(u), even, first);
            second = tnf_smlad(tnf_even_bytes(l), even, second);
            first = tnf_smlad(tnf_odd_bytes(u), odd, first);
            second = tnf_smlad(tnf_odd_bytes(l), odd, second);
            upper += 4;
            lower += 4;
            a += 4;
        }
        y[o] = tnf_saturate8(first >> p->output_shift);
        y[o + 1] = tnf_saturate8(second >> p->output_shift);
        upper = lower;
    }
}

void tnf_dense_int8_linear(const tnf_dense_int8_linear_params *p, const int8_t *x, int8_t *y)
{
    const uint32_t offset = twice(p->input_offset);
    const int8_t *upper = p->weight;
    for (int32_t o = 0; o < p->outputs; o += 2) {
        const int8_t *lower = upper + p->inputs, *from = x;
        int32_t first = p->bias[o], second = p->bias[o + 1];
        for (int32_t fours = p->inputs >> 2; fours > 0; fours--) {
            const uint32_t u = *(const tnf_word *)(const void *)upper, l = *(const tnf_word *)(const void *)lower;
            const uint32_t four = *(const tnf_word *)(const void *)from;
            const uint32_t even = tnf_add_even_bytes(offset, four), odd = tnf_add_odd_bytes(offset, four);
            first = tnf_smlad(tnf_even_bytes(u), even, first);
            second = tnf_smlad(tnf_even_bytes(l), even, second);
            first = tnf_smlad(tnf_odd_bytes(u), odd, first);
            second = tnf_smlad(tnf_odd_bytes(l), odd, second);
            upper += 4;
            lower += 4;
            from += 4;
        }
        y[o] = clamp(requantise(first, p->multiplier, p->shift) + p->output_offset, p->act_min, p->act_max);
        y[o + 1] = clamp(requantise(second, p->multiplier, p->shift) + p->output_offset, p->act_min, p->act_max);
        upper = lower;
    }
}

void tnf_dense_relu(int8_t *x, int32_t size)
{
    for (int32_t i = 0; i < size; i += 4) {
        tnf_word *word = (tnf_word *)(void *)(x + i);
        *word = tnf_relu_bytes(*word);
    }
}

void tnf_dense_add(const tnf_dense_add_params *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < p->size; i++) {
        const int32_t left = requantise((a[i] + p->a_offset) * (1 << 20), p->a_multiplier, p->a_shift);
        const int32_t right = requantise((b[i] + p->b_offset) * (1 << 20), p->b_multiplier, p->b_shift);
        y[i] = clamp(requantise(left + right, p->y_multiplier, p->y_shift) + p->y_offset, p->act_min, p->act_max);
    }
}
