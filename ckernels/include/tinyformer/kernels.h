/* TinyFormer kernels: one function per operator of docs/numerics.md, and the parameters each takes.
 *
 * Conventions
 * - Parameter structs hold int32_t and pointers only, so that their layout is the same list of 4-byte words on every
 *   32-bit target. They and everything they point to are constant data (flash).
 * - Activations are int8_t, channels last, one sample; pointers to them need no alignment. Pointers to int16_t and int32_t are
 *   aligned as their type asks.
 * - Multipliers are real numbers m = multiplier * 2^(shift - 31), see docs/numerics.md section 2.
 * - `scratch` is working memory, 8-byte aligned, of TNF_<OPERATOR>_SCRATCH_BYTES where that is defined; other kernels need none
 *   and take NULL. Nothing else is written but the output. No kernel allocates, keeps state or calls libc.
 * - Output may equal an input (same address, exactly) only where the kernel's comment says "in place".
 */
#ifndef TINYFORMER_KERNELS_H
#define TINYFORMER_KERNELS_H

#include <stdint.h>

#define TNF_MAX_RANK 6

/* Values of the `rounding` fields. */
#define TNF_ROUNDING_SINGLE 0
#define TNF_ROUNDING_DOUBLE 1

/* Convolution, channels last: input [input_h][input_w][input_c] -> output [output_h][output_w][output_c].
 * weight [output_c][kernel_h][kernel_w][input_c / groups]; bias, multiplier, shift [output_c]. */
typedef struct {
    int32_t input_h, input_w, input_c;
    int32_t output_h, output_w, output_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t groups;
    int32_t input_zero_point, output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding;
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
    const int32_t *shift;
} tnf_conv2d_params;
void tnf_conv2d(const tnf_conv2d_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension: channel as in tnf_linear_dsp, weight as well, the groups one after the other.
 * Scratch: 8 bytes for each tap of a window (kernel_h * kernel_w * input_c / groups, filled up to quads), 2 where there is one position;
 * and one more where input_c / groups is no multiple of 4. */
typedef struct {
    int32_t input_h, input_w, input_c;
    int32_t output_h, output_w, output_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t groups;
    int32_t input_zero_point, output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding, quick;
    const int32_t *weight;
    const int32_t *channel;
} tnf_conv2d_dsp_params;
void tnf_conv2d_dsp(const tnf_conv2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Convolution of one group with weights in the sparse encoding, see tnf_linear_sparse; taps are ordered [kernel_h][kernel_w][input_c], each
 * tap's channels filled up to whole blocks. */
typedef struct {
    int32_t input_h, input_w, input_c;
    int32_t output_h, output_w, output_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t block;
    int32_t input_zero_point, output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding, quick;
    const int32_t *weight;
    const int32_t *channel;
} tnf_conv2d_sparse_params;
void tnf_conv2d_sparse(const tnf_conv2d_sparse_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Depthwise convolution: weight [kernel_h][kernel_w][output_c], output channel o reads input channel o / (output_c / input_c). */
typedef struct {
    int32_t input_h, input_w, input_c;
    int32_t output_h, output_w, output_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t input_zero_point, output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding;
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
    const int32_t *shift;
} tnf_depthwise_conv2d_params;
void tnf_depthwise_conv2d(const tnf_depthwise_conv2d_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension, where each output channel has its own input channel and there are at least 4: kernels of up
 * to 3 x 3, filled up with weights of 0, without dilation, `stride` 1 or 2 in both directions. weight [channels][3] words of four int8, a
 * row of the kernel and 0. The input's zero point is in the bias, too. Output rows are computed `strip` at a time, an even number, in a
 * scratch of columns * ((strip - 1) * stride + 3) * 32 bytes: a column for each two of output_w with stride 1, for each with 2.
 * In place where one strip holds all rows, channels are a multiple of 4, and the output's shape is the input's. */
typedef struct {
    int32_t input_h, input_w, channels;
    int32_t output_h, output_w;
    int32_t stride;
    int32_t pad_top, pad_left;
    int32_t strip;
    int32_t input_zero_point, output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding;
    const int32_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
    const int32_t *shift;
} tnf_depthwise_conv2d_dsp_params;
void tnf_depthwise_conv2d_dsp(const tnf_depthwise_conv2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same with weights in the sparse encoding of docs/encoding.md, in blocks of three along the kernel's width; `stride` 1 or 2 in both
 * directions, without dilation. channel [output_c][3] as of tnf_linear_sparse. Output rows are computed `strip` at a time, from rows of
 * the image widened to `pitch` int16, an even number: what four windows read at each multiple of four, in whole blocks and one more,
 * and so all of the image.
 * Scratch: the pitch times ((strip - 1) * stride + kernel_h) int16, and 12 bytes for each block of the channel that has most.
 * In place where one strip holds all rows and the output's shape is the input's. Runs on every core. */
typedef struct {
    int32_t input_h, input_w, input_c;
    int32_t output_h, output_w, output_c;
    int32_t kernel_h, kernel_w;
    int32_t stride;
    int32_t pad_top, pad_left;
    int32_t strip, pitch;
    int32_t input_zero_point, output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding;
    const int32_t *weight;
    const int32_t *channel;
} tnf_depthwise_conv2d_sparse_params;
void tnf_depthwise_conv2d_sparse(const tnf_depthwise_conv2d_sparse_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Fully connected layer on rows: x [rows][input_c] -> y [rows][output_c]; weight [output_c][input_c]. */
typedef struct {
    int32_t rows, input_c, output_c;
    int32_t input_zero_point, output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding;
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
    const int32_t *shift;
} tnf_linear_params;
void tnf_linear(const tnf_linear_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension: weight in the words of tnf_tile_sums (dsp.h). channel [output_c][3]: bias with the
 * input's zero point, multiplier, shift. Scratch: 8 bytes for each input channel (filled up to quads), 2 where there is one row. */
typedef struct {
    int32_t rows, input_c, output_c;
    int32_t output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding, quick;
    const int32_t *weight;
    const int32_t *channel;
} tnf_linear_dsp_params;
void tnf_linear_dsp(const tnf_linear_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same with weights in the sparse encoding of docs/encoding.md: blocks of `block` weights, 4, 2 or 1. channel [output_c][3]: bias with
 * the input's zero point, multiplier, 256 * number of blocks + (shift & 255). Runs on every core. */
typedef struct {
    int32_t rows, input_c, output_c;
    int32_t block;
    int32_t output_zero_point;
    int32_t act_min, act_max;
    int32_t rounding, quick;
    const int32_t *weight;
    const int32_t *channel;
} tnf_linear_sparse_params;
void tnf_linear_sparse(const tnf_linear_sparse_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Batched product of activations: a [batch][m][k], b [batch][k][n], or [batch][n][k] where transpose_b is 1 -> y [batch][m][n]. */
typedef struct {
    int32_t batch, m, k, n;
    int32_t transpose_b;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    int32_t rounding;
} tnf_matmul_params;
void tnf_matmul(const tnf_matmul_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch);

/* The same for cores with the DSP extension. `quick` is 1 where the quick last step serves. Scratch: 8 bytes for
 * each of k, filled up to quads, and one more for each of `columns`, an even number: the columns of b that are rearranged at a time. */
typedef struct {
    int32_t batch, m, k, n;
    int32_t transpose_b;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    int32_t rounding, quick;
    int32_t columns;
} tnf_matmul_dsp_params;
void tnf_matmul_dsp(const tnf_matmul_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch);
/* Its two halves, for attention, on one matrix and all of its columns (batch and columns are not used): `pack` rearranges b into a byte
 * for each of k, filled up to quads, and of n, filled up to pairs; `packed` multiplies by what was packed, with 8 bytes of scratch for
 * each of k, filled up to quads. */
void tnf_matmul_dsp_pack(const tnf_matmul_dsp_params *p, const int8_t *b, void *packed);
void tnf_matmul_dsp_packed(const tnf_matmul_dsp_params *p, const int8_t *a, const void *packed, int8_t *y, void *scratch);

/* Element-wise sum, or difference, with broadcasting. dims is the output's shape, rank entries, at least one; strides are in elements,
 * 0 on a broadcast axis.
 * In place on an input whose shape is the output's. */
typedef struct {
    int32_t rank;
    const int32_t *dims;
    const int32_t *a_strides;
    const int32_t *b_strides;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    int32_t a_multiplier, a_shift;
    int32_t b_multiplier, b_shift;
    int32_t output_multiplier, output_shift;
    int32_t act_min, act_max;
    int32_t rounding;
    int32_t subtract;
} tnf_add_params;
void tnf_add(const tnf_add_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch);

/* The same for cores with the DSP extension: `rows` rows of n elements. From one row to the next an input moves on by a_row or b_row
 * elements, 0 where it gives the same to all, and within a row by a_step or b_step, 1 or 0. The multiplier of one input (the coarse
 * one: its scale is the larger) is exactly 1/2. The shift of the other is from -21 to 2 with single rounding; with double rounding it is
 * negative, or both multipliers are 1/2. That of the output is one of tnf_is_quick (dsp.h). coarse_second tells which of the inputs is the
 * coarse one. In place on an input that is not broadcast. */
typedef struct {
    int32_t rows, n;
    int32_t a_row, a_step;
    int32_t b_row, b_step;
    int32_t coarse_second;
    int32_t coarse_zero_point, fine_zero_point, output_zero_point;
    int32_t fine_multiplier, fine_shift;
    int32_t output_multiplier, output_shift;
    int32_t act_min, act_max;
    int32_t rounding;
} tnf_add_dsp_params;
void tnf_add_dsp(const tnf_add_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch);

/* Element-wise product with broadcasting, laid out like tnf_add. In place on an input whose shape is the output's. */
typedef struct {
    int32_t rank;
    const int32_t *dims;
    const int32_t *a_strides;
    const int32_t *b_strides;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    int32_t rounding;
} tnf_mul_params;
void tnf_mul(const tnf_mul_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch);

/* The same for cores with the DSP extension where the shift is one of tnf_is_quick (dsp.h), laid out like tnf_add_dsp. In place on an
 * input that is not broadcast. */
typedef struct {
    int32_t rows, n;
    int32_t a_row, a_step;
    int32_t b_row, b_step;
    int32_t a_zero_point, b_zero_point, output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    int32_t rounding;
} tnf_mul_dsp_params;
void tnf_mul_dsp(const tnf_mul_dsp_params *p, const int8_t *a, const int8_t *b, int8_t *y, void *scratch);

/* New scale and zero point, size elements. In place. */
typedef struct {
    int32_t size;
    int32_t input_zero_point, output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    int32_t rounding;
} tnf_requantize_params;
void tnf_requantize(const tnf_requantize_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension and for many elements: the scratch holds the output for each input, computed first. In
 * place. */
#define TNF_REQUANTIZE_DSP_SCRATCH_BYTES 256
typedef tnf_requantize_params tnf_requantize_dsp_params;
void tnf_requantize_dsp(const tnf_requantize_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* y = table[x + 128], size elements; table has 256 entries. In place. */
typedef struct {
    int32_t size;
    const int8_t *table;
} tnf_lookup_params;
void tnf_lookup(const tnf_lookup_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension. In place. */
typedef tnf_lookup_params tnf_lookup_dsp_params;
void tnf_lookup_dsp(const tnf_lookup_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Softmax over rows of length n; output scale 1/256, zero point -128. In place. The scratch holds the exponential of each of the
 * 256 distances from a row's maximum (filled as they occur) and one bit for each that is filled. */
#define TNF_SOFTMAX_SCRATCH_BYTES (256 * 4 + 256 / 8)
typedef struct {
    int32_t rows, n;
    int32_t multiplier, shift;
    int32_t diff_min;
} tnf_softmax_params;
void tnf_softmax(const tnf_softmax_params *p, const int8_t *x, int8_t *y, void *scratch);
/* Its two halves, for attention: `begin` empties the table, `rows` uses what is in it and adds to it. */
void tnf_softmax_begin(void *scratch);
void tnf_softmax_rows(const tnf_softmax_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension and for many elements: the scratch holds the exponentials of all 256 distances, which are
 * computed first. In place. */
#define TNF_SOFTMAX_DSP_SCRATCH_BYTES (256 * 4)
typedef tnf_softmax_params tnf_softmax_dsp_params;
void tnf_softmax_dsp(const tnf_softmax_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);
/* Its two halves: `begin` computes the table, `rows` uses it. */
void tnf_softmax_dsp_begin(const tnf_softmax_dsp_params *p, void *scratch);
void tnf_softmax_dsp_rows(const tnf_softmax_dsp_params *p, const int8_t *x, int8_t *y, const void *scratch);

/* Matmul of queries [batch][m][k] and keys [batch][k][n] (or transposed) to scores, softmax of each row of n, matmul of the
 * probabilities and values [batch][n][d] (or transposed) to y [batch][m][d]: tile_rows rows at a time, so that no more scores than
 * those exist. Fields of the three operators have their names before them. In place on the queries where d = k. Scratch:
 * TNF_SOFTMAX_SCRATCH_BYTES and the scores of a tile. */
typedef struct {
    int32_t batch, m, k, n, d;
    int32_t tile_rows;
    int32_t scores_transpose_b;
    int32_t scores_a_zero_point, scores_b_zero_point, scores_output_zero_point;
    int32_t scores_multiplier, scores_shift;
    int32_t scores_act_min, scores_act_max;
    int32_t scores_rounding;
    int32_t softmax_multiplier, softmax_shift;
    int32_t softmax_diff_min;
    int32_t context_transpose_b;
    int32_t context_a_zero_point, context_b_zero_point, context_output_zero_point;
    int32_t context_multiplier, context_shift;
    int32_t context_act_min, context_act_max;
    int32_t context_rounding;
} tnf_attention_params;
void tnf_attention(const tnf_attention_params *p, const int8_t *q, const int8_t *k, const int8_t *v, int8_t *y, void *scratch);

/* The same for cores with the DSP extension. In place on the queries where d = k. Scratch, one after the other, each of a multiple of 8
 * bytes: TNF_SOFTMAX_DSP_SCRATCH_BYTES, keys and values as tnf_matmul_dsp_pack packs them, the scratch of tnf_matmul_dsp_packed for the
 * larger of k and n, and the scores of a tile. */
typedef struct {
    int32_t batch, m, k, n, d;
    int32_t tile_rows;
    int32_t scores_transpose_b;
    int32_t scores_a_zero_point, scores_b_zero_point, scores_output_zero_point;
    int32_t scores_multiplier, scores_shift;
    int32_t scores_act_min, scores_act_max;
    int32_t scores_rounding, scores_quick;
    int32_t softmax_multiplier, softmax_shift;
    int32_t softmax_diff_min;
    int32_t context_transpose_b;
    int32_t context_a_zero_point, context_b_zero_point, context_output_zero_point;
    int32_t context_multiplier, context_shift;
    int32_t context_act_min, context_act_max;
    int32_t context_rounding, context_quick;
} tnf_attention_dsp_params;
void tnf_attention_dsp(const tnf_attention_dsp_params *p, const int8_t *q, const int8_t *k, const int8_t *v, int8_t *y, void *scratch);

/* Scaled-LayerNorm over rows of length n. The 64-bit epsilon is epsilon_high * 2^32 + epsilon_low (low word unsigned). In place. */
typedef struct {
    int32_t rows, n;
    int32_t scale_bits;
    int32_t epsilon_low, epsilon_high;
    int32_t output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    int32_t rounding;
    const int16_t *gamma;
    const int32_t *beta;
} tnf_layernorm_params;
void tnf_layernorm(const tnf_layernorm_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension where rounding is single and the shift is one of tnf_quick_scale (dsp.h). affine [n][2]: gamma
 * and beta. In place. */
typedef struct {
    int32_t rows, n;
    int32_t scale_bits;
    int32_t epsilon_low, epsilon_high;
    int32_t output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    const int32_t *affine;
} tnf_layernorm_dsp_params;
void tnf_layernorm_dsp(const tnf_layernorm_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Pooling windows, channels last. Positions outside the image are left out. */
typedef struct {
    int32_t input_h, input_w, channels;
    int32_t output_h, output_w;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left;
    int32_t act_min, act_max;
} tnf_max_pool2d_params;
void tnf_max_pool2d(const tnf_max_pool2d_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension. */
typedef tnf_max_pool2d_params tnf_max_pool2d_dsp_params;
void tnf_max_pool2d_dsp(const tnf_max_pool2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

typedef struct {
    int32_t input_h, input_w, channels;
    int32_t output_h, output_w;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left;
    int32_t act_min, act_max;
} tnf_average_pool2d_params;
void tnf_average_pool2d(const tnf_average_pool2d_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension, for windows of at most 255 positions. */
typedef tnf_average_pool2d_params tnf_average_pool2d_dsp_params;
void tnf_average_pool2d_dsp(const tnf_average_pool2d_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Mean over the middle axis: x [outer][n][inner] -> y [outer][inner]. */
typedef struct {
    int32_t outer, n, inner;
    int32_t input_zero_point, output_zero_point;
    int32_t multiplier, shift;
    int32_t act_min, act_max;
    int32_t rounding;
} tnf_mean_params;
void tnf_mean(const tnf_mean_params *p, const int8_t *x, int8_t *y, void *scratch);

/* The same for cores with the DSP extension, where inner is 1 or at least 4. */
typedef tnf_mean_params tnf_mean_dsp_params;
void tnf_mean_dsp(const tnf_mean_dsp_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Same bytes, another shape. In place (then it does nothing). */
typedef struct {
    int32_t size;
} tnf_reshape_params;
void tnf_reshape(const tnf_reshape_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Output axis i, of length dims[i], walks the input with stride strides[i] (elements); at least one axis. */
typedef struct {
    int32_t rank;
    const int32_t *dims;
    const int32_t *strides;
} tnf_transpose_params;
void tnf_transpose(const tnf_transpose_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Output axis i, of length dims[i], walks the input with stride strides[i] (the step included), from element offset; at
 * least one axis. */
typedef struct {
    int32_t rank;
    int32_t offset;
    const int32_t *dims;
    const int32_t *strides;
} tnf_slice_params;
void tnf_slice(const tnf_slice_params *p, const int8_t *x, int8_t *y, void *scratch);

/* input_dims, at least one, are copied into an output of shape output_dims at position before; the rest is value. */
typedef struct {
    int32_t rank;
    const int32_t *input_dims;
    const int32_t *output_dims;
    const int32_t *before;
    int32_t value;
} tnf_pad_params;
void tnf_pad(const tnf_pad_params *p, const int8_t *x, int8_t *y, void *scratch);

/* Inputs joined along one axis: input k contributes, for each of `outer` rows, chunk[k] bytes. Where rescale[k] is 1 its bytes are requantised. */
typedef struct {
    int32_t count;
    int32_t outer;
    int32_t output_zero_point;
    int32_t rounding;
    const int32_t *chunk;
    const int32_t *rescale;
    const int32_t *zero_point;
    const int32_t *multiplier;
    const int32_t *shift;
} tnf_concat_params;
void tnf_concat(const tnf_concat_params *p, const int8_t *const *xs, int8_t *y, void *scratch);

#endif
