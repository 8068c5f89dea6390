#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

/* The part of the kernel window that lies inside the image, with its bytes in as few contiguous runs as they form. */
typedef struct {
    int32_t group_in, group_out; /* channels of one group */
    int32_t rows, taps, run;     /* rows of `taps` runs of `run` bytes */
    int32_t x_row, x_tap;        /* distance between rows and between runs, in the image */
    int32_t w_row, w_tap;        /* and in the weights of one output channel */
    int32_t w_channel;           /* weights of one output channel */
} window;

static void accumulate4(int32_t acc[4], const int8_t *x, const int8_t *w, int32_t stride, const window *win, int32_t zero_point)
{
    int32_t r, t;
    for (r = 0; r < win->rows; r++) {
        for (t = 0; t < win->taps; t++) {
            tnf_dot4(acc, x + r * win->x_row + t * win->x_tap, w + r * win->w_row + t * win->w_tap, stride, win->run, zero_point);
        }
    }
}

static int32_t accumulate(int32_t acc, const int8_t *x, const int8_t *w, const window *win, int32_t zero_point)
{
    int32_t r, t;
    for (r = 0; r < win->rows; r++) {
        for (t = 0; t < win->taps; t++) {
            acc = tnf_dot(acc, x + r * win->x_row + t * win->x_tap, w + r * win->w_row + t * win->w_tap, win->run, zero_point);
        }
    }
    return acc;
}

static int8_t finish(const tnf_conv2d_params *p, int32_t acc, int32_t o)
{
    return tnf_requantize_to_int8(acc, p->multiplier[o], p->shift[o], p->rounding, p->output_zero_point, p->act_min, p->act_max);
}

/* One output position: x and w point at the first byte of the window that is inside the image. */
static void output_pixel(const tnf_conv2d_params *p, const int8_t *x, const int8_t *w, const window *win, int8_t *y)
{
    const int32_t stride = win->w_channel;
    int32_t o, end, j;
    for (o = 0, end = win->group_out; end <= p->output_c; end += win->group_out) {
        for (; o + 4 <= end; o += 4) {
            int32_t acc[4];
            for (j = 0; j < 4; j++) {
                acc[j] = p->bias[o + j];
            }
            accumulate4(acc, x, w + o * stride, stride, win, p->input_zero_point);
            for (j = 0; j < 4; j++) {
                y[o + j] = finish(p, acc[j], o + j);
            }
        }
        for (; o < end; o++) {
            y[o] = finish(p, accumulate(p->bias[o], x, w + o * stride, win, p->input_zero_point), o);
        }
        x += win->group_in;
    }
}

void tnf_conv2d(const tnf_conv2d_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    const int32_t group_in = p->input_c / p->groups;
    const int32_t merge = p->dilation_w == 1 && p->groups == 1; /* neighbouring taps are neighbouring bytes */
    window win;
    int32_t oh, ow;
    (void)scratch;
    win.group_in = group_in;
    win.group_out = p->output_c / p->groups;
    win.x_row = p->dilation_h * p->input_w * p->input_c;
    win.x_tap = p->dilation_w * p->input_c;
    win.w_row = p->kernel_w * group_in;
    win.w_tap = group_in;
    win.w_channel = p->kernel_h * p->kernel_w * group_in;
    for (oh = 0; oh < p->output_h; oh++) {
        const int32_t top = oh * p->stride_h - p->pad_top;
        const int32_t kh = tnf_window_first(top, p->dilation_h);
        const int32_t rows = tnf_window_end(top, p->dilation_h, p->kernel_h, p->input_h) - kh;
        for (ow = 0; ow < p->output_w; ow++) {
            const int32_t left = ow * p->stride_w - p->pad_left;
            const int32_t kw = tnf_window_first(left, p->dilation_w);
            const int32_t taps = tnf_window_end(left, p->dilation_w, p->kernel_w, p->input_w) - kw;
            int32_t x_first = 0, w_first = 0;
            win.rows = 0;
            if (rows > 0 && taps > 0) {
                win.rows = rows;
                win.taps = merge ? 1 : taps;
                win.run = merge ? taps * group_in : group_in;
                x_first = ((top + kh * p->dilation_h) * p->input_w + left + kw * p->dilation_w) * p->input_c;
                w_first = (kh * p->kernel_w + kw) * group_in;
            }
            output_pixel(p, x + x_first, p->weight + w_first, &win, y);
            y += p->output_c;
        }
    }
}
