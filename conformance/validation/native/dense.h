/* Dense kernels in 8-bit fixed point ("q7") and in TensorFlow Lite's int8, written from the description in L. Lai, N. Suda,
 * V. Chandra, "CMSIS-NN: Efficient Neural Network Kernels for Arm Cortex-M CPUs", arXiv:1801.06601, section 3. They do the same
 * work in the same manner as the kernels whose run times that paper and submissions to MLPerf Tiny publish, and serve to
 * validate the cycle model only.
 *
 * Activations are channels last. In q7, y = saturate8((sum + (bias << bias_shift) + rounding) >> output_shift). Where a size must
 * be a multiple of something, the comment says so; nothing is checked. int16 buffers are word-aligned. */
#ifndef TNF_VALIDATION_DENSE_H
#define TNF_VALIDATION_DENSE_H

#include <stdint.h>

/* weight [output_c][kernel_h][kernel_w][input_c]; bias [output_c]. output_c is even, and in int8 output_h * output_w as well. */
typedef struct {
    int32_t input_h, input_w, input_c;
    int32_t output_h, output_w, output_c;
    int32_t kernel_h, kernel_w, stride, pad_h, pad_w;
    int32_t bias_shift, output_shift;
    const int8_t *weight;
    const int8_t *bias;
} tnf_dense_conv_params;

/* Any number of input channels; columns: two windows of int16, each of an even number. */
void tnf_dense_conv_any(const tnf_dense_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns);
/* input_c is a multiple of 4. */
void tnf_dense_conv(const tnf_dense_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns);

/* Depthwise: weight [kernel_h][kernel_w][output_c], output_c is input_c and a multiple of 4; window: as many int8 as weights. */
void tnf_dense_depthwise(const tnf_dense_conv_params *p, const int8_t *x, int8_t *y, int8_t *window);

/* The same in TensorFlow Lite's quantisation: y = clamp(requantise(bias + sum of weight * (x + input_offset)) + output_offset),
 * with a multiplier and a shift for each output channel. A requantisation multiplies by multiplier * 2^(shift - 31): a shift to
 * the left, a rounded doubling high multiplication, a rounded shift to the right. */
typedef struct {
    int32_t input_h, input_w, input_c;
    int32_t output_h, output_w, output_c;
    int32_t kernel_h, kernel_w, stride, pad_h, pad_w;
    int32_t input_offset, output_offset, act_min, act_max;
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
    const int32_t *shift;
} tnf_dense_int8_conv_params;
void tnf_dense_int8_conv_any(const tnf_dense_int8_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns);
void tnf_dense_int8_conv(const tnf_dense_int8_conv_params *p, const int8_t *x, int8_t *y, int16_t *columns);

/* Maximum over windows, clipped at the image's edges. channels is a multiple of 4. x is overwritten. */
typedef struct {
    int32_t input_h, input_w, channels;
    int32_t output_h, output_w;
    int32_t kernel, stride, pad;
} tnf_dense_pool_params;
void tnf_dense_max_pool(const tnf_dense_pool_params *p, int8_t *x, int8_t *y);
/* Mean over the image, rounded to nearest; y [channels]. */
void tnf_dense_mean(const int8_t *x, int8_t *y, int32_t pixels, int32_t channels);

/* weight [outputs][inputs]; outputs is even, inputs a multiple of 4; wide: inputs int16. */
typedef struct {
    int32_t inputs, outputs;
    int32_t bias_shift, output_shift;
    const int8_t *weight;
    const int8_t *bias;
} tnf_dense_linear_params;
void tnf_dense_linear(const tnf_dense_linear_params *p, const int8_t *x, int8_t *y, int16_t *wide);

/* The same in plain C, one product at a time, for cores without the DSP extension. */
void tnf_plain_linear(const tnf_dense_linear_params *p, const int8_t *x, int8_t *y);

/* In TensorFlow Lite's quantisation, one multiplier and shift for all outputs; x is word-aligned. */
typedef struct {
    int32_t inputs, outputs;
    int32_t input_offset, output_offset, act_min, act_max;
    int32_t multiplier, shift;
    const int8_t *weight;
    const int32_t *bias;
} tnf_dense_int8_linear_params;
void tnf_dense_int8_linear(const tnf_dense_int8_linear_params *p, const int8_t *x, int8_t *y);

/* In place; size is a multiple of 4. */
void tnf_dense_relu(int8_t *x, int32_t size);

/* TensorFlow Lite's quantised addition: y = clamp(requantise(requantise((a + offset) << 20) + requantise((b + offset) << 20)) +
 * offset). */
typedef struct {
    int32_t size;
    int32_t a_offset, a_multiplier, a_shift;
    int32_t b_offset, b_multiplier, b_shift;
    int32_t y_offset, y_multiplier, y_shift;
    int32_t act_min, act_max;
} tnf_dense_add_params;
void tnf_dense_add(const tnf_dense_add_params *p, const int8_t *a, const int8_t *b, int8_t *y);

/* LayerNorm in floating point over rows of n: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta. */
void tnf_float_layernorm(const float *x, float *y, const float *gamma, const float *beta, int32_t rows, int32_t n);
/* The same as C source comes out that leaves its constants double: every operation in double precision, and the square root
 * taken anew for each element. */
void tnf_double_layernorm(const float *x, float *y, const float *gamma, const float *beta, int32_t rows, int32_t n);

#endif
