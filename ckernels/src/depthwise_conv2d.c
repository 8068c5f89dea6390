#include "tinyformer/kernels.h"
#include "tinyformer/numerics.h"

/* The part of the kernel window that lies inside the image (rows = 0 where none does, else cols >= 1): distances between its rows and columns, in image and weights. */
typedef struct {
    int32_t depth_multiplier;
    int32_t rows, cols;
    int32_t x_row, x_col;
    int32_t w_row, w_col;
} window;

/* Four channels at a time, where each has its own input channel. */
TNF_OWN_FUNCTION void accumulate4(int32_t acc[4], const int8_t *x, const int8_t *w, const window *win, int32_t zero_point)
{
    int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    const int32_t x_col = win->x_col, w_col = win->w_col;
    int32_t r, c;
    for (r = 0; r < win->rows; r++) {
        const int8_t *xc = x + r * win->x_row;
        const int8_t *wc = w + r * win->w_row;
        for (c = win->cols;;) {
            a0 += (xc[0] - zero_point) * wc[0];
            a1 += (xc[1] - zero_point) * wc[1];
            a2 += (xc[2] - zero_point) * wc[2];
            a3 += (xc[3] - zero_point) * wc[3];
            if (--c == 0) {
                break; /* before the pointers leave the tensors */
            }
            xc += x_col;
            wc += w_col;
        }
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

static int32_t accumulate(int32_t acc, const int8_t *x, const int8_t *w, const window *win, int32_t zero_point)
{
    int32_t r, c;
    for (r = 0; r < win->rows; r++) {
        int32_t x_at = r * win->x_row;
        int32_t w_at = r * win->w_row;
        for (c = 0; c < win->cols; c++) {
            acc += (x[x_at] - zero_point) * w[w_at];
            x_at += win->x_col;
            w_at += win->w_col;
        }
    }
    return acc;
}

static int8_t finish(const tnf_depthwise_conv2d_params *p, int32_t acc, int32_t o)
{
    return tnf_requantize_to_int8(acc, p->multiplier[o], p->shift[o], p->rounding, p->output_zero_point, p->act_min, p->act_max);
}

/* One output position: x and w point at the first byte of the window that is inside the image. */
static void output_pixel(const tnf_depthwise_conv2d_params *p, const int8_t *x, const int8_t *w, const window *win, int8_t *y)
{
    int32_t o = 0, end, j;
    if (win->depth_multiplier == 1) {
        for (; o + 4 <= p->output_c; o += 4) {
            int32_t acc[4];
            for (j = 0; j < 4; j++) {
                acc[j] = p->bias[o + j];
            }
            accumulate4(acc, x + o, w + o, win, p->input_zero_point);
            for (j = 0; j < 4; j++) {
                y[o + j] = finish(p, acc[j], o + j);
            }
        }
        x += o;
    }
    for (end = o + win->depth_multiplier; end <= p->output_c; end += win->depth_multiplier) {
        for (; o < end; o++) {
            y[o] = finish(p, accumulate(p->bias[o], x, w + o, win, p->input_zero_point), o);
        }
        x += 1;
    }
}

void tnf_depthwise_conv2d(const tnf_depthwise_conv2d_params *p, const int8_t *x, int8_t *y, void *scratch)
{
    window win;
    int32_t oh, ow;
    (void)scratch;
    win.depth_multiplier = p->output_c / p->input_c;
    win.x_row = p->dilation_h * p->input_w * p->input_c;
    win.x_col = p->dilation_w * p->input_c;
    win.w_row = p->kernel_w * p->output_c;
    win.w_col = p->output_c;
    for (oh = 0; oh < p->output_h; oh++) {
        const int32_t top = oh * p->stride_h - p->pad_top;
        const int32_t kh = tnf_window_first(top, p->dilation_h);
        const int32_t rows = tnf_window_end(top, p->dilation_h, p->kernel_h, p->input_h) - kh;
        for (ow = 0; ow < p->output_w; ow++) {
            const int32_t left = ow * p->stride_w - p->pad_left;
            const int32_t kw = tnf_window_first(left, p->dilation_w);
            int32_t x_first = 0, w_first = 0;
            win.rows = 0;
            win.cols = tnf_window_end(left, p->dilation_w, p->kernel_w, p->input_w) - kw;
            if (rows > 0 && win.cols > 0) {
                win.rows = rows;
                x_first = ((top + kh * p->dilation_h) * p->input_w + left + kw * p->dilation_w) * p->input_c;
                w_first = (kh * p->kernel_w + kw) * p->output_c;
            }
            output_pixel(p, x + x_first, p->weight + w_first, &win, y);
            y += p->output_c;
        }
    }
}
